"""What one machine allows a program: its array, its weight formats, the sizes of its slots.

How the machine's buffers become slots. Half of each buffer is one of two slots (`arch.machine.Buffers`), rounded down
to whole units:

    act_kib   all of it activation vectors
    wgt_kib   7/8 weight codes, 1/8 scales and zero points: in balance for 4-bit codes in groups of 28, with zeros 35
    out_kib   1/2 accumulators, 1/4 results, 1/4 fp32 values of the vector unit (bias, token scales, residual)

A slot that its address fields cannot reach is refused, not clipped: a user gets the buffer that the config names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from bitwright.arch import formats as number_formats
from bitwright.arch.array_timing import ONE_ROW, ArrayShape, Shape, WeightLoad
from bitwright.arch.errors import ConfigError
from bitwright.arch.formats.scales import SCALE_BITS
from bitwright.arch.isa.fields import BY_OP
from bitwright.arch.isa.instructions import Op
from bitwright.arch.machine import Machine, Port
from bitwright.arch.pe import broadcast
from bitwright.arch.pe.base import PESpec
from bitwright.arch.pe.int8_mac import Int8Mac
from bitwright.arch.pe.shift_add import ShiftAdd
from bitwright.arch.pe.tile_family import Family
from bitwright.arch.pe.weight_codes import decodable, weight_code

PORT_BYTES: tuple[int, ...] = get_args(Port.model_fields["bytes"].annotation)
REGIONS = 4
# Of these a machine has what its PE takes, unless told.
USUAL_FORMATS = ("fp16", "int8", "int4", "int4_asym", "ovp4", "ovp4_flint", "ovp8")


_OTHER_PARAMETERS = (
    "needs group parameters other than an fp16 scale and a zero point, which the par channel does not carry"
)


class Channel(StrEnum):
    """What flows from one unit to another, in two slots."""

    ACT = "act"  # Load to Execute, in beats
    WGT = "wgt"  # Load to Execute, in beats
    PAR = "par"  # Load to Execute, in beats
    VEC = "vec"  # Load to Vector, in beats
    ACC = "acc"  # Execute to Vector, in rows
    OUT = "out"  # Vector to Store, in beats


@dataclass(frozen=True)
class TileFormat:
    """A weight format as Execute sees it.

    Members
        name : of `arch.formats`
        bits : of an element's code; an element is a value, on machines of outlier-victim a byte of values
        scale : each group has a scale in the par channel
        zero : beside the scale stands a zero point code
        scale_bits : 16, fp16; 8, unsigned, where the PE scales
        selector_bits : of the group's special value, above an 8-bit scale
    """

    name: str
    bits: int
    scale: bool
    zero: bool
    scale_bits: int = 16
    selector_bits: int = 0

    @property
    def zero_bits(self) -> int:
        """Width of a zero point code; 0 without."""
        return number_formats.get(self.name).zero_bits if self.zero else 0

    @property
    def par_bits(self) -> int:
        """Bits of one entry of the par channel; 0 for a format without scale."""
        return self.scale_bits + self.zero_bits + self.selector_bits if self.scale else 0


@dataclass(frozen=True)
class Limits:
    """A machine as its programs see it. Addresses are in beats of `port_bytes` bytes, accumulators in rows.

    Members
        rows, cols, stationary, pe : the array; of a broadcast tile "os" and a spec as `Machine.spec` makes it
        port_bytes : 8, 16, 32 or 64   Width of the memory port: a beat.
        formats : what Execute's field `format` selects, by number
        act_vectors, wgt_beats, par_beats, vec_beats, acc_rows, out_beats : size of one slot of each channel
        load : how weights enter a weight-stationary array
    """

    rows: int
    cols: int
    stationary: Literal["ws", "os"]
    pe: PESpec
    port_bytes: int
    formats: tuple[TileFormat, ...]
    act_vectors: int
    wgt_beats: int
    par_beats: int
    vec_beats: int
    acc_rows: int
    out_beats: int
    load: WeightLoad = ONE_ROW

    @property
    def tile(self) -> Family | None:
        """What a broadcast tile's PE tells of itself; None for a systolic array."""
        return broadcast.tile_of(self.pe)

    @property
    def template(self) -> Literal["systolic", "broadcast"]:
        """What kind of array it is."""
        return "systolic" if self.tile is None else "broadcast"

    @property
    def array_word(self) -> str:
        """What messages call the array."""
        return "array" if self.tile is None else "tile"

    @property
    def lanes(self) -> int:
        """Elements of the reduction that a tile's PEs take at once; 1 in a systolic array."""
        return 1 if self.tile is None else self.tile.lanes

    @property
    def scale_format(self) -> str | None:
        """How weights are encoded for this machine (`formats.encode`); None: as each format is by default."""
        return "int8" if self.scales_by_column else None

    @property
    def skips(self) -> bool:
        """Whether cycles depend on the codes of weights (`isa.tile_cycles`)."""
        return self.tile is not None and self.tile.skips

    @property
    def scales_by_column(self) -> bool:
        """Whether a column has an fp16 scale of its own, which Vector multiplies by: scales of two levels."""
        return self.tile is not None and self.tile.scales_inside

    @property
    def weight_rows(self) -> int:
        """Weight rows (elements of the reduction) that enter at once; a group that ends inside k has a multiple."""
        return self.load.rows if self.tile is None else self.tile.lanes

    @property
    def act_bits(self) -> int:
        """Bits of one activation."""
        return self.pe.act.bits

    @property
    def vector_beats(self) -> int:
        """Beats of one activation vector: `rows` activations, padded."""
        return self.beats(self.rows * self.act_bits)

    @property
    def slice_steps(self) -> int | None:
        """Products that the array sums before an fp32 addition, where no group ends before; None: any number.

        Weight-stationary: the rows of a column; both: the PE's own longest exact sum. A broadcast tile holds any sum.
        """
        longest = longest_sum(self.pe)
        if self.stationary == "os":
            return longest
        return self.rows if longest is None else min(self.rows, longest)

    def array_shape(self, form: TileFormat) -> Shape:
        """What the array's timing depends on while its weights are of one format; steps of a tile that `skips` take
        these cycles or more."""
        if self.tile is not None:
            return self.tile.shape(self.rows, form.name)
        physical = self.cols + (1 if self.pe.zero_point_column else 0)
        return ArrayShape(self.rows, physical, self.stationary == "ws", self.load)

    def beats(self, bits: int) -> int:
        """Whole beats that hold so many bits."""
        return -(-bits // (8 * self.port_bytes))

    def capacity(self, channel: Channel) -> int:
        """Size of one slot, in beats; of acc in rows."""
        return {
            Channel.ACT: self.act_vectors * self.vector_beats,
            Channel.WGT: self.wgt_beats,
            Channel.PAR: self.par_beats,
            Channel.VEC: self.vec_beats,
            Channel.ACC: self.acc_rows,
            Channel.OUT: self.out_beats,
        }[channel]


def limits(machine: Machine, *, port_bytes: int | None = None, formats: Sequence[str] | None = None) -> Limits:
    """What `machine` allows, with a memory port of `port_bytes` and these weight formats, in this order.

    None: the machine's own; without such, of the formats those of USUAL_FORMATS that its PE takes, or a tile's own.
    ConfigError: a port width that does not exist; a format that the PE refuses, or with parameters that the par channel
    does not carry; none, or more than the field `format` can select; a slot too small for one vector or row, or beyond
    its address fields; a tile whose sums could wrap.
    """
    where = f"machine '{machine.name}'"
    port_bytes = machine.port.bytes if port_bytes is None else port_bytes
    formats = machine.formats if formats is None else formats
    if port_bytes not in PORT_BYTES:
        raise ConfigError(f"port_bytes = {port_bytes!r}: must be 8, 16, 32 or 64; {where}")
    spec = machine.spec
    asked = _usual(spec) if formats is None else list(formats)
    most = _values(Op.EXECUTE, "format")
    if not 1 <= len(asked) <= most:
        raise ConfigError(f"formats: {len(asked)} given, must be 1..{most} (an Execute selects one); {where}")
    rows, cols = machine.array.rows, machine.array.cols
    vector_bytes = -(-rows * spec.act.bits // (8 * port_bytes)) * port_bytes
    wgt_bytes, out_bytes = machine.buffers.slot_bytes("wgt"), machine.buffers.slot_bytes("out")
    result = Limits(
        rows=rows,
        cols=cols,
        stationary=machine.array.dataflow.value,
        pe=spec,
        port_bytes=port_bytes,
        formats=tuple(tile_format(spec, name, where) for name in asked),
        act_vectors=machine.buffers.slot_bytes("act") // vector_bytes,
        wgt_beats=wgt_bytes * 7 // 8 // port_bytes,
        par_beats=wgt_bytes // 8 // port_bytes,
        vec_beats=out_bytes // 4 // port_bytes,
        acc_rows=out_bytes // 2 // (4 * cols),
        out_beats=out_bytes // 4 // port_bytes,
        load=machine.array.load,
    )
    if result.slice_steps is not None and result.slice_steps % result.load.rows:
        raise ConfigError(
            f"array.load_rows = {result.load.rows}: must divide {result.slice_steps}, the products that "
            f"{spec.name} sums at a time; {where}"
        )
    _check_sizes(result, where)
    longest = None if result.tile is None else result.tile.longest_elements
    if result.tile is not None and longest is not None and longest < _values(Op.EXECUTE, "k") - 1:
        raise ConfigError(
            f"{spec.name}.{result.tile.sum_parameter}: a sum holds {longest} elements, must hold those of the "
            f"longest Execute, {_values(Op.EXECUTE, 'k') - 1} (make it larger); {where}"
        )
    return result


def tile_format(spec: PESpec, name: str, where: str) -> TileFormat:
    """The format as an Execute of `spec` sees it; ConfigError when the PE or the par channel cannot take it."""
    reason = refusal(spec, name)
    if reason:
        raise ConfigError(f"formats: {name}: {reason}; {where}")
    form, tile = number_formats.get(name), broadcast.tile_of(spec)
    if tile is not None and tile.scales_inside:
        return TileFormat(name, tile.element_bits(name), True, False, SCALE_BITS["int8"], form.selector_bits)
    if tile is not None:
        return TileFormat(name, tile.element_bits(name), scale=True, zero=form.zero_bits > 0)
    if not decodable(name):
        return TileFormat(name, form.bits, scale=False, zero=False)
    return TileFormat(name, form.bits, scale=True, zero=form.zero_bits > 0)


def refusal(spec: PESpec, name: str) -> str:
    """What keeps weights of a format off an array of `spec`; empty when nothing does."""
    accepted = spec.accepts(name, longest_sum(spec))
    if not accepted:
        return accepted.reason
    form, tile = number_formats.get(name), broadcast.tile_of(spec)
    if tile is not None:
        plain = tile.scales_inside or (not form.selector_bits and form.default_scale_format == "fp16")
        return tile.refusal(name) if plain else _OTHER_PARAMETERS
    scaled = decodable(name)
    if scaled and (form.selector_bits or form.default_scale_format != "fp16" or weight_code(name).fraction_bits > 1):
        return _OTHER_PARAMETERS
    return ""


def longest_sum(spec: PESpec) -> int | None:
    """Products of any value that the PE sums without wrapping; None for a float accumulator."""
    if isinstance(spec, Int8Mac):
        return spec.exact_products
    return spec.group if isinstance(spec, ShiftAdd) else None


def _usual(spec: PESpec) -> list[str]:
    """The formats of a machine that is not told any."""
    tile = broadcast.tile_of(spec)
    if tile is not None and tile.usual is not None:
        return list(tile.usual)
    return [name for name in USUAL_FORMATS if _accepts(spec, name)]


def _accepts(spec: PESpec, name: str) -> bool:
    return bool(spec.accepts(name, longest_sum(spec)))


def _values(op: Op, name: str) -> int:
    """How many values a field has."""
    return next(field.most + 1 for field in BY_OP[op].fields if field.name == name)


def _check_sizes(sizes: Limits, where: str) -> None:
    """Every slot holds something useful, and its last unit has an address."""
    row_bits = sizes.cols * 8 * 4
    code_bits = max(sizes.cols * item.bits for item in sizes.formats)
    par_bits = max(sizes.cols * item.par_bits for item in sizes.formats)
    needed = {
        Channel.ACT: ("act_kib", sizes.vector_beats, "one activation vector"),
        Channel.WGT: ("wgt_kib", sizes.beats(code_bits), "one row of weights, in 7/8 of it"),
        Channel.PAR: ("wgt_kib", sizes.beats(par_bits), "one group's scales and zero points, in 1/8 of it"),
        Channel.VEC: ("out_kib", sizes.beats(row_bits), "one row of fp32 values, in 1/4 of it"),
        Channel.ACC: ("out_kib", 1, "one row of accumulators, in 1/2 of it"),
        Channel.OUT: ("out_kib", sizes.beats(row_bits), "one row of fp32 results, in 1/4 of it"),
    }
    load_at = _values(Op.LOAD, "at")
    acc_at = _values(Op.EXECUTE, "acc_at")
    for channel, (buffer, least, what) in needed.items():
        size = sizes.capacity(channel)
        unit = "rows" if channel is Channel.ACC else f"beats of {sizes.port_bytes} bytes"
        most = acc_at if channel is Channel.ACC else load_at
        if size < least:
            raise ConfigError(
                f"buffers.{buffer}: a slot of the {channel} channel has {size} {unit}, must have at least {least}: "
                f"{what}; {where}"
            )
        if size > most:
            raise ConfigError(
                f"buffers.{buffer}: a slot of the {channel} channel has {size} {unit}, an instruction addresses "
                f"{most} (make the buffer smaller or the port wider); {where}"
            )
