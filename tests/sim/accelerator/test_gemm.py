"""One product on the accelerator: the same program as with operands, the bounds, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import stepped
from bitwright.arch import machine as machines
from bitwright.arch.errors import ConfigError
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.instructions import NumberType
from bitwright.arch.isa.placement import place
from bitwright.sim.accelerator.gemm import Gemm, simulate_gemm

CASES = [
    ("int8-16x16", "int8", None),
    ("int8-8x8-os", "int4_asym", 24),
    ("shift-add-4x6", "int4", 16),
    ("shift-add-16x16-os", "int4_asym", 64),
    ("fp16-4x4", "fp16", None),
    ("fp16-8x4-os", "int4_asym", 20),
    ("outlier-victim-4x4", "ovp4", 32),
    ("outlier-victim-4x4", "ovp8", None),
    ("lut-4x4", "int4_asym", 32),
    ("lut-4x8", "int2", None),
]
SLOW = FixedMemory(latency_cycles=3, beat_cycles=2, reads=2, writes=1, response_cycles=2)
SIZES = [(1, 1, 1), (1, 96, 40), (5, 33, 9), (17, 64, 20)]


@pytest.mark.parametrize(("name", "fmt", "group"), CASES)
def test_program_is_that_of_the_lowering(name: str, fmt: str, group: int | None) -> None:
    narrow = machines.load(name).model_copy(update={"port": machines.Port(bytes=8)})
    for m, k, n in SIZES:
        for to in (NumberType.FP32, NumberType.INT8):
            gemm = Gemm(narrow, m, k, n, fmt, group, to)
            lowered = gemm.lowered(seed=3)
            assert gemm.program == lowered.program
            assert gemm.layout.region_beats == lowered.layout.region_beats


@pytest.mark.parametrize(("name", "fmt", "group"), CASES)
def test_engines_and_stepped_model_agree_within_the_bounds(name: str, fmt: str, group: int | None) -> None:
    machine = machines.load(name)
    for m, k, n in SIZES:
        for memory in (
            FixedMemory(),
            FixedMemory(latency_cycles=3, beat_cycles=2, reads=2, writes=1, response_cycles=2),
        ):
            found = [simulate_gemm(machine, m, k, n, fmt=fmt, group=group, engine=e, memory=memory) for e in ENGINES]
            assert found[0].counters == found[1].counters
            gemm, counters = found[0].gemm, found[0].counters
            placement = place(len(gemm.program), gemm.layout.region_beats, 16)
            assert stepped.step_through(gemm.program, gemm.limits, memory, placement, 16, 16)[0] == counters
            assert 0 < found[0].bound_cycles <= counters.cycles
            assert 0 < found[0].utilisation <= 1


ENGINES = ("simpy", "fast")


def test_derived_figures() -> None:
    found = simulate_gemm(machines.load("int8-16x16"), 3, 50, 40, fmt="int8", memory=FixedMemory(beat_cycles=2))
    beats = found.counters.beats_read + found.counters.beats_written
    assert found.macs == 6000
    assert found.array_bound_cycles == 24  # 23.4 with all of 256 PEs
    assert found.memory_bound_cycles == found.bound_cycles == 2 * beats
    assert found.utilisation == 6000 / (256 * found.counters.cycles)
    pairs = simulate_gemm(machines.load("outlier-victim-4x4"), 3, 64, 40, fmt="ovp4")
    tile = pairs.gemm.limits.tile
    assert tile is not None
    assert pairs.gemm.step == (16 * tile.lanes * 2, 1)
    assert pairs.array_bound_cycles == -(-3 * 64 * 40 // (16 * tile.lanes * 2))
    row = found.row()
    assert (row["machine"], row["engine"], row["cycles"]) == ("int8-16x16", "simpy", found.counters.cycles)
    assert (row["memory_beat_cycles"], row["weights"], row["group"]) == (2, "int8", None)


def test_real_projection_is_equal_in_both_engines(record_property: Any) -> None:
    """576 x 576, SmolLM2-135M's query projection."""
    for name, fmt, group in (("int8-16x16", "int8", None), ("shift-add-16x16-os", "int4_asym", 64)):
        for tokens in (1, 16):
            found = [
                simulate_gemm(machines.load(name), tokens, 576, 576, fmt=fmt, group=group, engine=engine)
                for engine in ENGINES
            ]
            assert found[0].counters == found[1].counters
            bounds = f"{found[0].array_bound_cycles} (array) and {found[0].memory_bound_cycles} (memory)"
            record_property(
                "figure",
                f"accelerator, {name} {tokens} x 576 x 576 {fmt}: {found[0].counters}, bounds {bounds}, utilisation "
                f"{found[0].utilisation:.3f}",
            )


def test_port_formats_and_memory_are_the_machines() -> None:
    """A file with every key, against the engine told of each."""
    data = {
        **machines.load("int8-4x4").model_dump(),
        "port": {"bytes": 8, "outstanding_reads": 1, "outstanding_writes": 2},
        "formats": ["int4", "int8"],
        "memory": {"latency_cycles": 9, "beat_cycles": 2},
    }
    machine = machines.Machine.model_validate(data)
    found = simulate_gemm(machine, 5, 40, 12, fmt="int8")
    gemm, memory = found.gemm, FixedMemory(latency_cycles=9, beat_cycles=2)
    assert (gemm.limits.port_bytes, [form.name for form in gemm.limits.formats]) == (8, ["int4", "int8"])
    assert gemm.program == gemm.lowered(seed=1).program
    placement = place(len(gemm.program), gemm.layout.region_beats, 8)
    counters = stepped.step_through(gemm.program, gemm.limits, memory, placement, 1, 2)[0]
    assert found.counters == counters == simulate_gemm(machine, 5, 40, 12, fmt="int8", engine="fast").counters
    assert counters.cycles > simulate_gemm(machines.load("int8-4x4"), 5, 40, 12, fmt="int8").counters.cycles
    with pytest.raises(ConfigError) as caught:
        simulate_gemm(machine, 5, 40, 12, fmt="int3")
    assert str(caught.value) == (
        "weights = int3: machine 'int8-4x4' is generated with int4, int8 (add it to the machine's formats)"
    )


@pytest.mark.parametrize(
    ("name", "sizes", "options", "message"),
    [
        (
            "int8-4x4",
            (1, 1, 1),
            {"fmt": "int8", "engine": "fats"},
            "engine = fats: did you mean 'fast'? (known: fast, simpy)",
        ),
        ("int8-4x4", (1, 0, 1), {"fmt": "int8"}, "gemm = 1,0,1: must be M,K,N of 1 or more"),
        ("int8-4x4", (1, 1, 1), {"fmt": "int8", "group": 0}, "group = 0: must be 1 or more"),
        ("fp16-4x4", (1, 1, 1), {"fmt": "fp16", "group": 4}, "group = 4: fp16 has no scales (leave the group out)"),
        (
            "lut-4x4",
            (1, 40, 1),
            {"fmt": "int4", "group": 6},
            "group = 6: must be a multiple of 4, which the tile takes at once, or at least the reduction of 40",
        ),
    ],
)
def test_refusals(name: str, sizes: tuple[int, int, int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        simulate_gemm(machines.load(name), *sizes, **options)
    assert str(caught.value) == message
