"""Published shapes: facts against published parameter counts, and errors."""

from __future__ import annotations

import dataclasses

import pytest
from bitwright.arch.errors import ConfigError
from bitwright.workloads import shapes
from bitwright.workloads.shape_parts import Experts, LatentAttention

# Published totals, each with where it was read on 2026-11-23 (tied heads once):
#   keras-hub      keras-team/keras-hub 71453d0, "params" of the model's *_presets.py
#   together       togethercomputer/together-python c96e244, src/together/finetune.py, model_param_count
#   calflops       MrYxJ/calculate-flops.pytorch 086d419, README, "Params(Total)"
#   torchvision    models/vision_transformer.py, "num_params" of ViT_B_16_Weights.IMAGENET1K_V1
#   hub, quoted    the Hugging Face page's count of safetensors' elements, as public repositories quote it; the page
#                  itself was not at hand
PUBLISHED = {
    "smollm2-135m": 134_515_008,  # hub, quoted
    "llama-2-7b": 6_738_415_616,  # keras-hub, together, calflops
    "llama-2-13b": 13_015_864_320,  # together
    "llama-2-70b": 68_976_648_192,  # together
    "llama-3-8b": 8_030_261_248,  # keras-hub
    "llama-3-70b": 70_553_706_496,  # hub, quoted (of Llama-3.3-70B, the same shape)
    "opt-1.3b": 1_315_758_080,  # the count that a training script notes of the loaded model
    "opt-6.7b": 6_658_473_984,  # no independent exact count found; "6.7B" on its card
    "phi-2": 2_779_683_840,  # hub, quoted
    "yi-6b": 6_061_035_520,  # hub, quoted
    "mistral-7b": 7_241_732_096,  # keras-hub
    "mixtral-8x7b": 46_702_792_704,  # keras-hub
    "qwen2.5-0.5b": 494_032_768,  # keras-hub
    "qwen2.5-7b": 7_615_616_512,  # keras-hub
    "qwen3-30b-a3b": 30_532_122_624,  # keras-hub
    "gemma-3-270m": 268_098_176,  # keras-hub
    "bitnet-b1.58-2b-4t": 2_412_820_480,  # one public repository's count of the loaded model
    "gpt2": 124_439_808,  # keras-hub
    "bloom-7b1": 7_069_016_064,  # calflops
    "deepseek-v3": 671_026_419_200,  # hub, quoted: 163 shards recounted, without the extra prediction layer
    "vit-b-16": 86_567_656,  # torchvision
    "mamba-2.8b": 2_768_345_600,  # "Number of parameters" of the model's own benchmark, as a README quotes it
}
# Of their cards alone: no exact count found.
ROUNDED = {"bitnet-b1.58-3b": (3.32e9, 0.01e9), "falcon-7b": (6.92e9, 0.01e9)}
ACTIVE = {"mixtral-8x7b": (12.9e9, 0.05e9), "qwen3-30b-a3b": (3.3e9, 0.06e9), "deepseek-v3": (37e9, 0.6e9)}


def test_names_are_the_published_ones() -> None:
    assert set(shapes.published()) == set(PUBLISHED) | set(ROUNDED)
    assert set(shapes.published()) - set(shapes.names()) == {"vit-b-16", "mamba-2.8b"}
    assert all(shape.source for shape in shapes.published().values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_count(name: str) -> None:
    assert shapes.published()[name].parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_parameters_round_to_the_published_figure(name: str) -> None:
    assert shapes.get(name).parameters == pytest.approx(ROUNDED[name][0], abs=ROUNDED[name][1])


@pytest.mark.parametrize("name", ACTIVE)
def test_parameters_of_a_token_round_to_the_published_figure(name: str) -> None:
    assert shapes.get(name).active_parameters == pytest.approx(ACTIVE[name][0], abs=ACTIVE[name][1])


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("llama-2-7b", 2 * 4096 * 32),
        ("llama-3-8b", 2 * 1024 * 32),
        ("falcon-7b", 2 * 64 * 32),
        ("deepseek-v3", 576 * 61),  # DeepSeek-V2's section 2.1.4: d_c + d_h^R a layer
    ],
)
def test_numbers_cached_a_token(name: str, numbers: int) -> None:
    shape = shapes.get(name)
    assert shape.cached_per_token * shape.layers == numbers


