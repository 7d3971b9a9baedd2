# amaranth: UnusedElaboratable=no
"""The checker against `extents.fault_of` and `extents.uses`: code, unit, queue entry and cycle, on eight machines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest
from amaranth.back import verilog as backend
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In
from bitwright.arch import machine
from bitwright.arch.isa.encoding import IllegalInstruction, build, decode, encode
from bitwright.arch.isa.extents import fault_of, uses
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.fields import BY_OP, LAYOUTS, Layout
from bitwright.arch.isa.instructions import UNITS, End, Execute, Instruction, Load, Op, Store, Vector
from bitwright.arch.isa.limits import Limits, limits
from bitwright.arch.isa.placement import INDEX_BITS
from bitwright.arch.isa.timing import check_cycles
from bitwright.rtl.accelerator.checker import Checker
from bitwright.rtl.accelerator.interfaces import UNIT_CHANNELS, entry_layout
from bitwright.rtl.accelerator.legality import quotient, refused_values, remainder
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.bench.words import Words
from bitwright.rtl.pe.emit import plain

SEED = 20261123
WORD_BITS = 128
WORDS = 20_000
REGION_BEATS = (0, 700, 40_000, (1 << 32) - 1)
MACHINES = {
    "int8_4x4": ("int8-4x4", 16),
    "int8_3x5_os": ("int8-3x5-os", 8),
    "int8_3x5": ("int8-3x5", 8),
    "int8_11x17": ("int8-11x17", 64),
    "fp16_4x4": ("fp16-4x4", 32),
    "shift_add_4x4": ("shift-add-4x4", 16),
    "outlier_victim_4x4": ("outlier-victim-4x4", 16),
    "lut_8x16": ("lut-8x16", 32),
}
OPS = {Load: Op.LOAD, Execute: Op.EXECUTE, Vector: Op.VECTOR, Store: Op.STORE, End: Op.END}


@cache
def limits_of(name: str) -> Limits:
    text, port_bytes = MACHINES[name]
    return limits(machine.load(text), port_bytes=port_bytes)


@cache
def compiled() -> Compiled:
    """A checker of every machine, side by side, all with the same inputs; outputs `<machine>_<port>`."""
    m = Module()
    ports: dict[str, Signal] = {}
    for name in MACHINES:
        m.submodules[name] = made = Checker(limits_of(name))
        for port, member in made.signature.members.items():
            inside: Any = getattr(made, port)
            wire = inside if isinstance(inside, Signal) else inside.as_value()
            if member.flow == In:
                outside = ports.setdefault(port, Signal(len(wire), name=port))
                m.d.comb += wire.eq(outside)
            else:
                outside = ports[f"{name}_{port}"] = Signal(len(wire), name=f"{name}_{port}")
                m.d.comb += outside.eq(wire)
    text: str = backend.convert(m, name="checkers", ports=list(ports.values()), emit_src=False)
    return Compiled(plain(text), "checkers", optimise="-O1")


# --- The model ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a checker says of a word, but conflicts of regions; `op` is None for a word without one."""

    op: Op | None
    fault: int
    instruction: Instruction | None


def verdict(word: int, allowed: Limits) -> Verdict:
    code = word & 7
    op = Op(code) if code in BY_OP else None
    try:
        instruction = decode(word)
    except IllegalInstruction:
        return Verdict(op, int(Fault.ILLEGAL_INSTRUCTION), None)
    found = fault_of(instruction, allowed, REGION_BEATS)
    return Verdict(op, int(found[0]) if found else 0, instruction)


def entry_of(instruction: Instruction, allowed: Limits, word: int, index: int) -> dict[str, int]:
    """The members of the queue entry that a unit looks at."""
    op = OPS[type(instruction)]
    channels = UNIT_CHANNELS[op]
    wanted = {"word": word, "index": index, "used": 0, "last": 0}
    for use in uses(instruction, allowed):
        place = channels.index(use.channel)
        wanted["used"] |= 1 << place
        wanted["last"] |= use.last << place
        wanted[f"end_{use.channel}"] = max(extent.end for extent in use.extents)
        if use.produces:
            (written,) = use.extents
            wanted["at"] = written.at
        if use.produces and op is Op.EXECUTE:
            wanted["reads_own"] = int(use.reads)
    return wanted


