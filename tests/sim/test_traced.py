"""Cycles of a traced model: against loops over the checkpoint's own weights; stand-ins; what is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bitwright.arch import costs, trace
from bitwright.arch.errors import CheckpointError, ConfigError
from bitwright.arch.pe.digits import serial_cycles
from bitwright.arch.trace import Trace
from bitwright.cli.main import app
from bitwright.sim import traced
from bitwright.workloads import tracing
from bitwright.workloads.policy import FormatPolicy
from typer.testing import CliRunner

LAYER = ("q", "k", "v", "o", "gate", "up", "down")


def tiny_models() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parents[1] / "workloads" / "conftest.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trace, dict[str, Any]]:
    """The model's file, its trace in int8, its weights."""
    folder, module = tmp_path_factory.mktemp("traced"), tiny_models()
    weights = module.tiny_weights()
    module.write_tiny(folder / "tiny.gguf", weights)
    policy = FormatPolicy(pe="float32", weights="int8", acts="int8")
    found = tracing.record(folder / "tiny.gguf", folder / "t", policy, tokens=8, samples=2)
    return folder / "tiny.gguf", found, weights


def expected_tiles(weight: Any, cols: int) -> int:
    """By loops: each row to int8 by its largest magnitude, each tile as long as its longest column."""
    total = 0
    for first in range(0, len(weight), cols):
        columns = []
        for row in weight[first : first + cols]:
            scale = np.float32(np.float16(np.abs(row).max() / np.float32(127)))
            codes = np.clip(np.rint(row / scale), -127, 127)
            columns.append(int(serial_cycles("en-t", codes).sum()))
        total += max(columns)
    return total


def test_every_layer_takes_the_cycles_of_its_own_codes(made: tuple[Path, Trace, dict[str, Any]]) -> None:
    path, found, weights = made
    row = traced.simulate_trace(
        traced.array("opt3-4x6"), str(path), found, prompt_tokens=10, output_tokens=3, batch=2
    )  # fmt: skip
    assert row["source"] == "trace"
    by_name = {layer["name"]: layer for layer in row["layers"]}
    assert set(by_name) == set(found.operators)
    for name, layer in by_name.items():
        tiles = expected_tiles(weights["embed" if name == "head" else name], 6)
        assert layer["prefill_cycles"] == tiles * (1 if name == "head" else 5), name  # 2 or 20 tokens in rows of 4
        assert layer["decode_cycles"] == tiles * 3
    assert (
        row["array_cycles"]
        == row["prefill_cycles"] + row["decode_cycles"]
        == sum(layer["array_cycles"] for layer in row["layers"])
    )
    assert row["gaussian_error"] == row["gaussian_array_cycles"] / row["array_cycles"] - 1
    # The tiny model's weights are Gaussian: the guess is near, and not the same.
    assert 0 < abs(row["gaussian_error"]) < 0.02


@pytest.mark.parametrize(("name", "rows_of_pes"), [("opt3-4x6", 4), ("opt4c-6x6", 2)])
def test_energy_is_the_tables_for_cycles_of_work_and_of_waiting(
    made: tuple[Path, Trace, dict[str, Any]], name: str, rows_of_pes: int
) -> None:
    path, found, weights = made
    row = traced.simulate_trace(traced.array(name), str(path), found, prompt_tokens=4, output_tokens=0)
    text = (Path(costs.__file__).parent / "streams_nangate45.json").read_text()
    stored = json.loads(text)["rows"][name.partition("-")[0]]
    leakage_uw = stored["leakage_uw"] + stored["clock_tree_leakage_uw"]
    leakage_pj = leakage_uw / stored["clock_mhz"]
    busy = tiles = weights_used = 0  # busy: cycles of PEs
    lanes = 4 if name.startswith("opt4c") else 1
    for operator in found.operators:
        weight = weights["embed" if operator == "head" else operator]
        for channels in weight:
            scale = np.float32(np.float16(np.abs(channels).max() / np.float32(127)))
            tokens = 1 if operator == "head" else 4
            busy += -(-tokens // lanes) * int(
                serial_cycles("en-t", np.clip(np.rint(channels / scale), -127, 127)).sum()
            )
        tiles += expected_tiles(weight, 6)
        weights_used += weight.size * (1 if operator == "head" else 4)
    active, idle = (stored[f"{kind}_energy_pj"] - leakage_pj for kind in ("active", "idle"))
    everything = 6 * rows_of_pes * tiles
    expected_pj = busy * active + (everything - busy) * idle + everything * leakage_pj
    assert row["array_cycles"] == tiles  # 4 tokens are one pass of either
    assert row["array_pes"] == 6 * rows_of_pes
    assert row["array_energy_uj"] == pytest.approx(expected_pj / 1e6, rel=1e-9)
    assert row["array_energy_pj_per_mac"] == pytest.approx(expected_pj / weights_used, rel=1e-9)
    assert row["array_area_mm2"] == pytest.approx(6 * rows_of_pes * stored["area_um2"] / 1e6, rel=1e-9)
    assert row["pe_rtl_sha256"] == stored["rtl_sha256"]
    assert 0 < row["array_leakage_uj"] < 0.2 * row["array_energy_uj"]
    assert 0 < row["array_energy_error_uj"] < 0.02 * row["array_energy_uj"]


