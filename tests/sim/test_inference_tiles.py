"""Whole models on broadcast tiles, and on arrays that cost tables do not have."""

from __future__ import annotations

import pytest
from bitwright.arch import costs
from bitwright.arch import machine as machines
from bitwright.arch.dram_port import DramPort
from bitwright.arch.errors import ConfigError
from bitwright.sim import fast
from bitwright.sim.inference import simulate
from bitwright.sim.row import result_row
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm
from bitwright.workloads.shapes import ModelShape

SMALL = ModelShape(
    name="small", layers=2, hidden=96, ffn=160, heads=4, kv_heads=2, head_dim=24, vocab=300, tied_embeddings=True,
    gated_ffn=True, rope_base=1e4, eps=1e-5, source="made up for this test",
)  # fmt: skip

TILES = ("bit-serial-8x8", "lut-8x8", "outlier-victim-8x8")


@pytest.mark.parametrize("name", TILES)
def test_a_model_on_a_broadcast_tile(name: str) -> None:
    """Causes and kinds sum, no bound is broken, and what has no cost table is None rather than a number."""
    row = result_row(simulate(name, SMALL, prompt_tokens=20, output_tokens=3))
    assert row == result_row(simulate(name, SMALL, prompt_tokens=20, output_tokens=3, engine="simpy"))
    assert row["cycles"] == sum(row[key] for key in row if key.startswith("cycles_op_"))
    assert row["prefill_cycles"] >= row["prefill_bound_cycles"] > 0
    lost = sum(value for key, value in row.items() if key.startswith("lost_macs_"))
    assert row["macs"] + lost == row["peak_macs_per_cycle"] * row["cycles"]
    unknown = [key for key in row if key.startswith(("energy_", "area_")) or key.endswith("_energy_uj")]
    assert len(unknown) > 15
    assert all(row[key] is None for key in unknown)
    assert any(note.startswith("no energy and no area") for note in row["notes"])


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("bit-serial-8x8", 64 * 4 / 2),  # four products a slice, two terms of bitmod_fp4
        ("lut-8x8", 64 * 4 / 4),  # four products a step, four bits one after another
        ("outlier-victim-8x8", 64 * 2 * 2),  # two bytes a step, each two values
    ],
)
def test_peak_of_a_tile_follows_its_weights(name: str, peak: float) -> None:
    assert result_row(simulate(name, SMALL, prompt_tokens=1, output_tokens=0))["peak_macs_per_cycle"] == peak


