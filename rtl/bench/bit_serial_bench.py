"""Channels through the compiled bit-serial PE: slices packed, specials programmed, sums and cycles read back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Shape
from amaranth.lib.data import ArrayLayout
from bitwright.arch.errors import MismatchError
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.stream import Field
from bitwright.arch.pe.terms import Encoding, format_specials, special_code
from bitwright.rtl.bench.bit_serial_model import Slice
from bitwright.rtl.bench.stream.packing import pack, unpack
from bitwright.rtl.bench.verilator import Compiled, Simulation, Stream
from bitwright.rtl.bench.words import Words
from bitwright.rtl.pe import streaming
from bitwright.rtl.pe.bit_serial import SLICE

IntArray = npt.NDArray[np.int64]
SUM_FIELDS = (Field("column", 32),)


def _slice_field(name: str) -> Field:
    shape = SLICE[name].shape
    if isinstance(shape, ArrayLayout):
        return Field(name, Shape.cast(shape.elem_shape).width, shape.length)
    return Field(name, SLICE[name].width)


SLICE_FIELDS = tuple(_slice_field(name) for name in SLICE.members)


@dataclass(frozen=True)
class Channels:
    """Channels of one format: act uint16 [n, K], code [n, K], scale and selector [n, ceil(K / group)]."""

    format: str
    encoding: Encoding
    group: int
    act: npt.NDArray[np.uint16]
    code: IntArray
    scale: IntArray
    selector: IntArray

    def golden(self, spec: BitSerial) -> npt.NDArray[np.uint32]:
        """Their fp32 sums, as bits."""
        sums = spec.channel_sum(
            self.act.view(np.float16), self.code, self.scale, group=self.group, encoding=self.encoding,
            selector=self.selector, specials=format_specials(self.format),
        )  # fmt: skip
        return sums.view(np.uint32)

    def slices(self, lanes: int = BitSerial.lanes) -> Words:
        """The channels as beats of the slice stream, one after the other: words [beats, 4]."""
        depth = self.act.shape[1]
        groups = range(0, depth, self.group)
        return np.stack([
            word
            for index, start in enumerate(groups)
            for word in self._group(index, slice(start, min(start + self.group, depth)), lanes)
        ], axis=1).reshape(-1, 4)  # fmt: skip

    def _group(self, index: int, part: slice, lanes: int) -> list[Words]:
        count = len(self.act)
        fill = (0, 0), (0, (part.start - part.stop) % lanes)
        acts = np.pad(self.act[:, part], fill).reshape(count, -1, lanes)
        codes = np.pad(self.code[:, part], fill).reshape(count, -1, lanes)
        beats, last = acts.shape[1], part.stop == self.act.shape[1]
        return [
            pack_slices(
                acts[:, beat], codes[:, beat], encoding=int(self.encoding), selector=self.selector[:, index],
                scale=self.scale[:, index], group_end=beat == beats - 1, channel_end=last and beat == beats - 1,
            )
            for beat in range(beats)
        ]  # fmt: skip


def pack_slices(act: npt.ArrayLike, code: npt.ArrayLike, **fields: npt.ArrayLike) -> Words:
    """Slices [n] as words [n, 4]: act uint16 [n, 4], code [n, 4]; encoding, selector, scale, group_end, channel_end."""
    acts = np.asarray(act)
    given = {name: np.broadcast_to(np.asarray(values), len(acts)) for name, values in fields.items()}
    return pack(SLICE_FIELDS, {"act": acts, "code": np.asarray(code), **given})


def unpack_slices(words: Words) -> list[Slice]:
    """Words [n, 4] as `pack_slices` makes them, as slices."""
    found = unpack(SLICE_FIELDS, words)
    columns = zip(*(found[field.name].tolist() for field in SLICE_FIELDS), strict=True)
    return [
        Slice(tuple(act), tuple(code), encoding, selector, scale, bool(group_end), bool(channel_end))
        for act, code, encoding, selector, scale, group_end, channel_end in columns
    ]


def random_channels(
    spec: BitSerial, format_name: str, count: int, depth: int, group: int, seed: int, *, wild: bool = False
) -> Channels:
    """Random codes, scales and selectors; activations from a normal distribution, or any finite bits when `wild`."""
    rng = np.random.default_rng(seed)
    encoding = spec.encoding(format_name)
    shape, groups = (count, depth), (count, -(-depth // group))
    act = rng.standard_normal(shape).astype(np.float16).view(np.uint16)
    if wild:
        act = rng.integers(0, 1 << 16, shape).astype(np.uint16)
        act = np.where(act & 0x7C00 == 0x7C00, act & 0x83FF, act).astype(np.uint16)
    code = rng.integers(0, 1 << encoding.code_bits, shape)
    scale, selector = rng.integers(0, 256, groups), rng.integers(0, 4, groups)
    return Channels(format_name, encoding, group, act, code, scale, selector)


def compile_pe(spec: BitSerial) -> Compiled:
    """The PE's Verilog, compiled once a machine."""
    return Compiled(streaming.verilog(spec), spec.module_stem)


def program(running: Simulation, specials: tuple[float, ...]) -> None:
    """Write the special values, one a cycle."""
    codes = [special_code(value) for value in specials]
    running.run({"special_write": 1, "special_index": np.arange(len(codes)), "special_value": codes})


def sums_and_cycles(
    design: Compiled, channels: Channels, *, offers: npt.NDArray[np.bool_] | None = None, seed: int = 1
) -> tuple[npt.NDArray[np.uint32], IntArray]:
    """(fp32 bits of each channel's sum, the cycle in which each was on offer, counted from the first offer).

    Registers power up random; the column is always taken at once. Fewer than all if some never came.
    """
    slices = channels.slices()
    stream = Stream("slice__valid", "slice__ready", {"slice__payload": slices}, offers=offers)
    waiting = 0 if offers is None else len(offers)
    with design.open(random_state=True, seed=seed) as running:
        running.reset()
        program(running, format_specials(channels.format))
        found = running.stream(
            [stream], capture="column__valid", expected=len(channels.act), idle={"column__ready": 1},
            max_cycles=12 * len(slices) + 100 + waiting,
        )  # fmt: skip
    return found.outputs["column__payload"].astype(np.uint32), found.at


def require_channels(channels: Channels, spec: BitSerial, got: npt.NDArray[np.uint32], *, replay: str) -> None:
    """Raise MismatchError at the first channel whose sum is not the golden's, or if some are missing."""
    want = channels.golden(spec)
    kind = f"{channels.format}, groups of {channels.group}"
    if len(got) != len(want):
        raise MismatchError(f"column: {len(got)} sums, must be {len(want)}, {kind}; replay: {replay}")
    wrong = np.flatnonzero(got != want)
    if len(wrong):
        at = int(wrong[0])
        values = [f"{int(bits[at]):#010x} ({bits[at : at + 1].view(np.float32)[0]})" for bits in (got, want)]
        raise MismatchError(
            f"column[{at}] = {values[0]}: must be {values[1]}, {kind}; {len(wrong)} of {len(want)} differ; "
            f"replay: {replay}"
        )
