"""Workload files on a machine: the static one is `simulate`, others keep their sums, clocks and bounds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from bitwright.arch import config
from bitwright.arch.errors import ConfigError
from bitwright.sim.inference import policy_for, simulate
from bitwright.sim.row import result_row
from bitwright.sim.workload import WorkloadResult, products_row, simulate_workload
from bitwright.workloads import shapes
from bitwright.workloads.description import Workload
from bitwright.workloads.gemm_list import product
from bitwright.workloads.operators import Work
from bitwright.workloads.shapes import ModelShape
from hypothesis import given, settings
from hypothesis import strategies as st

MACHINE = "int8-16x16"
POLICY = policy_for("int8-mac", weights="int4", group=64)


def small(name: str = "smollm2-135m", layers: int = 2, **changes: Any) -> ModelShape:
    return dataclasses.replace(shapes.get(name), layers=layers, vocab=512, **changes)


def run(data: dict[str, Any], shape: ModelShape | None = None, folder: Path = Path()) -> WorkloadResult:
    workload = config.validate(Workload, data, "the test")
    return simulate_workload(MACHINE, shape or small(), workload, folder=folder, policy=POLICY)


@pytest.mark.parametrize("name", ["smollm2-135m", "mistral-7b"])
def test_a_static_workload_is_what_simulate_answers(name: str) -> None:
    sizes = {"prompt_tokens": 24, "output_tokens": 3, "batch": 2}
    ours = run({"static": sizes}, small(name)).row()
    other = result_row(simulate(MACHINE, small(name), policy=POLICY, **sizes))
    shared = sorted(set(ours) & set(other) - {"notes", "command", "hashes", "energy_uj", "energy_uj_per_token"})
    # Theirs adds the widest activations, twice.
    shared.remove("peak_memory_bytes")
    for key in shared:  # sums of floats may come in another order
        value = other[key]
        assert ours[key] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), key
    assert ours["energy_uj"] == pytest.approx(other["energy_uj"], rel=1e-12)
    assert (ours["prefill_cycles"], ours["decode_cycles"]) == (other["prefill_cycles"], other["decode_cycles"])
    assert 0 < ours["peak_memory_bytes"] <= other["peak_memory_bytes"]
    assert ours["generated_tokens"] == 6
    assert len(shared) > 50


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 40), st.integers(0, 4)), min_size=1, max_size=6),
    st.integers(1, 3),
    st.none() | st.integers(3, 24),
)
def test_requests_are_served_and_the_sums_hold(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], sequences: int, step_tokens: int | None
) -> None:
    folder = tmp_path_factory.mktemp("requests")
    lines = [f"{arrival},{prompt},{output}" for arrival, prompt, output in rows]
    (folder / "r.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *lines]))
    chosen = {"file": "r.csv", "sequences": sequences, "step_tokens": step_tokens}
    result = run({"requests": chosen}, folder=folder)
    row = result.row()
    assert sum(item.step.tokens for item in result.steps) == sum(p + o for _, p, o in rows)
    ends = [item.start_s + item.phase.cycles / (row["clock_mhz"] * 1e6) for item in result.steps]
    for end, later in zip(ends, result.steps[1:], strict=False):
        assert later.start_s >= end * (1 - 1e-12)
    assert len(result.served) == len(rows)
    for item in result.served:
        assert item.request.arrival_s < item.first_s <= item.done_s
        assert any(item.first_s == pytest.approx(end, rel=1e-12) for end in ends)
        assert (item.first_s == item.done_s) == (item.request.output_tokens == 0)
    assert row["cycles"] == row["prefill_cycles"] + row["decode_cycles"] + row["mixed_cycles"]
    assert row["cycles"] == sum(value for key, value in row.items() if key.startswith("cycles_op_"))
    assert row["bound_cycles"] <= row["cycles"]
    # Attention reads a key/value head once for every block of queries, so DRAM never moves less than each operand once
    # but for rounding up to bytes.
    assert row["least_bytes"] - row["dram_bytes"] <= 16 * row["model_tokens"] * result.shape.hidden // 8 + 1000


def test_chunks_compute_what_whole_prompts_do_and_read_the_weights_again() -> None:
    sizes = {"prompt_tokens": 64, "output_tokens": 0}
    whole, chunks = run({"static": sizes}).row(), run({"chunked": {**sizes, "chunk_tokens": 16}}).row()
    assert (whole["steps"], chunks["steps"]) == (1, 4)
    assert whole["macs"] - whole["masked_macs"] == chunks["macs"] - chunks["masked_macs"]
    assert chunks["least_bytes"] > whole["least_bytes"]


def test_a_verification_that_accepts_all_needs_the_fewest_steps() -> None:
    sizes = {"prompt_tokens": 8, "output_tokens": 12}
    never, always = (run({"speculative": {**sizes, "drafts": 3, "acceptance": a}}).row() for a in (0.0, 1.0))
    assert (never["decode_steps"], always["decode_steps"]) == (12, 3)
    assert always["decode_cycles"] < never["decode_cycles"]


def test_sparsity_halves_weights_and_charges_their_places() -> None:
    sizes = {"static": {"prompt_tokens": 4, "output_tokens": 1}}
    dense, sparse = run(sizes).row(), run({**sizes, "sparsity": "2:4"}).row()
    shape = small()
    matrices = shape.linear_parameters - shape.vocab * shape.hidden
    assert sparse["index_bytes"] == 2 * matrices * 2 // 2 // 8  # two steps, 2 bits for each of half the weights
    assert sparse["skipped_macs"] == (4 + 1) * matrices // 2
    assert sparse["macs"] == dense["macs"]
    # Half of the int4 codes go, and each of the others has 2 bits of place; a group of 64 keeps its scale.
    saved = matrices * 4 / 2 - matrices * 2 / 2
    assert dense["peak_memory_bytes"] - sparse["peak_memory_bytes"] == pytest.approx(saved / 8, abs=1)


def test_a_routing_trace_reads_only_its_experts(tmp_path: Path) -> None:
    shape = small("mixtral-8x7b", hidden=256, heads=4, kv_heads=2, head_dim=64)
    assert shape.experts is not None
    shape = dataclasses.replace(shape, experts=dataclasses.replace(shape.experts, width=128))
    (tmp_path / "t.json").write_text(json.dumps({"picks": [[[0, 1]] * 8] * 2}))
    sizes = {"static": {"prompt_tokens": 8, "output_tokens": 0}}
    spread = run(sizes, shape).row()
    traced = run({**sizes, "experts": {"trace": "t.json"}}, shape, tmp_path).row()
    one = run({**sizes, "experts": {"shares": [1, 1, 0, 0, 0, 0, 0, 0]}}, shape).row()
    assert traced["least_bytes"] == one["least_bytes"] < spread["least_bytes"]


def test_a_key_that_would_change_nothing_is_refused() -> None:
    sizes = {"static": {"prompt_tokens": 1, "output_tokens": 0}}
    for key, value, what in (
        ("latent_attention", {}, "latent attention"),
        ("experts", {"shares": [1.0]}, "experts"),
    ):
        with pytest.raises(ConfigError) as caught:
            run({**sizes, key: value})
        assert str(caught.value) == f"{key}: smollm2-135m has no {what}; leave this key out; the workload"


def test_latent_attention_takes_the_form_that_is_asked_for() -> None:
    shape = small("deepseek-v3", layers=1, hidden=256, heads=4, kv_heads=4, ffn=256, experts=None)
    sizes = {"static": {"prompt_tokens": 2, "output_tokens": 1}}
    absorbed = run(sizes, shape).row()
    expanded = run({**sizes, "latent_attention": {"decode": "expanded"}}, shape).row()
    assert absorbed["prefill_cycles"] == expanded["prefill_cycles"]
    assert absorbed["decode_cycles"] != expanded["decode_cycles"]


def test_products_sum_to_the_total() -> None:
    work = Work((product("a", POLICY, m=5, k=64, n=48, count=3), product("b", POLICY, m=1, k=128, n=16)), ())
    from bitwright.arch import machine

    row = products_row(machine.load(MACHINE), "list", work, policy=POLICY)
    assert row["macs"] == 5 * 64 * 48 * 3 + 128 * 16
    assert row["cycles"] == sum(layer["count"] * layer["cycles"] for layer in row["layers"])
    assert [layer["count"] for layer in row["layers"]] == [3, 1]
