"""What is wrong with an instruction by itself, and what it touches: `arch.isa.extents` in hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, ClassVar

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2
from bitwright.arch.isa.extents import FP32_BITS, VALUE_BITS
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.fields import BY_OP, OP_BITS, WORD_BITS
from bitwright.arch.isa.instructions import UNITS, Buffer, NumberType, Op
from bitwright.arch.isa.limits import REGIONS, Channel, Limits
from bitwright.arch.isa.placement import INDEX_BITS
from bitwright.arch.isa.timing import check_cycles
from bitwright.arch.pe import Evidence
from bitwright.rtl.accelerator.interfaces import UNIT_CHANNELS, entry_layout, field
from bitwright.rtl.accelerator.legality import illegal, quotient, unknown

FAULT_BITS = bits_for(max(Fault))

_K_BITS = BY_OP[Op.EXECUTE].field("k").bits
_DIVIDE_CYCLES = _K_BITS // 2
_LAST_PHASE = check_cycles(Op.EXECUTE) - 1
_SHORT_LAST_PHASE = check_cycles(None) - 1
_LOADED = {Buffer.ACT: Channel.ACT, Buffer.WGT: Channel.WGT, Buffer.PAR: Channel.PAR, Buffer.VEC: Channel.VEC}


def region_layout(bits: int) -> ArrayLayout:
    """A number for each region of memory."""
    return ArrayLayout(bits, REGIONS)


class Checker(wiring.Component):
    """Checks one instruction at a time and says what goes into the queue of its unit.

    Parameters
        limits : arch.isa.limits.Limits
    Members
        start : In(1)            A check begins; one that is under way is forgotten.
        word, index, broken : In(128), In(24), In(1)   The instruction, its place, and whether memory answered with an
            error when it was read. They stand from the cycle after `start` to the next `start`.
        region_beats : In(4 x 32)   Sizes of the regions; they stand during a run.
        valid : Out(1)           The outputs below are those of the word. From check_cycles(op) after `start`, exactly,
            to the next `start`.
        fault : Out(4)           A code of arch.isa.faults, 0 for none: the word of a broken beat is BUS_ERROR; else as
            extents.fault_of in its order; else REGION_CONFLICT.
        ends : Out(1)            It is an End.
        unit : Out(4)            One bit of a unit, in the order of UNITS; 0 for an End.
        entry_load, entry_execute, entry_vector, entry_store : Out(entry_layout)   For the queue; of the word's unit.
    Timing       one instruction in check_cycles(op): 4 cycles (multiply, add, compare, result), of Execute 13. Its
                 k / group takes 7, two bits a cycle.
    Arithmetic   exact for every word.
    Reset        valid = 0; no region was loaded from or stored to.
    Model        arch.isa.extents.fault_of, uses; network's rule of regions.
    Source       our own design; restoring division; division by a constant: T. Granlund, P. L. Montgomery, PLDI 1994.
    Evidence     see `evidence`.
    """

    evidence: ClassVar[tuple[Evidence, ...]] = (
        Evidence(
            "code, unit, entry and cycle of random, flipped and boundary words equal the model, eight machines",
            160_000,
            "tests/rtl/accelerator/test_checker.py",
        ),
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        super().__init__(
            {
                "start": In(1),
                "word": In(WORD_BITS),
                "index": In(INDEX_BITS),
                "broken": In(1),
                "region_beats": In(region_layout(32)),
                "valid": Out(1),
                "fault": Out(FAULT_BITS),
                "ends": Out(1),
                "unit": Out(len(UNITS)),
                **{f"entry_{op.name.lower()}": Out(entry_layout(op)) for op in UNITS},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        op = self.word[:OP_BITS]
        is_op = {item: _named(m, f"is_{item.name.lower()}", op == int(item)) for item in Op}
        phase = Signal(range(_LAST_PHASE + 1))
        last = Signal()
        m.d.comb += last.eq(~self.start & (phase == Mux(is_op[Op.EXECUTE], _LAST_PHASE, _SHORT_LAST_PHASE)))
        with m.If(self.start):
            m.d.sync += [phase.eq(1), self.valid.eq(0)]
        with m.Elif(last):
            m.d.sync += [phase.eq(0), self.valid.eq(1)]
        with m.Elif(phase.any()):
            m.d.sync += phase.eq(phase + 1)

        rows = self._rows(m, is_op[Op.STORE])
        vector = self._vector(m)
        execute = self._execute(m, phase)
        is_illegal = Signal(reset_less=True)
        illegals = (is_op[item] & illegal(self.word, item, self.limits) for item in Op)
        m.d.sync += is_illegal.eq(reduce(or_, illegals, unknown(self.word)))
        over = {
            Op.LOAD: reduce(or_, (self._is_buffer(item) & self._over(_LOADED[item], rows["end"]) for item in Buffer)),
            Op.EXECUTE: reduce(or_, (self._over(channel, end) for channel, end in execute.items())),
            Op.VECTOR: reduce(or_, (self._over(channel, end) for channel, end in vector["checked"])),
            Op.STORE: self._over(Channel.OUT, rows["end"]),
        }
        alone = Signal(FAULT_BITS)
        moves = is_op[Op.LOAD] | is_op[Op.STORE]
        with m.If(self.broken):
            m.d.comb += alone.eq(Fault.BUS_ERROR)
        with m.Elif(is_illegal):
            m.d.comb += alone.eq(Fault.ILLEGAL_INSTRUCTION)
        with m.Elif(moves & (rows["region_end"] > rows["region_size"])):
            m.d.comb += alone.eq(Fault.OUT_OF_REGION)
        with m.Elif(reduce(or_, (is_op[item] & found for item, found in over.items()))):
            m.d.comb += alone.eq(Fault.OUT_OF_BUFFER)
        conflict = self._conflict(m, rows["region"], is_op[Op.LOAD], is_op[Op.STORE], last & ~alone.any())
        with m.If(last):
            m.d.sync += self.fault.eq(Mux(conflict & ~alone.any(), Fault.REGION_CONFLICT, alone))

        m.d.comb += [self.ends.eq(is_op[Op.END]), self.unit.eq(Cat(is_op[item] for item in UNITS))]
        loaded = dict.fromkeys(_LOADED.values(), rows["end"])
        self._entry(m, Op.LOAD, loaded, used=Cat(self._is_buffer(item) for item in Buffer), at="at")
        used = Cat(Const(1, 1), Const(1, 1), self._of_format([form.scale for form in self.limits.formats]), Const(1, 1))
        self._entry(m, Op.EXECUTE, execute, used=used, at="acc_at")
        m.d.comb += self.entry_execute.reads_own.eq(~self._field(Op.EXECUTE, "first"))
        used = Cat(Const(1, 1), vector["reads"], Const(1, 1))
        self._entry(m, Op.VECTOR, vector["ends"], used=used, at="out_at")
        self._entry(m, Op.STORE, {Channel.OUT: rows["end"]}, used=Const(1, 1), at="")
        return m

    def _field(self, op: Op, name: str) -> Value:
        return field(self.word, op, name)

    def _fields(self, op: Op) -> dict[str, Value]:
        return {item.name: self._field(op, item.name) for item in BY_OP[op].fields}

    def _is_buffer(self, buffer: Buffer) -> Value:
        return self._field(Op.LOAD, "buffer") == int(buffer)

    def _of_format(self, values: Sequence[int]) -> Value:
        """The value of the Execute's format."""
        return Array(values)[self._field(Op.EXECUTE, "format")]

    def _over(self, channel: Channel, end: Value) -> Value:
        return end > self.limits.capacity(channel)

    def _beats(self, bits: Value) -> Value:
        """Whole beats that hold so many bits."""
        port_bits = 8 * self.limits.port_bytes
        return (bits + (port_bits - 1)) >> exact_log2(port_bits)

    # Each of the three below is a pipeline without valid bits: it follows the word that stands.

    def _rows(self, m: Module, stores: Value) -> dict[str, Value]:
        """Of a Load or a Store: one past its last beat in the slot and in the region, which region, and its size."""
        fields = {}
        for name in ("rows", "beats", "stride", "offset", "at", "region"):
            fields[name] = Mux(stores, self._field(Op.STORE, name), self._field(Op.LOAD, name))
        area = _stage(m, "area", fields["rows"] * fields["beats"])
        span = _stage(m, "span", (fields["rows"] - 1)[: len(fields["rows"])] * fields["stride"])
        return {
            "end": _stage(m, "rows_end", fields["at"] + area),
            "region_end": _stage(m, "region_end", fields["offset"] + fields["beats"] + span),
            "region": fields["region"],
            "region_size": _stage(m, "region_size", Array(self.region_beats)[fields["region"]]),
        }

    def _vector(self, m: Module) -> dict[str, Any]:
        """Of a Vector: extents to check, ends of its channels, and whether it reads vec."""
        limits, value = self.limits, self._fields(Op.VECTOR)
        row = limits.beats(limits.cols * FP32_BITS)
        result_rows = [limits.beats(limits.cols * VALUE_BITS[to]) for to in NumberType]
        residual = _stage(m, "residual", value["m"] * row)
        results = _stage(m, "results", value["m"] * Array(result_rows)[value["to"]])
        wanted = {
            "scale": value["scale_at"] + Mux(value["by_column"], row, self._beats(value["m"] * FP32_BITS)),
            "bias": value["bias_at"] + row,
            "residual": value["residual_at"] + residual,
        }
        read = [_stage(m, f"{name}_end", Mux(value[name], end, 0)) for name, end in wanted.items()]
        out = _stage(m, "results_end", value["out_at"] + results)
        acc = _stage(m, "vector_acc_end", value["acc_at"] + value["m"])
        longest = _stage(m, "vec_end", reduce(lambda one, other: Mux(one > other, one, other), read))
        return {
            "checked": [(Channel.ACC, acc), (Channel.OUT, out), *((Channel.VEC, end) for end in read)],
            "ends": {Channel.ACC: acc, Channel.VEC: longest, Channel.OUT: out},
            "reads": reduce(or_, (value[name] for name in wanted)),
        }

    def _execute(self, m: Module, phase: Value) -> dict[Channel, Value]:
        """Of an Execute: the ends of its channels."""
        limits, value = (
            self.limits,
            {item.name: self._field(Op.EXECUTE, item.name) for item in BY_OP[Op.EXECUTE].fields},
        )
        codes = _stage(
            m, "code_bits", value["k"] * self._of_format([limits.cols * form.bits for form in limits.formats])
        )
        weights = _stage(m, "weights_end", value["wgt_at"] + self._beats(codes))
        acc = _stage(m, "execute_acc_end", value["acc_at"] + value["m"])

        whole, rest = self._divide(m, phase)
        groups = _stage(m, "groups", whole + rest.any())
        entries = self._of_format([limits.cols * form.par_bits for form in limits.formats])
        scales = _stage(m, "par_bits", groups * entries)
        par = _stage(m, "par_end", value["par_at"] + self._beats(scales))

        vectors: Value = value["k"]
        if limits.stationary == "ws":
            steps = limits.slice_steps
            assert steps is not None, "a weight-stationary array has so many rows"
            of_group = _stage(m, "slices_of_group", quotient(value["group"] + (steps - 1), steps))
            of_rest = _stage(m, "slices_of_rest", quotient(rest + (steps - 1), steps))
            slices = _stage(m, "slices", (whole * of_group + of_rest)[:_K_BITS])  # each has an element of k
            vectors = _stage(m, "vectors", slices * value["m"])
        act = _stage(m, "act_end", (value["act_at"] + vectors) * limits.vector_beats)
        return {Channel.ACT: act, Channel.WGT: weights, Channel.PAR: par, Channel.ACC: acc}

    def _divide(self, m: Module, phase: Value) -> tuple[Value, Value]:
        """k // group and k % group of an Execute, from phase 8 on; of a group of 0 anything."""
        group = self._field(Op.EXECUTE, "group")
        digits = Signal(_K_BITS, name="digits", reset_less=True)  # of k that are left, above those of the quotient
        rest = Signal(_K_BITS, name="rest", reset_less=True)
        now_digits = Mux(phase == 1, self._field(Op.EXECUTE, "k"), digits)
        now_rest: Value = Mux(phase == 1, 0, rest)
        for step in range(2):
            trial = Signal(_K_BITS + 1, name=f"trial_{step}")
            left = Signal(_K_BITS + 2, name=f"left_{step}")  # the top bit is the borrow
            m.d.comb += [trial.eq(Cat(now_digits[-1], now_rest)), left.eq(trial - group)]
            now_digits = Cat(~left[-1], now_digits[:-1])
            now_rest = Mux(left[-1], trial, left)[:_K_BITS]
        with m.If((phase >= 1) & (phase <= _DIVIDE_CYCLES)):
            m.d.sync += [digits.eq(now_digits), rest.eq(now_rest)]
        return digits, rest

    def _conflict(self, m: Module, region: Value, loads: Value, stores: Value, passes: Value) -> Value:
        """Whether the other of Load and Store has used the region before; remembers the one of an instruction that
        passes."""
        loaded, stored = Signal(REGIONS), Signal(REGIONS)
        conflict = (loads & Array(stored)[region]) | (stores & Array(loaded)[region])
        with m.If(passes & loads & ~conflict):
            m.d.sync += loaded.bit_select(region, 1).eq(1)
        with m.If(passes & stores & ~conflict):
            m.d.sync += stored.bit_select(region, 1).eq(1)
        return conflict

    def _entry(self, m: Module, op: Op, ends: Mapping[Channel, Value], *, used: Value, at: str) -> None:
        """The queue entry of a legal word of this op."""
        entry = getattr(self, f"entry_{op.name.lower()}")
        flags = {Channel.ACC: "free_acc", Channel.OUT: "hand", Channel.VEC: "free_vec"}
        if op is Op.EXECUTE:
            flags = {Channel.ACC: "hand_acc", **{item: f"free_{item}" for item in UNIT_CHANNELS[op][:3]}}
        if op is Op.STORE:
            flags = {Channel.OUT: "free_out"}
        last = [self._field(op, "hand" if op is Op.LOAD else flags[channel]) for channel in UNIT_CHANNELS[op]]
        m.d.comb += [
            entry.word.eq(self.word),
            entry.index.eq(self.index),
            entry.used.eq(used),
            entry.last.eq(used & Cat(last)),
        ]
        if at:
            m.d.comb += entry.at.eq(self._field(op, at))
        m.d.comb += [getattr(entry, f"end_{channel}").eq(end) for channel, end in ends.items()]


def _stage(m: Module, name: str, value: Value) -> Signal:
    """The value, a cycle later."""
    assert not value.shape().signed, f"{name} is no count"
    register = Signal(len(value), name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return register


def _named(m: Module, name: str, value: Value) -> Signal:
    signal = Signal(name=name)
    m.d.comb += signal.eq(value)
    return signal