def test_matrices_of_a_mixture_with_latent_attention() -> None:
    found = {m.name: (m.n, m.k, m.count) for m in shapes.get("deepseek-v3").matmuls()}
    assert found == {
        "q_down": (1536, 7168, 61),
        "q_up": (128 * 192, 1536, 61),
        "kv_down": (576, 7168, 61),
        "kv_up": (128 * 256, 512, 61),
        "o": (7168, 128 * 128, 61),
        "gate": (18432, 7168, 3),
        "up": (18432, 7168, 3),
        "down": (7168, 18432, 3),
        "router": (256, 7168, 58),
        "expert_gate": (2048, 7168, 58 * 256),
        "expert_up": (2048, 7168, 58 * 256),
        "expert_down": (7168, 2048, 58 * 256),
        "shared_gate": (2048, 7168, 58),
        "shared_up": (2048, 7168, 58),
        "shared_down": (7168, 2048, 58),
        "head": (129280, 7168, 1),
    }


def test_layers_by_window() -> None:
    assert shapes.get("llama-3-8b").windows() == {None: 32}
    assert shapes.get("mistral-7b").windows() == {4096: 32}
    gemma = shapes.get("gemma-3-270m")
    assert gemma.windows() == {None: 3, 512: 15}
    assert [layer for layer in range(18) if gemma.window_of(layer) is None] == [5, 11, 17]


def test_what_is_no_decoder_is_listed_and_not_run() -> None:
    vision, scan = shapes.published()["vit-b-16"], shapes.published()["mamba-2.8b"]
    assert (shapes.family(vision), shapes.family(scan)) == ("vision", "scan")
    assert [(m.name, m.n, m.k) for m in scan.matmuls()][:4] == [
        ("in", 10240, 2560), ("x", 192, 5120), ("dt", 5120, 160), ("out", 2560, 5120)
    ]  # fmt: skip
    assert vision.matmuls()[0].k == 768
    with pytest.raises(ConfigError) as error:
        shapes.get("mamba-2.8b")
    assert str(error.value) == (
        "model = 'mamba-2.8b': only its matrix sizes are known (bitwright list models), no timing of it is claimed; "
        "name a decoder"
    )


def test_smollm2_matmuls() -> None:
    found = [(m.name, m.n, m.k, m.count) for m in shapes.get("smollm2-135m").matmuls()]
    assert found == [
        ("q", 576, 576, 30),
        ("k", 192, 576, 30),
        ("v", 192, 576, 30),
        ("o", 576, 576, 30),
        ("gate", 1536, 576, 30),
        ("up", 1536, 576, 30),
        ("down", 576, 1536, 30),
        ("head", 49152, 576, 1),
    ]


def test_two_matrix_feed_forward_has_no_gate() -> None:
    assert [m.name for m in shapes.get("opt-1.3b").matmuls()] == ["q", "k", "v", "o", "up", "down", "head"]


def test_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(ConfigError) as error:
        shapes.get("llama2-7b")
    assert str(error.value) == (
        f"model = 'llama2-7b': no such shape; did you mean 'llama-2-7b'? (known: {', '.join(sorted(shapes.names()))})"
    )


def test_impossible_shapes_are_refused() -> None:
    good = shapes.get("llama-3-8b")
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(good, hidden=0)
    assert str(error.value) == "llama-3-8b.hidden = 0: must be a whole number of at least 1"
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(good, kv_heads=5)
    assert str(error.value) == "llama-3-8b.heads = 32: must be a multiple of kv_heads = 5"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "llama-3-8b",
            {"norm": "rmsnorm"},
            "llama-3-8b.norm = 'rmsnorm': no such norm; did you mean 'rms'? (known: layer, rms)",
        ),
        ("llama-3-8b", {"max_context": 0}, "llama-3-8b.max_context = 0: must be a whole number of at least 1"),
        ("llama-3-8b", {"sink_tokens": -1}, "llama-3-8b.sink_tokens = -1: must be a whole number of at least 0"),
        (
            "deepseek-v3",
            {"head_dim": 128},
            "deepseek-v3.kv_heads, head_dim = 128, 128: with latent they must be heads = 128 and nope + rope = 192",
        ),
    ],
)
def test_impossible_details_are_refused(name: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(shapes.get(name), **changes)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_impossible_parts_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        Experts(count=4, active=5, width=8)
    assert str(error.value) == "experts.active = 5: must be at most count = 4"
    with pytest.raises(ConfigError) as error:
        LatentAttention(q_rank=0, kv_rank=8, nope=4, rope=4, value=4)
    assert str(error.value) == "latent.q_rank = 0: must be a whole number of at least 1"
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(shapes.get("mixtral-8x7b"), experts=Experts(count=8, active=2, width=8, dense_layers=32))
    assert str(error.value) == "mixtral-8x7b.experts.dense_layers = 32: must be below layers = 32"
