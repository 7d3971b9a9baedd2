"""Hugging Face folders: every refusal's whole message, tokenizers, and where a path is taken for a name.

74 wrong configs, 19 wrong indexes and shards, 8 wrong sets of tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bitwright.arch import json_text
from bitwright.arch.errors import CheckpointError, shown
from bitwright.workloads import checkpoint, hf_folder, models, tokenizer

KNOWN = "known: llama, mistral, qwen2, qwen3"


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path)
    return str(error.value)


def test_other_architectures_are_refused_by_name_with_the_known_ones(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("llama")
    config = folder.path / "config.json"
    for kind, hint in {"gemma3": KNOWN, "qwen4": f"did you mean 'qwen3'? ({KNOWN})", 5: KNOWN}.items():
        folder.config["model_type"] = kind
        folder.write()
        assert refused(folder.path) == f"{config}: model_type = {kind!r}: no such architecture here; {hint}"
    del folder.config["model_type"]
    folder.write()
    assert refused(folder.path) == f"{config}: model_type = None: no such architecture here; {KNOWN}"


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "qwen2",
            {"architectures": ["Qwen2ForSequenceClassification"]},
            "architectures = ['Qwen2ForSequenceClassification']: must be ['Qwen2ForCausalLM'], a model with a language "
            "head",
        ),
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu': must be 'silu'"),
        (
            "llama",
            {"num_hidden_layers": 5000},
            "num_hidden_layers = 5000: must be at most 4096",
        ),
        ("llama", {"hidden_size": 33}, "hidden_size = 33: must be a multiple of num_attention_heads = 4"),
        ("llama", {"head_dim": 7}, "head_dim = 7: must be an even whole number of at least 2"),
        ("llama", {"head_dim": "8"}, "head_dim = '8': must be an even whole number of at least 2"),
        ("llama", {"rms_norm_eps": 1.5}, "rms_norm_eps = 1.5: must be below 1"),
        ("llama", {"rms_norm_eps": "1"}, "rms_norm_eps = '1': must be there, as a number of at least 0"),
        ("llama", {"attention_bias": 1}, "attention_bias = 1: must be true or false"),
        ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes': must be true or false"),
        ("llama", {"num_key_value_heads": 3}, "llama.heads = 4: must be a multiple of kv_heads = 3"),
        ("llama", {"rope_theta": 0.5}, "rope_theta = 0.5: must be at least 1"),
        ("llama", {"rope_theta": 10**400}, f"rope_theta = 1{'0' * 76}...: must be there, as a number of at least 0"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5: must be 1: whole heads rotate"),
        (
            "llama",
            {"rope_parameters": {"partial_rotary_factor": 0.5}},
            "rope_parameters.partial_rotary_factor = 0.5: must be 1: whole heads rotate",
        ),
        ("llama", {"rope_parameters": [1]}, "rope_parameters = [1]: must be a map or null"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "rope_scaling.rope_type = 'yarn': not supported; known: default, linear, llama3",
        ),
        (
            "llama",
            {"rope_scaling": {"type": "dynamic", "factor": 4.0}},
            "rope_scaling.rope_type = 'dynamic': not supported; known: default, linear, llama3",
        ),
        (
            "llama",
            {"rope_parameters": {"full_attention": {}}},
            "rope_parameters.full_attention = {}: frequencies that differ from layer to layer are not supported",
        ),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear"}},
            "rope_parameters.factor = None: must be there, as a number of at least 0",
        ),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 0}},
            "rope_scaling.factor = 0.0: must be a positive number",
        ),
        (
            "llama",
            {"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}},
            "rope_scaling.low_freq_factor = 4.0: must be above 0 and below high_freq_factor = 4.0",
        ),
        (
            "mistral",
            {"sliding_window": 0},
            "sliding_window = 0: must be there, as a whole number of at least 1",
        ),
        (
            "mistral",
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types = ['full_attention', 'sliding_attention']: every layer of this architecture has the window, "
            "or none",
        ),
        ("qwen2", {"use_sliding_window": 1}, "use_sliding_window = 1: must be true or false"),
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": -1},
            "max_window_layers = -1: must be a whole number of at least 0",
        ),
        (
            "qwen2",
            {"layer_types": ["full_attention"]},
            "layer_types = ['full_attention']: must be a list of 2 types, one a layer",
        ),
        (
            "qwen2",
            {"layer_types": ["full_attention", "linear_attention"]},
            "layer_types = 'linear_attention': must be 'full_attention' or 'sliding_attention'",
        ),
        (
            "qwen3",
            {"layer_types": ["full_attention", "sliding_attention"]},
            "sliding_window = None: layer_types has 'sliding_attention', which needs a window",
        ),
    ],
)
def test_configs_that_are_refused(
    kind: str, changes: dict[str, Any], message: str, make_folder: Callable[..., Any]
) -> None:
    folder = make_folder(kind)
    folder.config |= changes
    folder.write()
    assert refused(folder.path) == f"{folder.path / 'config.json'}: {message}"


@pytest.mark.parametrize(
    "key", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
)
def test_sizes_are_never_guessed(key: str, make_folder: Callable[..., Any]) -> None:
    folder = make_folder("llama")
    for value in (None, 0, -1, 2.0, "2", True, 1 << 31):
        folder.config[key] = value
        folder.write()
        rule = "must be there, as a whole number of at least 1"
        assert refused(folder.path) == f"{folder.path / 'config.json'}: {key} = {value!r}: {rule}"


def test_kv_heads_default_to_all_heads_in_llama_only(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("llama", num_key_value_heads=4)
    del folder.config["num_key_value_heads"]
    folder.write()
    assert checkpoint.load(folder.path).shape.kv_heads == 4
    folder = make_folder("mistral")
    del folder.config["num_key_value_heads"]
    folder.write()
    assert refused(folder.path) == (
        f"{folder.path / 'config.json'}: num_key_value_heads = None: must be there, as a whole number of at least 1"
    )


def test_configs_that_are_no_json_object(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("llama").path
    config, tail = folder / "config.json", ": not readable (get the file again)"
    config.write_text("[1]")
    assert refused(folder) == f"{config}: is a JSON list, not an object{tail}"
    config.write_text('{"model_type": "llama", "model_type": "qwen2"}')
    assert refused(folder) == f"{config}: has 'model_type' twice{tail}"
    config.write_text("[" * 50_000)
    assert refused(folder) == (
        f"{config}: is not JSON that a model needs (a number too long or brackets too deep){tail}"
    )
    config.write_bytes(b"{}" + b" " * json_text.MOST_BYTES)
    most = json_text.MOST_BYTES
    assert refused(folder) == f"{config}: has {most + 2} bytes, more than the {most} that bitwright reads{tail}"
    config.unlink()
    assert refused(folder) == f"{folder}: no config.json in it: not a Hugging Face folder"


def test_missing_misshapen_and_foreign_tensors(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("llama")
    whole, weights = dict(folder.tensors), folder.path / "model.safetensors"
    up = "model.layers.1.mlp.up_proj.weight"

    def message(**changes: Any) -> str:
        changed = {name.replace("__", "."): value for name, value in changes.items()}
        folder.tensors = {name: value for name, value in (whole | changed).items() if value is not None}
        folder.write()
        return refused(folder.path)

    key = up.replace(".", "__")
    assert message(**{key: None}) == f"{folder.path}: tensor {up!r} is missing"
    assert message(**{key: whole[up][:9]}) == f"{weights}: tensor {up!r} has shape (9, 32): must be (48, 32)"
    assert message(**{key: whole[up].astype(np.int32)}) == (
        f"{weights}: tensor {up!r} has type I32: must be one of F32, F16, BF16"
    )
    assert message(surplus=whole[up]) == f"{folder.path}: tensor 'surplus' is not part of such a model"
    bias = {"model__layers__0__self_attn__q_proj__bias": np.zeros(32, np.float32)}
    assert message(**bias) == (
        f"{folder.path}: tensor 'model.layers.0.self_attn.q_proj.bias' is not part of such a model"
    )
    assert message(lm_head__weight=None) == f"{folder.path}: tensor 'lm_head.weight' is missing"
    folder.config["num_hidden_layers"] = 4096
    assert message() == f"{folder.path}: num_hidden_layers = 4096: needs at least 28672 tensors, the folder has 21"


def test_old_rotary_frequencies_are_passed_over(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("llama")
    folder.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    assert checkpoint.load(folder.write()).shape.layers == 2


def test_head_beside_a_tied_embedding_must_be_its_copy(
    make_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_folder, "_CHUNK", 1000)  # some rows at a time
    folder = make_folder("llama", tie_word_embeddings=True)
    folder.tensors["lm_head.weight"] = folder.tensors["model.embed_tokens.weight"].copy()
    assert checkpoint.load(folder.write(2)).matrices[-1] == "layers.1.down"
    folder.tensors["lm_head.weight"][2, 31] += 1
    assert refused(folder.write()) == (
        f"{folder.path / 'model.safetensors'}: tensor 'lm_head.weight' differs from 'model.embed_tokens.weight': "
        "must be its copy, since config.json says tie_word_embeddings"
    )


def test_folder_without_safetensors(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("llama").path
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refused(folder) == (
        f"{folder}: neither model.safetensors nor model.safetensors.index.json: bitwright reads safetensors only "
        "(save the model with safe_serialization)"
    )


@pytest.mark.parametrize(
    "shard",
    [
        "../model-0.safetensors",
        "/etc/model.safetensors",
        "a\\model.safetensors",
        "model-0.bin",
        "..",
        "",
        7,
        "\ud800.safetensors",
        "x" * 300 + ".safetensors",
        "a\0.safetensors",
    ],
)
def test_shard_names_are_names_of_files_here(shard: Any, make_folder: Callable[..., Any]) -> None:
    folder = make_folder("llama", shards=2).path
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": places | {"lm_head.weight": shard}}))
    assert refused(folder) == (
        f"{index}: 'lm_head.weight' is in {shown(shard)}: must be the name of a .safetensors file here "
        "(get the folder again)"
    )


def test_indexes_and_shards_that_contradict_each_other(make_folder: Callable[..., Any]) -> None:
    made = make_folder("llama", shards=2)
    folder, tail = made.path, " (get the folder again)"
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]

    def message(weight_map: Any) -> str:
        index.write_text(json.dumps({"weight_map": weight_map}))
        return refused(folder)

    for bad in (None, [], {}):
        assert message(bad) == f"{index}: weight_map must be a map from tensor to file{tail}"
    first = "model.embed_tokens.weight"
    assert places[first] == "model-0.safetensors"
    assert message(places | {"more": "model-1.safetensors"}) == (
        f"{index}: places tensor 'more' in model-1.safetensors, which does not have it{tail}"
    )
    assert message({name: shard for name, shard in places.items() if name != first}) == (
        f"{folder / 'model-0.safetensors'}: has tensor {first!r}, which {index.name} does not place there{tail}"
    )
    assert message(places | {first: "model-1.safetensors"}) == (
        f"{folder / 'model-0.safetensors'}: has tensor {first!r}, which {index.name} does not place there{tail}"
    )
    assert message(places | {first: "model-9.safetensors"}) == (
        f"{folder / 'model-0.safetensors'}: has tensor {first!r}, which {index.name} does not place there{tail}"
    )
    index.write_text(json.dumps({"weight_map": places}))
    (folder / "model-1.safetensors").unlink()
    assert refused(folder) == f"{folder / 'model-1.safetensors'}: no such file"


def test_links_to_shards_are_followed(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    """The hub's cache keeps files elsewhere and links to them."""
    folder = make_folder("llama").path
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    assert checkpoint.load(folder).shape.layers == 2