# --- Words -------------------------------------------------------------------------------------------------------


def random_value(draw: Random, bits: int, near: list[int]) -> int:
    most = (1 << bits) - 1
    kinds = [0, 1, 2, most, most - 1, draw.randint(0, most), draw.randint(0, min(most, 15)), draw.choice(near)]
    return max(0, min(most, draw.choice(kinds) + draw.choice([0, 0, 0, 1, -1])))


def random_instruction(draw: Random, allowed: Limits) -> Instruction:
    """Of any op; fields small, large or near a size of the machine, legal by the table or nearly so."""
    layout = draw.choice(LAYOUTS[:4])
    sizes = [allowed.rows, allowed.cols, allowed.act_vectors, allowed.wgt_beats, allowed.par_beats, allowed.vec_beats]
    sizes += [allowed.acc_rows, allowed.out_beats, *REGION_BEATS]
    small = draw.random() < 0.6
    values: dict[str, int] = {}
    for item in layout.fields:
        if item.flag:
            value = draw.randint(0, 1) if not item.only_with or values[item.only_with] else 0
        elif item.choices is not None:
            value = int(draw.choice([*item.choices]))
        elif item.name == "format":
            value = draw.randrange(len(allowed.formats))
        elif item.only_with and not values[item.only_with]:
            value = 0
        elif small:
            value = draw.randint(item.least, min(item.most, draw.choice([1, 4, 16, 64])))
        else:
            value = max(item.least, random_value(draw, item.bits, sizes))
        values[item.name] = value
    if layout.op is Op.EXECUTE and not allowed.formats[values["format"]].scale:
        values |= {"par_at": 0, "free_par": 0}
    if layout.op is Op.EXECUTE and allowed.stationary == "os":
        values["m"] = max(1, values["m"] % (allowed.rows + 1))
    if layout.op is Op.VECTOR and not (values["scale"] or values["bias"] or values["residual"]):
        values["free_vec"] = 0
    if layout.op is Op.STORE:
        values["tail_bytes"] %= allowed.port_bytes
    return build(layout, values)


def snug(draw: Random, instruction: Instruction, allowed: Limits) -> Instruction:
    """The instruction moved so that it ends at, just before or just past the end of a slot or of its region."""
    if isinstance(instruction, End):
        return instruction
    layout = BY_OP[int(OPS[type(instruction)])]
    values = {item.name: int(getattr(instruction, item.name)) for item in layout.fields}
    off = draw.choice([-1, 0, 0, 1])
    if isinstance(instruction, Load | Store) and draw.random() < 0.5:
        size = REGION_BEATS[instruction.region]
        values["offset"] = size - (instruction.rows - 1) * instruction.stride - instruction.beats + off
        name = "offset"
    else:
        use = draw.choice(uses(instruction, allowed))
        extent = draw.choice(use.extents)
        name = place_of(layout, extent.what)
        unit = allowed.vector_beats if name == "act_at" else 1
        values[name] = (allowed.capacity(use.channel) - extent.count) // unit + off
    item = layout.field(name)
    return build(layout, values) if item.least <= values[name] <= item.most else instruction


def place_of(layout: Layout, what: str) -> str:
    """The field that says where an extent begins."""
    names = {
        "beats": "at", "activations": "act_at", "weights": "wgt_at", "accumulators": "acc_at", "biases": "bias_at",
        "residuals": "residual_at", "results": "out_at", "scales": "par_at" if layout.op is Op.EXECUTE else "scale_at",
    }  # fmt: skip
    return names[what]