def test_another_timing_of_a_tile_takes_the_place_of_ours(made: tuple[Path, Trace, dict[str, Any]]) -> None:
    path, found, _ = made
    own = traced.array("opt4c-4x6")
    sums = traced.ColumnArray(own.name, own.spec, 1, 1)
    other = traced.ColumnArray(own.name, own.spec, 1, 6, lambda tiles: tiles.sum(axis=1))
    size = {"prompt_tokens": 1, "output_tokens": 0}
    one, two = (traced.simulate_trace(array, str(path), found, **size) for array in (sums, other))
    assert one["array_cycles"] == two["array_cycles"] > 0


def test_a_model_without_weights_takes_the_traces_statistics_and_says_so(
    made: tuple[Path, Trace, dict[str, Any]], tmp_path: Path
) -> None:
    path, found, _ = made
    config = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 262, "tie_word_embeddings": True,
        "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "max_position_embeddings": 2048,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = {"prompt_tokens": 8, "output_tokens": 2}
    array = traced.array("opt3-4x6")
    row = traced.simulate_trace(array, str(tmp_path / "config.json"), found, **size)
    exact = traced.simulate_trace(array, str(path), found, **size)
    assert row["source"] == "stand-in"
    assert row["notes"][0] == (
        f"stand-in: {tmp_path / 'config.json'} has no weights here; each operator's cycles are drawn, independently, "
        "from those of the same operator of tiny, all layers together: an estimate, no bound"
    )
    assert row["mean_cycles_per_weight"] == pytest.approx(exact["mean_cycles_per_weight"], rel=1e-12)
    assert row["array_cycles"] == pytest.approx(exact["array_cycles"], rel=0.02)
    assert row["array_energy_uj"] == pytest.approx(exact["array_energy_uj"], rel=0.02)
    assert row == traced.simulate_trace(array, str(tmp_path / "config.json"), found, **size)


def test_what_does_not_fit_is_refused(made: tuple[Path, Trace, dict[str, Any]], tmp_path: Path) -> None:
    path, found, _ = made
    with pytest.raises(ConfigError) as error:
        traced.simulate_trace(traced.array("opt3-4x4"), "smollm2-135m", found)
    ours = found.header.weights_sha256[:12]
    assert str(error.value) == (
        f"{found.folder}: is a trace of tiny (weights sha256 {ours}), and smollm2-135m has sha256 b179c9523d0e "
        "(bitwright trace smollm2-135m -o DIR)"
    )
    with pytest.raises(ConfigError) as error:
        traced.simulate_trace(traced.array("opt3-4x4"), "mixtral-8x7b", found)
    assert str(error.value) == (
        f"{found.folder}: a trace of tiny has no operator 'router' to stand in for that of mixtral-8x7b"
    )
    fewer = trace.load(found.folder)
    del fewer.operators["layers.1.up"]
    with pytest.raises(CheckpointError) as missing:
        traced.simulate_trace(traced.array("opt3-4x4"), str(path), fewer)
    assert str(missing.value) == (
        f"{found.folder}: has no operator 'layers.1.up': it is a trace of tiny, 14 operators (trace the model that is "
        "simulated)"
    )
    with pytest.raises(ConfigError) as error:
        traced.array("int8-4x4")
    assert str(error.value) == (
        "pe = int8-mac: takes the same cycles for all codes of a format (those that do not: opt3, opt4c, with their "
        "encoder); leave the trace out"
    )


def test_a_stand_in_of_other_sizes_pays_for_its_own_weights(
    made: tuple[Path, Trace, dict[str, Any]], tmp_path: Path
) -> None:
    """Half the layers, or twice the width: the same energy for a product, give or take what tiles leave."""
    _, found, _ = made
    rows = []
    for layers, ffn in ((1, 64), (2, 64), (4, 256)):
        config = {
            "model_type": "llama", "hidden_size": 32, "intermediate_size": ffn, "num_attention_heads": 4,
            "num_key_value_heads": 2, "num_hidden_layers": layers, "vocab_size": 262, "tie_word_embeddings": True,
            "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
            "max_position_embeddings": 2048,
        }  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config))
        size = {"prompt_tokens": 8, "output_tokens": 0}
        rows.append(traced.simulate_trace(traced.array("opt3-4x6"), str(tmp_path / "config.json"), found, **size))
    per_mac = [row["array_energy_pj_per_mac"] for row in rows]
    assert per_mac == pytest.approx([per_mac[1]] * 3, rel=0.12)


def test_the_command_prints_the_row_and_refuses_options_of_other_ways(
    made: tuple[Path, Trace, dict[str, Any]],
) -> None:
    path, found, _ = made
    arguments = ["simulate", "opt3-4x4", str(path), "--trace", str(found.folder)]
    ran = CliRunner().invoke(app, [*arguments, "--json"])
    assert ran.exit_code == 0, ran.output
    row = json.loads(ran.stdout)
    assert row["array_cycles"] == traced.simulate_trace(traced.array("opt3-4x4"), str(path), found)["array_cycles"]
    assert "array_cycles" in CliRunner().invoke(app, arguments).stdout
    refused = CliRunner().invoke(app, [*arguments, "--weights", "int4"])
    assert str(refused.exception) == "--weights = int4: not an option of --trace; leave it out; the command line"
    again = CliRunner().invoke(app, ["trace", str(path), "-o", str(found.folder)])
    assert isinstance(again.exception, ConfigError)
    assert "holds a trace of other inputs" in str(again.exception)