def test_one_product_on_a_tile_by_hand() -> None:
    """16 x 16 ovp4 outlier-victim tile, 16 tokens, k 64, n 32: two passes of 64 / 4 steps; operands take no time."""
    machine = machines.with_changes(machines.load("outlier-victim-16x16"), buffers_kib="64,64,64")
    gemm = Gemm("g", "ffn", 16, 64, 32, 1, "ovp4", None)
    program = mapping.compile_gemm(machine, gemm, DramPort(10**9, 250_000, 0))
    shape = mapping.array_shape(machine, "ovp4")
    counted = fast.run(program, shape, DramPort(10**9, 250_000, 0), 0)
    assert counted.cycles_stream == 2 * (64 // 4)
    weights, acts = (sum(load.size_bytes for load in program.loads if load.tensor == name) for name in ("wgt", "act"))
    assert (weights, acts) == (32 * 64 // 2 + 32 * 2, 16 * 64 // 2)  # four bits a value; an fp16 scale a row of weights


LUT_TAKES = (
    "int2, int3, int4, int2_asym, int3_asym, int4_asym, bipolar_int2, bipolar_int3, bipolar_int4; machine lut-4x4"
)


@pytest.mark.parametrize(
    ("name", "policy", "message"),
    [
        (
            "lut-4x4",
            {"weights": "fp16", "acts": "int8", "kv": "int4"},
            f"policy.weights = 'fp16': refused by lut: fp16 codes are not integers; it takes {LUT_TAKES}",
        ),
        (
            "lut-4x4",
            {"weights": "int4", "acts": "int8", "kv": "int8"},
            f"policy.kv = 'int8': refused by lut: int8 has 8 bits, the PE takes 4; it takes {LUT_TAKES}",
        ),
        (
            "lut-4x4",
            {"weights": "int4", "acts": "fp16", "kv": "int4"},
            "policy.acts = 'fp16': lut takes int8 activations",
        ),
        (
            "outlier-victim-4x4",
            {"weights": "ovp4", "acts": "ovp4", "kv": "ovp8"},
            "policy.kv = 'ovp8': outlier-victim multiplies pairs of one width, activations are ovp4 "
            "(name a format of 4 bits)",
        ),
    ],
)
def test_what_a_tile_cannot_take(name: str, policy: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        simulate(name, SMALL, policy=policy)
    assert str(caught.value) == message


def test_a_lut_of_two_bits_runs_in_its_own_formats() -> None:
    row = result_row(simulate("lut:weight_bits=2-4x4", SMALL, prompt_tokens=2, output_tokens=0))
    assert (row["weights"], row["kv"], row["peak_macs_per_cycle"]) == ("int2", "int2", 4 * 4 * 4 / 2)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("bitmod", 32 * 32 * 4 / 2),  # 4 x 4 tiles of 8 x 8 PEs, four products in two cycles of fp4
        ("olive", 64 * 64),  # PEs of one 4-bit product
        ("lut-tensor-core", 2 * 64 * 4 / 4),  # M 2, N 64, K 4, a weight bit a cycle
        ("mixpe", 64 * 64),
    ],
)
def test_published_machines_have_their_published_peak(name: str, peak: float) -> None:
    assert result_row(simulate(name, SMALL, prompt_tokens=1, output_tokens=0))["peak_macs_per_cycle"] == peak


def test_a_clock_above_the_pes_own_is_refused_where_the_table_has_it() -> None:
    fmax_mhz = costs.stream("bit-serial").fmax_mhz
    with pytest.raises(ConfigError) as caught:
        simulate(machines.with_changes(machines.load("bit-serial-8x8"), clock_mhz=5000), SMALL)
    assert str(caught.value) == (
        f"clock_mhz = 5000: PE bit-serial behind its streams reaches {fmax_mhz:.0f} MHz at nangate45; choose a lower "
        "clock; machine bit-serial-8x8"
    )


def test_a_run_of_the_vector_unit_says_so() -> None:
    few, many = (
        result_row(simulate(machines.with_changes(machines.load("int8-16x16"), vector_lanes=lanes), SMALL))
        for lanes in (1, 4096)
    )
    assert few["cycles_vector"] > few["cycles"] / 2
    assert many["cycles_vector"] < many["cycles"] / 2
    assert [row["notes"][0].startswith("most cycles are element-wise") for row in (few, many)] == [True, False]


def test_data_dependent_pes_need_codes() -> None:
    with pytest.raises(ConfigError) as caught:
        simulate("opt3-4x4", SMALL)
    assert str(caught.value) == (
        "pe = 'opt3': its cycles depend on the codes of the weights (use --trace DIR, or --engine); whole models "
        "without: fp16-mac, int8-mac, shift-add, bit-serial, lut, outlier-victim"
    )


def test_weights_that_load_otherwise_have_cycles_but_no_costs() -> None:
    loaded = machines.load("int8-8x8")
    quick = loaded.model_copy(update={"array": loaded.array.model_copy(update={"load_rows": 8})})
    usual, faster = (result_row(simulate(item, SMALL, prompt_tokens=4, output_tokens=1)) for item in (loaded, quick))
    assert faster["cycles"] < usual["cycles"]
    assert faster["energy_uj"] is None
    assert usual["energy_uj"] > 0
    assert " MACHINE.yaml " in faster["command"]
    assert " quick.yaml " in result_row(simulate(quick, SMALL), None, "quick.yaml")["command"]
    with pytest.raises(ConfigError, match="clock_mhz = 900: the group-dequantiser of int8-mac reaches"):
        simulate(machines.with_changes(quick, clock_mhz=900), SMALL)