@cache
def words(count: int, seed: int) -> tuple[int, ...]:
    """Uniform words, instructions of every machine, those with an end that fits barely or not, and flipped bits."""
    draw = Random(seed)
    found = [int(Op.END), 0, 6, 7, (1 << WORD_BITS) - 1]
    while len(found) < count:
        allowed = limits_of(draw.choice(list(MACHINES)))
        kind = draw.random()
        if kind < 0.05:
            found.append(draw.getrandbits(WORD_BITS))
        elif kind < 0.07:
            found.append(draw.randrange(8) | 1 << draw.randrange(WORD_BITS))
        else:
            instruction = random_instruction(draw, allowed)
            if kind < 0.65:
                instruction = snug(draw, instruction, allowed)
            flip = 1 << draw.randrange(WORD_BITS) if kind > 0.9 else 0
            found.append(encode(instruction) ^ flip)
    return tuple(found)


# --- Running -----------------------------------------------------------------------------------------------------


def to_words(values: list[int], bits: int) -> Words:
    size = -(-bits // 32)
    data = b"".join(value.to_bytes(4 * size, "little") for value in values)
    return np.frombuffer(data, np.uint32).reshape(len(values), size)


def to_integer(row: Any) -> int:
    return int(row) if np.ndim(row) == 0 else int.from_bytes(np.asarray(row, np.uint32).tobytes(), "little")


def cut(entry: int, op: Op) -> dict[str, int]:
    return {
        name: entry >> field.offset & ((1 << field.width) - 1)
        for name, field in ((name, entry_layout(op)[name]) for name in entry_layout(op).members)
    }


@dataclass(frozen=True)
class Check:
    """One check: its first cycle, the cycle in which the next begins, and what stands meanwhile."""

    start: int
    until: int
    word: int
    index: int
    broken: bool
    forget: bool  # the run begins anew before it


def plan(found: tuple[int, ...], seed: int) -> list[Check]:
    """Checks one after the other with random idle cycles; some are cut short."""
    draw = Random(seed)
    checks, now = [], 2
    for word in found:
        forget = draw.random() < 0.02
        now += 2 * forget
        cycles = draw.choice([4, 13]) if draw.random() < 0.8 else draw.randint(1, 16)
        if word & 7 == Op.EXECUTE and draw.random() < 0.9:
            cycles = max(cycles, 13)
        cycles = max(cycles, 4) if draw.random() < 0.9 else cycles
        cycles += draw.choice([0, 0, 1, 5])
        checks.append(Check(now, now + cycles, word, draw.getrandbits(INDEX_BITS), draw.random() < 0.02, forget))
        now += cycles
    return checks


def run(checks: list[Check]) -> dict[str, Any]:
    cycles = checks[-1].until + 1
    start, reset, broken = (np.zeros(cycles, np.int64) for _ in range(3))
    word = np.zeros((cycles, 4), np.uint32)
    index = np.zeros(cycles, np.int64)
    reset[:2] = 1
    for check in checks:
        start[check.start] = 1
        reset[check.start - 2 : check.start] |= check.forget
        stands = slice(check.start + 1, check.until + 1)
        word[stands] = to_words([check.word], WORD_BITS)
        index[stands], broken[stands] = check.index, check.broken
    sizes = sum(beats << (32 * region) for region, beats in enumerate(REGION_BEATS))
    inputs = {"rst": reset, "start": start, "word": word, "index": index, "broken": broken}
    with compiled().open(random_state=True, seed=SEED) as running:
        return running.run({**inputs, "region_beats": to_words([sizes], WORD_BITS)}, cycles)


@pytest.mark.parametrize("name", MACHINES)
def test_every_word_has_the_models_verdict(name: str, record_property: Any) -> None:
    met = compare(name, limits_of(name), plan(words(WORDS, SEED), SEED))
    names = {Fault(code).name.lower() if code else "none": count for code, count in sorted(met.items())}
    record_property("figure", f"checker of {name}: {names}")
    least = {0: 1500, Fault.ILLEGAL_INSTRUCTION: 1000, Fault.OUT_OF_REGION: 500, Fault.OUT_OF_BUFFER: 1000}
    least |= {Fault.REGION_CONFLICT: 100, Fault.BUS_ERROR: 100}
    assert all(met[code] >= count for code, count in least.items()), met


def compare(name: str, allowed: Limits, checks: list[Check]) -> dict[int, int]:
    """The outputs of a machine's checker against the model; how often each fault was met."""
    out = {port.removeprefix(f"{name}_"): values for port, values in outputs().items() if port.startswith(f"{name}_")}
    valid = np.zeros(len(out["valid"]), np.uint64)
    met: dict[int, int] = {}
    loaded: set[int] = set()
    stored: set[int] = set()
    for number, check in enumerate(checks):
        if check.forget:
            loaded, stored = set(), set()
        model = verdict(check.word, allowed)
        ready = check.start + check_cycles(model.op)
        if ready > check.until:
            continue
        valid[ready : check.until + 1] = 1
        wanted = int(Fault.BUS_ERROR) if check.broken else model.fault
        if not wanted and isinstance(model.instruction, Load | Store):
            loads = isinstance(model.instruction, Load)
            mine, others = (loaded, stored) if loads else (stored, loaded)
            if model.instruction.region in others:
                wanted = int(Fault.REGION_CONFLICT)
            else:
                mine.add(model.instruction.region)
        where = f"check {number}, word {check.word:#034x}, {model.instruction}"
        found = int(out["fault"][check.until])
        assert found == wanted, f"{where}: fault {found}, must be {wanted}"
        met[wanted] = met.get(wanted, 0) + 1
        if model.fault:
            continue
        assert model.op is not None
        unit = 0 if model.op is Op.END else 1 << UNITS.index(model.op)
        assert (int(out["ends"][check.until]), int(out["unit"][check.until])) == (model.op is Op.END, unit), where
        if unit and model.instruction is not None:
            entry = cut(to_integer(out[f"entry_{model.op.name.lower()}"][check.until]), model.op)
            due = entry_of(model.instruction, allowed, check.word, check.index)
            assert {member: entry[member] for member in due} == due, where
    for check in checks:
        if check.forget:  # in its second cycle a reset is seen
            valid[check.start - 1 : check.start + 1] = 0
    ran = slice(2, checks[-1].until + 1)  # from the first reset on
    assert np.flatnonzero(out["valid"][ran] != valid[ran]).tolist() == []
    return met


@cache
def outputs() -> dict[str, Any]:
    return run(plan(words(WORDS, SEED), SEED))


def test_evidence_is_what_is_compared() -> None:
    assert [item.cases for item in Checker.evidence] == [len(MACHINES) * WORDS]


# --- Its parts ---------------------------------------------------------------------------------------------------


def test_values_of_narrow_fields_that_a_machine_refuses() -> None:
    allowed = limits_of("int8_4x4")
    refused = {
        f"{layout.name}.{item.name}": refused_values(layout, item, allowed)
        for layout in LAYOUTS
        for item in layout.fields
        if item.bits <= 6 and not item.flag
    }
    assert refused == {
        "load.buffer": [],
        "load.region": [],
        "execute.format": list(range(3, 16)),
        "vector.to": [3],
        "vector.function": [4, 5, 6, 7],
        "store.region": [],
        "store.tail_bytes": list(range(16, 64)),
    }


def test_division_by_constants_is_exact() -> None:
    divisors = [*range(1, 34), 127, 128, 255, 256, 1000, 16_383]
    m, value = Module(), Signal(14, name="value")
    ports = [value]
    for divisor in divisors:
        whole, rest = quotient(value, divisor), remainder(value, divisor)
        for name, result in (("whole", whole), ("rest", rest)):
            ports.append(Signal(14, name=f"{name}_{divisor}"))
            m.d.comb += ports[-1].eq(result)
    text: str = backend.convert(m, name="division", ports=ports, emit_src=False)
    with Compiled(plain(text), "division", optimise="-O0").open() as running:
        values = np.arange(1 << 14)
        out = running.run({"value": values})
    for divisor in divisors:
        assert np.array_equal(out[f"whole_{divisor}"], values // divisor), divisor
        assert np.array_equal(out[f"rest_{divisor}"], values % divisor), divisor


def test_a_broken_checker_is_caught() -> None:
    """The comparison can fail: another machine's model refuses these outputs."""
    with pytest.raises(AssertionError, match="fault"):
        compare("int8_3x5", limits_of("int8_3x5_os"), plan(words(WORDS, SEED), SEED)[:500])
