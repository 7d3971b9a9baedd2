"""What an instruction touches, and what is wrong with it before it runs.

Both follow from the instruction and the machine's limits alone, as they do in the fetcher of the hardware.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bitwright.arch.isa.encoding import IllegalInstruction, encode
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.instructions import (
    Buffer,
    Execute,
    Instruction,
    Load,
    NumberType,
    Store,
    Vector,
)
from bitwright.arch.isa.limits import Channel, Limits

Found = tuple[Fault, str]

_CHANNELS = {Buffer.ACT: Channel.ACT, Buffer.WGT: Channel.WGT, Buffer.PAR: Channel.PAR, Buffer.VEC: Channel.VEC}
VALUE_BITS = {NumberType.FP32: 32, NumberType.FP16: 16, NumberType.INT8: 8}
FP32_BITS = 32


@dataclass(frozen=True)
class Extent:
    """A run of addresses in a slot: beats, of acc rows."""

    what: str
    at: int
    count: int

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.at + self.count


@dataclass(frozen=True)
class Use:
    """What an instruction does with its unit's slot of one channel.

    Members
        produces : its unit is the channel's producer, so it takes a free slot and raises the fill level
        reads : what it reads must have been written; otherwise its write must not leave a gap
        last : the slot goes to the other side when the instruction is done
    """

    channel: Channel
    produces: bool
    reads: bool
    last: bool
    extents: tuple[Extent, ...]


def slice_count(k: int, group: int, steps: int | None) -> int:
    """Slices of a reduction of k, cut at multiples of `group` and, inside a group, after `steps`."""
    whole, rest = divmod(k, group)
    if steps is None:
        return whole + (rest > 0)
    return whole * -(-group // steps) + -(-rest // steps)


def act_vectors(execute: Execute, limits: Limits) -> int:
    """Activation vectors that an Execute reads."""
    if limits.stationary == "os":
        return execute.k
    return slice_count(execute.k, execute.group, limits.slice_steps) * execute.m


def uses(instruction: Instruction, limits: Limits) -> tuple[Use, ...]:
    """What the instruction does with each channel."""
    match instruction:
        case Load():
            written = Extent("beats", instruction.at, instruction.rows * instruction.beats)
            return (Use(_CHANNELS[instruction.buffer], True, False, instruction.hand, (written,)),)
        case Execute():
            return tuple(_execute(instruction, limits))
        case Vector():
            return tuple(_vector(instruction, limits))
        case Store():
            read = Extent("beats", instruction.at, instruction.rows * instruction.beats)
            return (Use(Channel.OUT, False, True, instruction.free_out, (read,)),)
        case _:
            return ()


def _execute(execute: Execute, limits: Limits) -> Iterator[Use]:
    form = limits.formats[execute.format]
    vector = limits.vector_beats
    acts = Extent("activations", execute.act_at * vector, act_vectors(execute, limits) * vector)
    yield Use(Channel.ACT, False, True, execute.free_act, (acts,))
    weights = Extent("weights", execute.wgt_at, limits.beats(execute.k * limits.cols * form.bits))
    yield Use(Channel.WGT, False, True, execute.free_wgt, (weights,))
    if form.scale:
        groups = -(-execute.k // execute.group)
        scales = Extent("scales", execute.par_at, limits.beats(groups * limits.cols * form.par_bits))
        yield Use(Channel.PAR, False, True, execute.free_par, (scales,))
    accumulators = Extent("accumulators", execute.acc_at, execute.m)
    yield Use(Channel.ACC, True, not execute.first, execute.hand_acc, (accumulators,))


def _vector(vector: Vector, limits: Limits) -> Iterator[Use]:
    yield Use(Channel.ACC, False, True, vector.free_acc, (Extent("accumulators", vector.acc_at, vector.m),))
    row = limits.beats(limits.cols * FP32_BITS)
    wanted = []
    if vector.scale:
        scales = row if vector.by_column else limits.beats(vector.m * FP32_BITS)
        wanted.append(Extent("scales", vector.scale_at, scales))
    if vector.bias:
        wanted.append(Extent("biases", vector.bias_at, row))
    if vector.residual:
        wanted.append(Extent("residuals", vector.residual_at, vector.m * row))
    if wanted:
        yield Use(Channel.VEC, False, True, vector.free_vec, tuple(wanted))
    result = vector.m * limits.beats(limits.cols * VALUE_BITS[vector.to])
    yield Use(Channel.OUT, True, False, vector.hand, (Extent("results", vector.out_at, result),))


def fault_of(instruction: Instruction, limits: Limits, region_beats: Sequence[int]) -> Found | None:
    """The first that is wrong with the instruction by itself: its values, then its region, then its slots."""
    sentence = _illegal(instruction, limits)
    if sentence:
        return Fault.ILLEGAL_INSTRUCTION, sentence
    name = type(instruction).__name__.lower()
    if isinstance(instruction, Load | Store):
        region = region_beats[instruction.region]
        end = instruction.offset + (instruction.rows - 1) * instruction.stride + instruction.beats
        if end > region:
            return Fault.OUT_OF_REGION, (
                f"{name} reaches beat {end - 1} of region {instruction.region}, which has {region} beats"
            )
    for use in uses(instruction, limits):
        size = limits.capacity(use.channel)
        for extent in use.extents:
            if extent.end > size:
                unit = "row" if use.channel is Channel.ACC else "beat"
                return Fault.OUT_OF_BUFFER, (
                    f"{name} reaches {unit} {extent.end - 1} of the {use.channel} slot with its {extent.what}, "
                    f"which has {size} {unit}s"
                )
    return None


def _illegal(instruction: Instruction, limits: Limits) -> str:
    """What makes the instruction illegal on this machine; empty when nothing does."""
    try:
        encode(instruction)
    except IllegalInstruction as error:
        return str(error)
    match instruction:
        case Execute():
            return _illegal_execute(instruction, limits)
        case Vector(free_vec=True, scale=False, bias=False, residual=False):
            return "vector.free_vec = 1: must be 0 in an instruction without scale, bias and residual"
        case Store() if instruction.tail_bytes >= limits.port_bytes:
            return (
                f"store.tail_bytes = {instruction.tail_bytes}: must be 0..{limits.port_bytes - 1} "
                f"with beats of {limits.port_bytes} bytes (0 is a whole beat)"
            )
        case _:
            return ""


def _illegal_execute(execute: Execute, limits: Limits) -> str:
    count = len(limits.formats)
    if execute.format >= count:
        names = ", ".join(f"{number} {item.name}" for number, item in enumerate(limits.formats))
        return f"execute.format = {execute.format}: must be below {count} (this machine has {names})"
    form = limits.formats[execute.format]
    if not form.scale:
        for name, value in (("par_at", execute.par_at), ("free_par", int(execute.free_par))):
            if value:
                return f"execute.{name} = {value}: must be 0 for {form.name}, which has no scales"
    if limits.stationary == "os" and execute.m > limits.rows:
        return f"execute.m = {execute.m}: must be at most {limits.rows}, the rows of an output-stationary array"
    if execute.group < execute.k and execute.group % limits.weight_rows:
        return (
            f"execute.group = {execute.group}: must be a multiple of {limits.weight_rows}, which the "
            f"{limits.array_word} takes at once, or at least k = {execute.k}"
        )
    return ""