def test_a_weights_file_instead_of_its_folder(make_folder: Callable[..., Any]) -> None:
    path = make_folder("llama").path / "model.safetensors"
    assert refused(path) == f"model = '{path}': give the folder that holds it and its config.json"


def test_known_names_are_never_taken_for_folders(
    make_folder: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder("llama").path.rename(tmp_path / "llama-2-7b")
    monkeypatch.chdir(tmp_path)
    assert models.shape_of("llama-2-7b").hidden == 4096
    assert models.shape_of("./llama-2-7b").hidden == 32
    assert models.weights_sha256("llama-2-7b") is None
    assert models.weights_sha256("./llama-2-7b") == checkpoint.load("./llama-2-7b").sha256
    assert checkpoint.load(Path("llama-2-7b")).name == "llama-2-7b"
    monkeypatch.chdir("llama-2-7b")
    assert checkpoint.load(".").name == "llama-2-7b"


def test_shape_needs_the_config_only(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("qwen3").path
    (folder / "model.safetensors").unlink()
    assert models.shape_of(str(folder)).head_dim == 16


def test_unknown_weight_name(make_folder: Callable[..., Any]) -> None:
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(make_folder("qwen2").path).weight("layers.0.o_bias")
    assert str(error.value) == "weight = 'layers.0.o_bias': qwen2 has none of this name; did you mean 'layers.0.o'?"


def byte_level(path: Path) -> None:
    """A byte-level tokenizer with padding and truncation, which must not take effect."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = {word: i for i, word in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "ll", "Ġhe"])}
    made = Tokenizer(models.BPE(vocab=words, merges=[("h", "e"), ("l", "l"), ("Ġ", "he")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.enable_truncation(4)
    made.enable_padding(length=4)
    made.save(str(path))


def sentencepiece_like(path: Path) -> None:
    """Spaces as U+2581, unknown characters as bytes: how Llama 2 and Mistral cut text."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "e", "é", "he", "▁he"]
    merges = [("h", "e"), ("▁", "he")]
    vocabulary = {name: i for i, name in enumerate(names)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.save(str(path))


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like])
def test_tokens_bytes_add_up_to_the_texts(make: Callable[[Path], None], make_folder: Callable[..., Any]) -> None:
    folder = make_folder("llama").path
    make(folder / "tokenizer.json")
    found = checkpoint.load(folder).tokenizer
    text = "he hé ☃ hehe\nhe"
    ids = found.encode(text, add_special_tokens=False).ids
    assert len(ids) > 4
    assert found.decode(ids) == text
    assert tokenizer.byte_count(found, ids) == len(text.encode())


def test_tokenizers_that_are_missing_or_unreadable(make_folder: Callable[..., Any]) -> None:
    folder = make_folder("llama").path
    path = folder / "tokenizer.json"
    with pytest.raises(CheckpointError) as error:
        _ = checkpoint.load(folder).tokenizer
    assert str(error.value) == (f"{path}: no such file (a model's text is cut into tokens by its own tokenizer.json)")
    path.write_text("{}")
    with pytest.raises(CheckpointError) as error:
        _ = checkpoint.load(folder).tokenizer
    assert str(error.value).startswith(f"{path}: not a tokenizer that the tokenizers package reads: ")


def test_perplexity_of_a_folder(make_folder: Callable[..., Any]) -> None:
    """From the path to the number: a model of random weights is about as wrong as one that knows nothing."""
    from bitwright.workloads.perplexity import perplexity
    from bitwright.workloads.policy import FLOAT_MODEL, FormatPolicy

    folder = make_folder("qwen3", vocab_size=259, tie_word_embeddings=None)
    folder.tensors["lm_head.weight"] *= np.float32(0.1)
    byte_level(folder.write() / "tokenizer.json")
    exact = perplexity(folder.path, FLOAT_MODEL, tokens=64, window=32)
    assert 150 < exact.perplexity < 400
    assert exact.model == "qwen3"
    assert exact.weights_sha256 == models.weights_sha256(str(folder.path))
    coarse = perplexity(folder.path, FormatPolicy(weights="int4", group=16), tokens=64, window=32)
    assert coarse.perplexity == pytest.approx(exact.perplexity, rel=0.1)
    assert coarse.perplexity != exact.perplexity
