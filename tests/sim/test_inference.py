"""Prefill and decode of a model: sums, bounds, refusals, and what a user would try first."""

from __future__ import annotations

import dataclasses
from dataclasses import fields

import hypothesis.strategies as st
import pytest
from bitwright.arch import machine as machines
from bitwright.arch.errors import ConfigError
from bitwright.sim.costs import machine_costs
from bitwright.sim.energy import Energy
from bitwright.sim.inference import Phase, default_policy, simulate
from bitwright.workloads.operators import work_of
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shape_parts import Experts, LatentAttention
from bitwright.workloads.shapes import ModelShape
from bitwright.workloads.steps import static
from hypothesis import given, settings

SMALL = ModelShape(
    name="small", layers=2, hidden=96, ffn=160, heads=4, kv_heads=2, head_dim=24, vocab=300, tied_embeddings=True,
    gated_ffn=True, rope_base=1e4, eps=1e-5, source="made up for this test",
)  # fmt: skip

POLICIES = {
    "fp16-mac": [{}, {"weights": "int4_asym", "group": 32}, {"weights": "bitmod_fp3", "group": 64}],
    "int8-mac": [
        {"weights": "int8", "acts": "int8", "kv": "int8"},
        {"weights": "bitmod_fp4", "group": 32, "acts": "int8", "kv": "int8"},
        {"weights": "int4", "group": 64, "acts": "int8", "kv": "int4", "head": "int8"},
    ],
    "shift-add": [
        {"weights": "int4", "group": 64, "acts": "int8", "kv": "int4"},
        {"weights": "int3_asym", "group": 16, "acts": "int8", "kv": "int4"},
    ],
}


@st.composite
def runs(draw: st.DrawFn) -> tuple[machines.Machine, FormatPolicy, dict[str, int]]:
    pe = draw(st.sampled_from(sorted(POLICIES)))
    side = draw(st.sampled_from(["4x4", "8x16", "16x16", "5x3"]))
    machine = machines.with_changes(
        machines.load(f"{pe}-{side}-{draw(st.sampled_from(['ws', 'os']))}"),
        buffers_kib=draw(st.sampled_from(["8,8,8", "16,8,32", "64,64,64"])),
        dram=draw(st.sampled_from(["ddr4-3200-x16", "ddr4-3200-x64", "hbm2"])),
    )
    policy = FormatPolicy(pe=pe, **draw(st.sampled_from(POLICIES[pe])))
    size = {"prompt_tokens": draw(st.integers(1, 24)), "output_tokens": draw(st.integers(0, 2))}
    return machine, policy, size | {"batch": draw(st.integers(1, 3))}


def check(phase: Phase) -> None:
    causes = [getattr(phase, item.name) for item in fields(Phase) if item.name.startswith("cycles_")]
    assert min(causes) >= 0
    assert sum(causes) == phase.cycles == sum(phase.by_kind.values())
    assert phase.bound_cycles <= phase.cycles, "no design beats its roofline"
    assert all(getattr(phase.energy, item.name) >= 0 for item in fields(Energy))


@settings(max_examples=60, deadline=None)
@given(runs())
def test_parts_sum_and_no_bound_is_broken(run: tuple[machines.Machine, FormatPolicy, dict[str, int]]) -> None:
    machine, policy, sizes = run
    result = simulate(machine, SMALL, policy=policy, **sizes)
    check(result.prefill)
    check(result.decode)
    assert result.cycles > 0
    assert all(area > 0 for area in result.area_um2.values())


def test_every_multiply_add_of_the_model_is_counted() -> None:
    result = simulate("int8-8x8", SMALL, prompt_tokens=5, output_tokens=1)
    linear = 2 * (96 * 96 * 2 + 2 * 96 * 48 + 3 * 96 * 160)
    head = 96 * 300
    assert result.prefill.macs == 5 * linear + head + 2 * (2 * 5 * 5 * 96)
    assert result.decode.macs == linear + head + 2 * (2 * 1 * 6 * 96)


WINDOWED = dataclasses.replace(SMALL, sliding_window=4, sliding_layers=(1,), sink_tokens=1)
MIXTURE = dataclasses.replace(SMALL, layers=3, experts=Experts(8, 2, 40, shared_width=48, dense_layers=1))
LATENT = dataclasses.replace(SMALL, kv_heads=4, latent=LatentAttention(30, 32, nope=16, rope=8, value=10))


@pytest.mark.parametrize("shape", [WINDOWED, MIXTURE, LATENT])
@pytest.mark.parametrize("machine", ["int8-8x8", "shift-add-4x4-os"])
def test_every_kind_of_decoder_runs(shape: ModelShape, machine: str) -> None:
    result = simulate(machine, shape, prompt_tokens=9, output_tokens=2, batch=2)
    check(result.prefill)
    check(result.decode)
    first, *later = [work_of(shape, result.policy, step) for step in static(9, 2, 2)]
    assert result.prefill.macs == first.macs
    assert result.decode.macs == sum(work.macs for work in later)


