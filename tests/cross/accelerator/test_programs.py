"""Random programs on the accelerator's RTL: bytes as the interpreter's, cycles as the simulators', faults as the
validator's."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from random import Random

import numpy as np
import pytest
from accelerator_cases import random_memory
from accelerator_views import (
    check,
    check_verdict,
    compiled,
    flips,
    machine_limits,
    made_case,
    random_bytes,
    random_gemm,
)
from bitwright.arch import formats
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa import Instruction, Load, Store, assemble, to_bytes
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.limits import Limits
from bitwright.rtl.bench.accelerator_driver import BusErrors
from bitwright.workloads import checkpoint
from test_layers import TOKENS, Layers, layers, run_on

MACHINES = {
    "int8-4x4": (8, ("int8", "int4_asym", "int3", "int6")),
    "shift-add-6x2+3single": (8, ("int4", "int4_asym")),
    "fp16-3x5-os": (16, ("fp16", "int4_asym", "int4")),
    "shift-add-5x4-os": (32, ("int4", "int4_asym")),
    "outlier-victim-3x4": (16, ("ovp4", "ovp8", "int8")),
    "lut-3x4": (16, ("int2", "int8", "int4_asym", "bipolar_int3")),
    "lut-2x5": (8, ("int3_asym",)),  # no code as wide as the PE takes
    "bit-serial-3x4": (16, ("bitmod_fp4", "int8", "bitmod_fp3", "int6", "int4", "fp4_e2m1", "bitmod_fp4_er", "int7")),
    "opt3-3x2": (16, ("int8", "int4", "int6")),
    "opt4c-2x3": (8, ("int8", "int3")),
}


@pytest.fixture(params=MACHINES)
def lim(request: pytest.FixtureRequest) -> Limits:
    port_bytes, forms = MACHINES[request.param]
    return machine_limits(request.param, port_bytes, forms)


@lru_cache
def real_layers() -> Layers:
    return layers(checkpoint.load("smollm2-135m"))


def test_random_products(lim: Limits) -> None:
    for seed in range(120):
        lowered = random_gemm(lim, seed)
        check(lim, lowered.program, lowered.memory, random_memory(Random(seed)))


def test_random_programs_of_mixed_formats(lim: Limits) -> None:
    for seed in range(100):
        case = made_case(lim, seed)
        memory = random_bytes(seed, lim, case.region_beats)
        check(lim, case.program, memory, case.memory, placement=case.placement)


@pytest.mark.parametrize("matrix", ["layers.0.q", "layers.0.down"])
def test_tiles_of_real_layers(lim: Limits, matrix: str) -> None:
    """Rows of an attention projection and of an FFN matrix, decode and 16 tokens: a part of the whole layers of
    `make campaign-rtl`, on every family in two formats of its machine."""
    weights, inputs = real_layers()[matrix]
    for number, form in enumerate(lim.formats[:2]):
        rows = weights[number :: len(weights) // (lim.cols + 1)][: lim.cols + 1]
        once = lim.weight_rows * (1 if lim.tile is None else lim.tile.values(form.name))
        group = -(-64 // once) * once if formats.get(form.name).default_scale_format else None
        for tokens, timing in ((1, FixedMemory(latency_cycles=100)), (TOKENS, FixedMemory(beat_cycles=2))):
            run_on(lim, lim.pe.name, form.name, group, rows, inputs[-tokens:], timing)


@pytest.mark.parametrize("opened", [(1, 1), (2, 3)])
def test_ports_that_keep_few_bursts_open(opened: tuple[int, int]) -> None:
    lim = machine_limits("int8-4x4", *MACHINES["int8-4x4"])
    for seed in range(40):
        case = made_case(lim, 2000 + seed)
        memory = random_bytes(seed, lim, case.region_beats)
        port = dict(zip(("outstanding_reads", "outstanding_writes"), opened, strict=True))
        check(lim, case.program, memory, case.memory, port, placement=case.placement)


def test_random_stalls_change_no_byte(lim: Limits) -> None:
    for seed in range(60):
        case = made_case(lim, 1000 + seed)
        memory = random_bytes(seed, lim, case.region_beats)
        check(lim, case.program, memory, case.memory, stalls_seed=seed)


SAMPLE = """
load par hand region=1 offset=2 beats=3
load wgt hand region=1 beats=2
load act hand beats=6
load vec hand region=2 beats=2
execute format=1 first m=3 k=8 group=4 hand_acc free_act free_wgt free_par
vector fp16 scale m=3 hand free_acc free_vec
store region=3 rows=3 beats=1 stride=1 free_out
end
"""


def sample(name: str) -> tuple[Limits, list[Instruction], list[np.ndarray]]:
    """A machine, a program of eight instructions for it (of a tile: a product that needs no more) and its memory."""
    lim = machine_limits(name, *MACHINES[name])
    if name == "int8-4x4":
        return lim, assemble(SAMPLE), random_bytes(7, lim, (300, 300, 300, 300))
    lowered = random_gemm(lim, 2)
    assert len(lowered.program) == 8
    return lim, list(lowered.program), list(lowered.memory)


@pytest.mark.parametrize("name", ["int8-4x4", "lut-3x4", "bit-serial-3x4"])
def test_every_single_bit_flip_ends_as_the_validator_says(name: str) -> None:
    lim, program, memory = sample(name)
    legal = [check_verdict(lim, words, memory, FixedMemory(latency_cycles=5)) for words in flips(program)]
    assert len(legal) == 8 * 128
    assert 50 < sum(legal) < 974


@pytest.mark.parametrize("name", ["int8-4x4", "lut-3x4", "bit-serial-3x4"])
def test_an_error_of_any_beat_ends_the_run_at_its_instruction(name: str) -> None:
    """Every beat of the fetches, of each kind of Load and of the Store, one a run."""
    lim, program, memory = sample(name)
    reads, writes = Counter[int](), Counter[int]()
    for index, item in enumerate(program):
        reads[index] += 16 // lim.port_bytes
        if isinstance(item, (Load, Store)):
            (reads if isinstance(item, Load) else writes)[index] += item.rows * item.beats
    assert len([item for item in program if isinstance(item, Load)]) == 4
    kinds = {"read_beat": reads, "write_beat": writes}
    for kind, expected in kinds.items():
        found = Counter[int]()
        for beat in range(expected.total()):
            errors, own = BusErrors(**{kind: beat}), [region.copy() for region in memory]
            done = compiled(lim).run(to_bytes(program), own, FixedMemory(), errors=errors)
            assert done.fault is Fault.BUS_ERROR
            found[done.index] += 1
        assert found == expected, kind


@pytest.mark.parametrize("limit", [1, 17, 60, 100])
def test_the_watchdog_ends_the_run_in_its_cycle(limit: int) -> None:
    lim = machine_limits("int8-4x4", *MACHINES["int8-4x4"])
    memory = random_bytes(7, lim, (300, 300, 300, 300))
    done = compiled(lim).run(to_bytes(assemble(SAMPLE)), memory, FixedMemory(), watchdog=limit)
    assert done.fault is Fault.WATCHDOG
    assert done.counters.cycles == limit


def test_a_truncated_program_is_told() -> None:
    lim = machine_limits("int8-4x4", *MACHINES["int8-4x4"])
    memory = random_bytes(7, lim, (300, 300, 300, 300))
    for count in range(1, 8):
        done = compiled(lim).run(to_bytes(assemble(SAMPLE)[:count]), [r.copy() for r in memory], FixedMemory())
        assert (done.fault, done.index) == (Fault.TRUNCATED, count)


def test_any_power_up_state() -> None:
    lim = machine_limits("int8-4x4", *MACHINES["int8-4x4"])
    program = assemble(SAMPLE)
    results = []
    for seed in (1, 2, 3):
        memory = random_bytes(7, lim, (300, 300, 300, 300))
        done = compiled(lim).run(to_bytes(program), memory, FixedMemory(), power_up_seed=seed)
        results.append((done.counters, *(region.tobytes() for region in memory)))
    assert results[0] == results[1] == results[2]
    assert isinstance(memory[0], np.ndarray)
