"""config.json, GGUF headers, CSV lists and ONNX graphs as workloads: against the published shapes and hand counts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from bitwright.arch.errors import BitwrightError, CheckpointError, ConfigError
from bitwright.workloads import checkpoint, gemm_list, models, shapes
from bitwright.workloads.policy import FormatPolicy

# The published config.json files, without the keys that say nothing about sizes or structure.
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257,
             "layer_norm_epsilon": 1e-5},
    "opt-1.3b": {"model_type": "opt", "hidden_size": 2048, "ffn_dim": 8192, "num_attention_heads": 32,
                 "num_hidden_layers": 24, "max_position_embeddings": 2048, "vocab_size": 50272,
                 "word_embed_proj_dim": 2048, "do_layer_norm_before": True},
    "bloom-7b1": {"model_type": "bloom", "hidden_size": 4096, "n_head": 32, "n_layer": 30, "vocab_size": 250880,
                  "seq_length": 2048, "layer_norm_epsilon": 1e-5},
    "falcon-7b": {"model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 32,
                  "vocab_size": 65024, "multi_query": True, "parallel_attn": True, "bias": False, "alibi": False,
                  "new_decoder_architecture": False, "layer_norm_epsilon": 1e-5, "max_position_embeddings": 2048},
    "phi-2": {"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 32,
              "num_hidden_layers": 32, "num_key_value_heads": None, "vocab_size": 51200, "layer_norm_eps": 1e-5,
              "partial_rotary_factor": 0.4, "max_position_embeddings": 2048, "tie_word_embeddings": False},
    "mixtral-8x7b": {"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32, "vocab_size": 32000,
                     "rope_theta": 1e6, "rms_norm_eps": 1e-5, "num_local_experts": 8, "num_experts_per_tok": 2,
                     "sliding_window": None, "max_position_embeddings": 32768, "tie_word_embeddings": False},
    "qwen3-30b-a3b": {"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "head_dim": 128,
                      "num_attention_heads": 32, "num_key_value_heads": 4, "num_hidden_layers": 48,
                      "vocab_size": 151936, "rope_theta": 1e6, "rms_norm_eps": 1e-6, "num_experts": 128,
                      "num_experts_per_tok": 8, "moe_intermediate_size": 768, "decoder_sparse_step": 1,
                      "mlp_only_layers": [], "attention_bias": False, "use_sliding_window": False,
                      "max_position_embeddings": 40960, "tie_word_embeddings": False},
    "gemma-3-270m": {"model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048, "head_dim": 256,
                     "num_attention_heads": 4, "num_key_value_heads": 1, "num_hidden_layers": 18, "vocab_size": 262144,
                     "rope_theta": 1e6, "rms_norm_eps": 1e-6, "sliding_window": 512, "max_position_embeddings": 32768,
                     "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3},
    "bitnet-b1.58-2b-4t": {"model_type": "bitnet", "hidden_size": 2560, "intermediate_size": 6912,
                           "num_attention_heads": 20, "num_key_value_heads": 5, "num_hidden_layers": 30,
                           "vocab_size": 128256, "rope_theta": 5e5, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
                           "max_position_embeddings": 4096},
    "deepseek-v3": {"model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432,
                    "num_attention_heads": 128, "num_key_value_heads": 128, "num_hidden_layers": 61,
                    "vocab_size": 129280, "rope_theta": 10000, "rms_norm_eps": 1e-6, "q_lora_rank": 1536,
                    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
                    "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_layer_freq": 1,
                    "moe_intermediate_size": 2048, "first_k_dense_replace": 3, "max_position_embeddings": 163840,
                    "tie_word_embeddings": False},
    "llama-3-8b": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
                   "num_key_value_heads": 8, "num_hidden_layers": 32, "vocab_size": 128256, "rope_theta": 5e5,
                   "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "tie_word_embeddings": False},
}  # fmt: skip

# Published totals of models that are not in models.yaml.
OTHERS: dict[str, tuple[int, dict[str, Any]]] = {
    "gemma-2-2b": (2_614_341_888, {
        "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "head_dim": 256,
        "num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 26, "vocab_size": 256000,
        "sliding_window": 4096}),
    "gemma-2b": (2_506_172_416, {
        "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "head_dim": 256,
        "num_attention_heads": 8, "num_key_value_heads": 1, "num_hidden_layers": 18, "vocab_size": 256000}),
    "phi-3-mini": (3_821_079_552, {
        "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 32,
        "num_key_value_heads": 32, "num_hidden_layers": 32, "vocab_size": 32064, "sliding_window": 2047}),
    "qwen1.5-moe-a2.7b": (14_315_784_192, {
        "model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 16,
        "num_key_value_heads": 16, "num_hidden_layers": 24, "vocab_size": 151936, "num_experts": 60,
        "num_experts_per_tok": 4, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632}),
    "deepseek-v2-lite": (15_706_484_224, {
        "model_type": "deepseek_v2", "hidden_size": 2048, "intermediate_size": 10944, "num_attention_heads": 16,
        "num_key_value_heads": 16, "num_hidden_layers": 27, "vocab_size": 102400, "q_lora_rank": None,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_layer_freq": 1,
        "moe_intermediate_size": 1408, "first_k_dense_replace": 1}),
    "pythia-1b": (1_011_781_632, {
        "model_type": "gpt_neox", "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 8,
        "num_hidden_layers": 16, "vocab_size": 50304, "rotary_pct": 0.25}),
    "starcoder2-3b": (3_030_371_328, {
        "model_type": "starcoder2", "hidden_size": 3072, "intermediate_size": 12288, "num_attention_heads": 24,
        "num_key_value_heads": 2, "num_hidden_layers": 30, "vocab_size": 49152, "sliding_window": 4096,
        "use_bias": True}),
}  # fmt: skip


def written(folder: Path, config: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder / "config.json")


@pytest.mark.parametrize("name", CONFIGS)
def test_published_configs_give_the_published_shapes(name: str, tmp_path: Path) -> None:
    found = models.shape_of(written(tmp_path, CONFIGS[name]))
    published = shapes.get(name)
    assert dataclasses.replace(found, name=name, source=published.source) == published
    assert models.shape_of(str(tmp_path)) == found


@pytest.mark.parametrize("name", OTHERS)
def test_other_configs_give_the_published_parameters(name: str, tmp_path: Path) -> None:
    parameters, config = OTHERS[name]
    assert models.shape_of(written(tmp_path, config)).parameters == parameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mixtrel"}, "model_type = 'mixtrel': no such architecture here; did you mean 'mixtral'?"),
        ({"hidden_size": 0}, "hidden_size = 0: must be there, as a whole number of at least 1"),
        ({"num_local_experts": -8}, "num_local_experts = -8: must be there, as a whole number of at least 1"),
        ({"num_experts_per_tok": 9}, "experts.active = 9: must be at most count = 8"),
        ({"num_key_value_heads": 5}, "config.json.heads"),
        ({"rope_theta": -1.0}, "rope_theta = -1.0: must be there, as a number of at least 0"),
    ],
)
def test_impossible_configs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = written(tmp_path, CONFIGS["mixtral-8x7b"] | changes)
    with pytest.raises(CheckpointError) as error:
        models.shape_of(path)
    wanted = message.replace("config.json.heads", f"{tmp_path.name}.heads = 32: must be a multiple of kv_heads = 5")
    assert str(error.value).startswith(f"{path}: {wanted}")


def test_weights_of_shape_only_architectures_are_refused(tmp_path: Path) -> None:
    written(tmp_path, CONFIGS["mixtral-8x7b"])
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(tmp_path)
    assert str(error.value).startswith(
        f"{tmp_path / 'config.json'}: model_type = 'mixtral': no such architecture here;"
    )


def gguf_file(path: Path, kind: str, fields: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> str:
    writer = gguf.GGUFWriter(str(path), kind)
    for key, value in fields.items():
        full = f"{kind}.{key}"
        writer.add_float32(full, value) if isinstance(value, float) else writer.add_uint32(full, value)
    for name, shape in tensors.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


DEEPSEEK_FIELDS: dict[str, Any] = {
    "block_count": 2, "embedding_length": 16, "feed_forward_length": 24, "attention.head_count": 2,
    "attention.head_count_kv": 1, "attention.kv_lora_rank": 6, "attention.q_lora_rank": 10,
    "attention.key_length_mla": 12, "attention.value_length_mla": 7, "attention.key_length": 10,
    "rope.dimension_count": 4, "expert_count": 3, "expert_used_count": 2, "expert_feed_forward_length": 5,
    "expert_shared_count": 1, "leading_dense_block_count": 1, "context_length": 64,
    "attention.layer_norm_rms_epsilon": 1e-6,
}  # fmt: skip


def deepseek_tensors() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (50, 16), "output.weight": (50, 16)}
    found["output_norm.weight"] = (16,)
    for layer in range(2):
        blk = f"blk.{layer}."
        found |= {
            blk + "attn_norm.weight": (16,), blk + "ffn_norm.weight": (16,),
            blk + "attn_q_a.weight": (10, 16), blk + "attn_q_a_norm.weight": (10,), blk + "attn_q_b.weight": (24, 10),
            blk + "attn_kv_a_mqa.weight": (10, 16), blk + "attn_kv_a_norm.weight": (6,),
            blk + "attn_k_b.weight": (2, 6, 8), blk + "attn_v_b.weight": (2, 7, 6),
            blk + "attn_output.weight": (16, 14),
        }  # fmt: skip
    found |= {"blk.0.ffn_gate.weight": (24, 16), "blk.0.ffn_up.weight": (24, 16), "blk.0.ffn_down.weight": (16, 24)}
    found |= {"blk.1.ffn_gate_inp.weight": (3, 16), "blk.1.exp_probs_b.bias": (3,)}
    found |= {"blk.1.ffn_gate_exps.weight": (3, 5, 16), "blk.1.ffn_up_exps.weight": (3, 5, 16)}
    found |= {"blk.1.ffn_down_exps.weight": (3, 16, 5), "blk.1.ffn_gate_shexp.weight": (5, 16)}
    return found | {"blk.1.ffn_up_shexp.weight": (5, 16), "blk.1.ffn_down_shexp.weight": (16, 5)}


def test_gguf_header_of_a_mixture_with_latent_attention(tmp_path: Path) -> None:
    found = models.shape_of(gguf_file(tmp_path / "tiny.gguf", "deepseek2", DEEPSEEK_FIELDS, deepseek_tensors()))
    assert found.latent is not None
    assert found.experts is not None
    assert dataclasses.astuple(found.latent) == (10, 6, 8, 4, 7)
    assert dataclasses.astuple(found.experts) == (3, 2, 5, 5, False, 1, True)
    assert (found.heads, found.kv_heads, found.head_dim, found.max_context) == (2, 2, 12, 64)
    assert not found.tied_embeddings


def test_gguf_header_of_gpt2(tmp_path: Path) -> None:
    fields = {"block_count": 1, "embedding_length": 8, "feed_forward_length": 32, "attention.head_count": 2,
              "context_length": 20, "attention.layer_norm_epsilon": 1e-5}  # fmt: skip
    parts = {"attn_qkv": (24, 8), "attn_output": (8, 8), "ffn_up": (32, 8), "ffn_down": (8, 32)}
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (40, 8), "position_embd.weight": (20, 8)}
    for part, size in parts.items():
        tensors |= {f"blk.0.{part}.weight": size, f"blk.0.{part}.bias": size[:1]}
    for norm in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        tensors |= {f"{norm}.weight": (8,), f"{norm}.bias": (8,)}
    found = models.shape_of(gguf_file(tmp_path / "gpt2.gguf", "gpt2", fields, tensors))
    assert (found.norm, found.gated_ffn, found.positions, found.rope_base) == ("layer", False, 20, None)
    assert found.qkv_bias
    assert found.o_bias
    assert found.mlp_bias
    assert found.tied_embeddings


def test_gguf_that_is_not_understood(tmp_path: Path) -> None:
    tensors = deepseek_tensors() | {"blk.1.mystery.weight": (2, 3)}
    path = gguf_file(tmp_path / "odd.gguf", "deepseek2", DEEPSEEK_FIELDS, tensors)
    with pytest.raises(CheckpointError) as error:
        models.shape_of(path)
    good = sum(int(np.prod(shape)) for shape in deepseek_tensors().values())
    assert str(error.value) == (
        f"{path}: its tensors hold {good + 6} numbers and a deepseek2 model of its header {good}: this architecture "
        "is not understood"
    )
    path = gguf_file(tmp_path / "few.gguf", "mamba", {"block_count": 1}, {"output_norm.weight": (8,)})
    with pytest.raises(CheckpointError) as error:
        models.shape_of(path)
    wanted = "mamba.embedding_length = None: must be there, as a whole number of at least 1"
    assert str(error.value) == f"{path}: {wanted}"


def test_real_gguf_by_its_header_is_the_published_shape() -> None:
    found = models.shape_of(str(checkpoint.smollm2_path()))
    published = shapes.get("smollm2-135m")
    assert found.parameters == published.parameters
    same = ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab", "tied_embeddings", "max_context")
    assert [getattr(found, key) for key in same] == [getattr(published, key) for key in same]


POLICY = FormatPolicy(weights="int4", group=32)


def test_products_of_a_csv(tmp_path: Path) -> None:
    file = tmp_path / "layers.csv"
    file.write_text("name, M_note, n, k, m, count\nfirst,x,64,32,16,3\n,y,5,6,7,1\n")
    work = gemm_list.read(file, POLICY)
    assert [(g.name, g.m, g.k, g.n, g.count, g.weight_format, g.group) for g in work.gemms] == [
        ("first", 16, 32, 64, 3, "int4", 32),
        ("line 3", 7, 6, 5, 1, "int4", 32),
    ]
    assert work.macs == 3 * 16 * 32 * 64 + 5 * 6 * 7
    file.write_text("m,k,n\n1,2,3\n")
    assert gemm_list.read(file, POLICY).macs == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": column 'm' is missing; its first line must name m, k, n"),
        ("m,k,n\n", ": no rows below the header; must have at least one"),
        ("m,k,n\n1,2,3\n4,0,6\n", ", line 3: k = 0: must be in 1..2147483647"),
        ("m,k,n\n1,2,-3\n", ", line 2: n = -3: must be in 1..2147483647"),
        ("m,k,n\nnan,2,3\n", ", line 2: m = 'nan': must be a whole number"),
        ("m,k,n\n1,2\n", ", line 2: n = '': must be a whole number"),
        ("m,k,n,count\n1,2,3,0\n", ", line 2: count = 0: must be in 1..2147483647"),
    ],
)
def test_csv_files_that_are_no_lists(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "layers.csv"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        gemm_list.read(file, POLICY)
    assert str(error.value) == f"{file}{message}"


def test_onnx_without_the_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitwright.workloads import onnx_graph

    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(BitwrightError) as error:
        onnx_graph.read(tmp_path / "any.onnx", POLICY)
    assert str(error.value) == "reading ONNX needs the package onnx: pip install 'bitwright[onnx]'"
    assert error.value.exit_code == 3