def test_memory_of_a_window_and_of_latents() -> None:
    def cache_bytes(shape: ModelShape) -> int:
        longer = simulate("fp16-8x8", shape, prompt_tokens=9, output_tokens=3).peak_memory_bytes
        return longer - simulate("fp16-8x8", shape, prompt_tokens=9, output_tokens=0).peak_memory_bytes

    assert cache_bytes(SMALL) == 3 * 2 * 2 * 2 * 48
    assert cache_bytes(WINDOWED) == 3 * 2 * 2 * 48  # layer 1 keeps 3 + 1 tokens whatever comes
    assert cache_bytes(LATENT) == 3 * 2 * 2 * (32 + 8)


def test_a_run_longer_than_the_model_was_made_for_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        simulate("int8", "gpt2", prompt_tokens=1000, output_tokens=25)
    assert str(caught.value) == (
        "context = 1025 tokens: gpt2 was made for at most max_context = 1024; shorten the prompt or the output; "
        "the workload"
    )


def test_first_decode_step_stands_at_the_prompt_length() -> None:
    longer = simulate("int8-8x8", SMALL, prompt_tokens=8, output_tokens=2).decode.macs
    shorter = simulate("int8-8x8", SMALL, prompt_tokens=8, output_tokens=1).decode.macs
    next_prompt = simulate("int8-8x8", SMALL, prompt_tokens=9, output_tokens=1).decode.macs
    assert longer - shorter == next_prompt


def test_memory_counts_weights_cache_and_embedding() -> None:
    result = simulate("int8-8x8", SMALL, prompt_tokens=8, output_tokens=4)
    weights = 8 * (2 * (96 * 96 * 2 + 2 * 96 * 48 + 3 * 96 * 160) + 96 * 300)
    rows = 2 * (2 * 96 + 2 * 48 + 2 * 160 + 96) + 300
    cache = 2 * 2 * 12 * 2 * (24 * 8 + 16)
    widest = 8 * 160
    assert result.peak_memory_bytes == -(-(weights + 16 * rows + cache + 16 * 96 * 300 + 2 * 8 * widest) // 8)


def test_column_edge_charges_every_sum_that_leaves_the_array() -> None:
    """fp16-mac adds unfinished sums in the unit that takes finished ones; the integer PEs have two units."""
    float_edge = machine_costs(machines.load("fp16-8x8"), ("fp16",), "fp16")
    assert float_edge.edge_pj(2, 3, 0, 5) == pytest.approx(5 * float_edge.group.op_pj)
    int_edge = machine_costs(machines.load("int8-8x8"), ("int8",), "int8")
    assert int_edge.partial is not None
    expected = 2 * int_edge.group.op_pj + 3 * int_edge.group.idle_pj + 3 * int_edge.partial.op_pj
    assert int_edge.edge_pj(2, 3, 0, 5) == pytest.approx(expected + 2 * int_edge.partial.idle_pj)


@pytest.mark.parametrize(
    ("machine", "policy", "message"),
    [
        (
            "int8-8x8",
            default_policy("fp16-mac"),
            "formats are for PE fp16-mac and machine int8-8x8 has int8-mac; name the machine's own PE",
        ),
    ],
)
def test_refusals(machine: str, policy: FormatPolicy, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        simulate(machine, SMALL, policy=policy)
    assert str(caught.value) == message


def test_unknown_memory_names_the_closest() -> None:
    machine = machines.with_changes(machines.load("int8-8x8"), dram="ddr4-3200-x61")
    with pytest.raises(ConfigError) as caught:
        simulate(machine, SMALL)
    assert str(caught.value).startswith("dram = ddr4-3200-x61: no such preset: did you mean 'ddr4-3200-x64'?")


def test_tied_fp16_head_is_the_embedding_table() -> None:
    """In fp16 the head's matrix and the embedding are one table; a quantised head is a second one."""
    shared = simulate("fp16-8x8", SMALL, prompt_tokens=1, output_tokens=0).peak_memory_bytes
    own = simulate("fp16-8x8", SMALL, policy={"head": "int8"}, prompt_tokens=1, output_tokens=0).peak_memory_bytes
    assert own - shared == 96 * 300 + 2 * 300  # int8 codes and one fp16 scale a row, beside the fp16 table


def test_shape_without_rotary_positions_does_no_rotation() -> None:
    plain = dataclasses.replace(SMALL, rope_base=None)
    with_rope = simulate("int8-8x8", SMALL, prompt_tokens=4, output_tokens=0).prefill.cycles_vector
    without = simulate("int8-8x8", plain, prompt_tokens=4, output_tokens=0).prefill.cycles_vector
    assert with_rope - without == 2 * -(-4 * (96 + 48) * 3 // 16)


@pytest.mark.parametrize("tokens", [0, -1, 2.5, True])
def test_sizes_must_be_whole_numbers(tokens: object) -> None:
    with pytest.raises(ConfigError) as caught:
        simulate("int8-8x8", SMALL, prompt_tokens=tokens)  # type: ignore[arg-type]
    assert str(caught.value) == f"prompt_tokens = {tokens}: must be a whole number of at least 1; the workload"
