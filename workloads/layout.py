"""Where a matrix product stands in the accelerator's memory and slots: block sizes, addresses, bytes.

A block is m tokens by k elements of the reduction by n outputs; its weights are column tiles, each as wide as the
array. Every block of a channel is contiguous in memory and whole beats long, so that one Load brings it:

    region 0   activations: for each m block, for each k block, its vectors as Execute wants them
    region 1   for each n block, for each k block: the codes of its tiles, then (where a group begins) its tiles' scales
               and zero points
    region 2   token scales of each m block, padded to beats where a Vector ends; then of each n block the scales of its
               columns (where the PE takes 8-bit ones of groups) and its biases, a row a tile
    region 3   results: a row a token, in it a padded row for each tile

What fills up is zero: columns beyond n have code 0 and scale 0, lanes beyond a slice hold 0.

On a broadcast tile the reduction is counted in elements (`arch.pe.broadcast`), all sizes along k are.

Cutting the reduction. A k block is a number of whole groups; or it lies inside one group, where it is a number of whole
slices (`Limits.slice_steps`), so that the sums are the same. Where an output-stationary array sums a group that the
buffers cannot hold, there is no such slice: then k blocks are slices of their own (`Job.pass_depth`), of whole steps
of a broadcast tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.arithmetic import cut
from bitwright.arch.isa.extents import FP32_BITS, VALUE_BITS, slice_count
from bitwright.arch.isa.fields import WORD_BYTES
from bitwright.arch.isa.instructions import NumberType
from bitwright.arch.isa.limits import Channel, Limits, TileFormat, longest_sum
from bitwright.arch.isa.packing import pack, pack_par
from bitwright.arch.isa.placement import INDEX_BITS
from bitwright.workloads.tiling import Fabric, Span, Tiling, halvings, spans, state_after
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_Item = TypeVar("_Item", bound=np.generic)
Results = NDArray[np.float32 | np.float16 | np.int8]
ACT_REGION, WGT_REGION, VEC_REGION, OUT_REGION = range(4)
_MOST_TOKENS, _MOST_ELEMENTS, _MOST_BEATS = 4095, 16383, 65535  # fields m, k and beats
_BUFFERS = {Channel.ACT: "act_kib", Channel.WGT: "wgt_kib", Channel.PAR: "wgt_kib"}
_TYPES = {NumberType.FP32: "<f4", NumberType.FP16: "<f2", NumberType.INT8: "i1"}


@dataclass(frozen=True)
class Job:
    """act[m, k] . wgt[n, k] on a machine, without its numbers: `tiling.Blocks`.

    Members
        limits : the machine
        m, k, n : tokens, reduction (in elements), outputs
        number : of the weight format in `limits.formats`
        group : 1..k   Elements along the reduction that share a scale.
        scaled, biased : whether there are token scales, biases
        to : number type of the results
    """

    limits: Limits
    m: int
    k: int
    n: int
    number: int
    group: int
    scaled: bool
    biased: bool
    to: NumberType = NumberType.FP32

    @property
    def form(self) -> TileFormat:
        """The weight format."""
        return self.limits.formats[self.number]

    @property
    def values(self) -> int:
        """Values of the reduction that an element stands for."""
        tile = self.limits.tile
        return 1 if tile is None else tile.values(self.form.name)

    @property
    def output_bits(self) -> int:
        """Of one result."""
        return VALUE_BITS[self.to]

    @property
    def fabric(self) -> Fabric:
        """The array."""
        return Fabric(self.limits.array_shape(self.form), self.limits.cols, longest_sum(self.limits.pe))

    @property
    def store_rows(self) -> int:
        """Rows of results that one Vector makes: what an out slot holds."""
        return max(1, min(_MOST_TOKENS, self.limits.out_beats // self.out_row_beats))

    @property
    def out_row_beats(self) -> int:
        """Beats of a tile's row of results."""
        return self.limits.beats(self.limits.cols * self.output_bits)

    @property
    def by_column(self) -> bool:
        """Whether there are scales of columns."""
        return self.limits.scales_by_column

    @property
    def column_row_beats(self) -> int:
        """Beats of a tile's biases, or of its columns' scales."""
        return self.limits.beats(self.limits.cols * FP32_BITS)

    def tiles(self, n: int) -> int:
        """Column tiles of n outputs."""
        return -(-n // self.limits.cols)

    def groups(self, k: int) -> int:
        """Groups of a block of k elements."""
        return -(-k // self.group)

    def tile_beats(self, k: int) -> int:
        """Beats of the codes of a tile k deep."""
        return self.limits.beats(k * self.limits.cols * self.form.bits)

    def par_beats(self, k: int) -> int:
        """Beats of the scales and zero points of a tile k deep; 0 for a format without."""
        return self.limits.beats(self.groups(k) * self.limits.cols * self.form.par_bits)

    def act_beats(self, m: int, k: int) -> int:
        """Beats of the activations of a block."""
        limits = self.limits
        if limits.stationary == "os":
            vectors = -(-m // limits.rows) * k
        else:
            vectors = m * slice_count(k, min(self.group, k), limits.slice_steps)
        return vectors * limits.vector_beats

    def scale_beats(self, m: int) -> int:
        """Beats of the token scales of m tokens."""
        if not self.scaled:
            return 0
        whole, rest = divmod(m, self.store_rows)
        return whole * self.limits.beats(self.store_rows * FP32_BITS) + self.limits.beats(rest * FP32_BITS)

    def column_beats(self, n: int) -> int:
        """Beats of the scales and biases of n outputs."""
        return self.tiles(n) * self.column_row_beats * (self.by_column + self.biased)

    def needs(self, m: int, k: int, n: int) -> dict[Channel, int]:
        """What a block takes of a slot of each channel."""
        tiles = self.tiles(n)
        return {
            Channel.ACT: self.act_beats(m, k),
            Channel.WGT: tiles * self.tile_beats(k),
            Channel.PAR: tiles * self.par_beats(k),
            Channel.VEC: self.scale_beats(m) + self.column_beats(n),
            Channel.ACC: m * tiles,
            Channel.OUT: self.out_row_beats,
        }

    def room(self, channel: Channel) -> int:
        """What a block may take of a slot: one Load must bring it."""
        return min(self.limits.capacity(channel), _MOST_BEATS)

    def fits(self, m: int, k: int, n: int) -> bool:
        """Whether a block fits its slots and its fields."""
        if k > _MOST_ELEMENTS or m > _MOST_TOKENS:
            return False
        return all(need <= self.room(channel) for channel, need in self.needs(m, k, n).items())

    def sizes(self, m: int, k: int, n: int) -> dict[str, int]:
        """Bytes of a block's operands and results."""
        needs, port = self.needs(m, k, n), self.limits.port_bytes
        weights = needs[Channel.WGT] + needs[Channel.PAR]
        out = m * self.tiles(n) * self.out_row_beats
        return {"act": needs[Channel.ACT] * port, "wgt": weights * port, "out": out * port}

    def executes(self, m: int, n: int) -> int:
        """Instructions that a block takes of the Execute unit."""
        return self.tiles(n) * (-(-m // self.limits.rows) if self.limits.stationary == "os" else 1)

    def program_bytes(self, m: int, k: int, n: int) -> int:
        """Loads and Executes of a block; Vectors and Stores are as many whatever the blocks are."""
        return WORD_BYTES * (3 + self.executes(m, n))

    def block_cycles(self, m: int, k: int, n: int) -> int:
        """Cycles from a block to the next: its weights and its activations taken."""
        state = state_after(self.fabric, min(self.group, k), m, k, n)
        return max(state.weights_free, state.stream_free)

    def k_spans(self, k: int) -> list[Span]:
        """The reduction in blocks of k: whole groups, or pieces of every group."""
        if k >= self.group:
            return spans(self.k, k)
        return [(first + start, size) for first, group in spans(self.k, self.group) for start, size in spans(group, k)]

    def k_sizes(self) -> list[int]:
        """Sizes of k blocks, the largest first."""
        whole, steps = halvings(self.k, self.group), self.limits.slice_steps
        if steps is not None and steps < self.group:
            return whole + halvings(self.group, steps)[1:]
        if self.fits(1, whole[-1], 1):
            return whole
        pieces = halvings(self.group, self.limits.weight_rows)  # the longest that fits one tile: of the machine alone
        return [*whole, next((k for k in pieces if self.fits(1, k, 1)), pieces[-1])]

    def m_sizes(self) -> list[int]:
        """Sizes of m blocks, the largest first."""
        if self.limits.stationary == "ws":
            return halvings(self.m, 1)
        return halvings(self.m, self.limits.rows) + halvings(min(self.m, self.limits.rows), 1)[1:]

    def pass_depth(self, k: int) -> int | None:
        """With k blocks of k: elements summed before an fp32 addition, where no group ends before (`linear.cut`)."""
        steps = self.limits.slice_steps
        return k if k < self.group and (steps is None or steps > k) else steps

    def check(self, tiling: Tiling) -> None:
        """ConfigError for blocks that do not fit, or that cut tiles, groups or slices."""
        what = f"tiling = {tiling.m} x {tiling.k} x {tiling.n}"
        if min(tiling.m, tiling.k, tiling.n) < 1 or tiling.m > self.m or tiling.k > self.k or tiling.n > self.n:
            raise ConfigError(f"{what}: must be within 1 x 1 x 1 .. {self.m} x {self.k} x {self.n}")
        if tiling.n != self.n and tiling.n % self.limits.cols:
            raise ConfigError(f"{what}: n must be {self.n} or a multiple of the array's {self.limits.cols} columns")
        unit = self.group if tiling.k >= self.group else self.pass_depth(tiling.k)
        if tiling.k != self.k and unit is not None and tiling.k % unit:
            raise ConfigError(f"{what}: k must be {self.k} or a multiple of {unit}, to begin where a slice does")
        if tiling.k != self.k and tiling.k % self.limits.weight_rows:
            at_once = f"{self.limits.weight_rows}, which the {self.limits.array_word} takes at once"
            raise ConfigError(f"{what}: k must be {self.k} or a multiple of {at_once}")
        if tiling.k > _MOST_ELEMENTS or tiling.m > _MOST_TOKENS:
            raise ConfigError(f"{what}: an Execute takes m up to {_MOST_TOKENS} and k up to {_MOST_ELEMENTS}")
        self.check_room(tiling.m, tiling.k, tiling.n, "make the blocks smaller")

    def check_length(self) -> None:
        """ConfigError for more instructions than a program can have."""
        tokens, elements = max(1, min(_MOST_TOKENS, self.room(Channel.ACC))), _MOST_ELEMENTS
        least = self.tiles(self.n) * -(-self.m // tokens) * -(-self.k // elements)
        if least >= 1 << INDEX_BITS:
            raise ConfigError(
                f"{self.m} x {self.k} x {self.n}: at least {least} instructions, and a program has at most "
                f"{(1 << INDEX_BITS) - 1} (cut the product into several)"
            )

    def check_room(self, m: int, k: int, n: int, advice: str) -> None:
        """ConfigError naming the buffer whose slot is too small for a block."""
        for channel, need in self.needs(m, k, n).items():
            if need > self.room(channel):
                unit = "rows" if channel is Channel.ACC else f"beats of {self.limits.port_bytes} bytes"
                raise ConfigError(
                    f"buffers.{_BUFFERS.get(channel, 'out_kib')}: a slot of the {channel} channel gives a block "
                    f"{self.room(channel)} {unit}, one of {m} x {k} x {n} ({self.form.name}) needs {need}; {advice}"
                )


@dataclass(frozen=True)
class Place:
    """Beats of a region: what one Load brings."""

    offset: int
    beats: int


class Layout:
    """A job cut by a tiling: every block's place in memory, the regions' bytes, and the results taken out of them.

    Members
        m_spans, k_spans, n_spans : the blocks along each axis
        acts[m0, k0], codes[k0, n0], scales[m0], columns[n0] : Place of the block that begins there
        pars[g, n0] : Place of the scales and zero points of a k block whose first group is g
        region_beats : size of the four regions
    """

    def __init__(self, job: Job, tiling: Tiling) -> None:
        job.check(tiling)
        self.job, self.tiling = job, tiling
        self.m_spans, self.n_spans = spans(job.m, tiling.m), spans(job.n, tiling.n)
        self.k_spans = job.k_spans(tiling.k)
        self.acts: dict[tuple[int, int], Place] = {}
        self.codes: dict[tuple[int, int], Place] = {}
        self.pars: dict[tuple[int, int], Place] = {}
        self.scales: dict[int, Place] = {}
        self.columns: dict[int, Place] = {}
        ends = [0, 0, 0]

        def place(region: int, beats: int) -> Place:
            ends[region] += beats
            return Place(ends[region] - beats, beats)

        for m0, m in self.m_spans:
            for k0, k in self.k_spans:
                self.acts[m0, k0] = place(ACT_REGION, job.act_beats(m, k))
            self.scales[m0] = place(VEC_REGION, job.scale_beats(m))
        for n0, n in self.n_spans:
            for k0, k in self.k_spans:
                self.codes[k0, n0] = place(WGT_REGION, job.tiles(n) * job.tile_beats(k))
                if (k0 // job.group, n0) not in self.pars:
                    self.pars[k0 // job.group, n0] = place(WGT_REGION, job.tiles(n) * job.par_beats(k))
            self.columns[n0] = place(VEC_REGION, job.column_beats(n))
        self.region_beats = (*ends, job.m * self.pitch)

    @property
    def pitch(self) -> int:
        """Beats from a token's results to the next token's."""
        return self.job.tiles(self.job.n) * self.job.out_row_beats

    def act_image(self, acts: NDArray[np.int8] | NDArray[np.float16]) -> Bytes:
        """Region 0 of activations [m, k]."""
        image, job = self._zeros(ACT_REGION), self.job
        length = job.limits.rows * job.limits.act_bits // 8
        for m0, m in self.m_spans:
            for k0, k in self.k_spans:
                vectors = np.concatenate(list(self._vectors(acts[m0 : m0 + m, k0 : k0 + k])))
                rows = vectors.astype(vectors.dtype.newbyteorder("<"), copy=False).view(np.uint8)
                place = self.acts[m0, k0]
                beats = image[place.offset : place.offset + place.beats].reshape(len(rows), -1)
                beats[:, :length] = rows
        return image.reshape(-1)

    def _vectors(
        self, acts: NDArray[np.int8] | NDArray[np.float16]
    ) -> Iterator[NDArray[np.int8] | NDArray[np.float16]]:
        """A block's vectors [.., rows], in the order of `docs/isa.md`."""
        limits, (m, k) = self.job.limits, acts.shape
        if limits.stationary == "os":
            for first, size in spans(m, limits.rows):
                vectors = np.zeros((k, limits.rows), acts.dtype)
                vectors[:, :size] = acts[first : first + size].T
                yield vectors
        else:
            slices = cut(k, min(self.job.group, k), limits.slice_steps)
            vectors = np.zeros((slices.count, m, limits.rows), acts.dtype)
            vectors[slices.of, :, slices.lane] = acts.T
            yield vectors.reshape(-1, limits.rows)

    def weight_image(
        self,
        codes: NDArray[np.uint8] | NDArray[np.uint16],
        scales: NDArray[np.float16] | NDArray[np.uint8] | None,
        zeros: NDArray[np.uint8] | None,
    ) -> Bytes:
        """Region 1 of codes [n, k] of elements and, for a format that has them, scales and zero points or selectors
        [n, groups]."""
        image, job = self._zeros(WGT_REGION), self.job
        for n0, n in self.n_spans:
            for k0, k in self.k_spans:
                place = self.codes[k0, n0]
                tiles = [
                    pack(self._columns(codes, first, k0, k), job.form.bits) for first in self._firsts(n0, job.tiles(n))
                ]
                self._fill(image, place, tiles)
                if scales is not None and k0 % job.group == 0:
                    g, count = k0 // job.group, job.groups(k)
                    entries = []
                    for first in self._firsts(n0, job.tiles(n)):
                        codes_of_zero = None if zeros is None else self._columns(zeros, first, g, count)
                        entries.append(_entries(job.form, self._columns(scales, first, g, count), codes_of_zero))
                    self._fill(image, self.pars[g, n0], entries)
        return image.reshape(-1)

    def vec_image(self, scales: NDArray[np.float32] | None, *columns: NDArray[np.float32] | None) -> Bytes:
        """Region 2 of token scales [m] and numbers of columns [n]: their scales, biases."""
        image, job = self._zeros(VEC_REGION), self.job
        if scales is not None:
            for m0, m in self.m_spans:
                at = self.scales[m0].offset
                for first, size in spans(m, job.store_rows):
                    beats = job.limits.beats(size * FP32_BITS)
                    row = scales[m0 + first : m0 + first + size].astype("<f4").tobytes()
                    self._fill(image, Place(at, beats), [row])
                    at += beats
        present = [numbers.astype("<f4") for numbers in columns if numbers is not None]
        for n0, n in self.n_spans if present else ():
            firsts = self._firsts(n0, job.tiles(n))
            rows = [numbers[first : first + job.limits.cols].tobytes() for numbers in present for first in firsts]
            self._fill(image, self.columns[n0], rows)
        return image.reshape(-1)

    def out_image(self) -> Bytes:
        """Region 3 before the run: zeros."""
        return self._zeros(OUT_REGION).reshape(-1)

    def read(self, region: Bytes) -> Results:
        """The results [m, n] out of region 3."""
        job = self.job
        rows: Results = region.reshape(job.m * job.tiles(job.n), -1).view(_TYPES[job.to])[:, : job.limits.cols]
        return rows.reshape(job.m, -1)[:, : job.n].astype(rows.dtype.newbyteorder("="))

    def _zeros(self, region: int) -> Bytes:
        return np.zeros((self.region_beats[region], self.job.limits.port_bytes), np.uint8)

    def _firsts(self, n0: int, tiles: int) -> range:
        """The first output of each tile of a block."""
        return range(n0, n0 + tiles * self.job.limits.cols, self.job.limits.cols)

    def _columns(self, matrix: NDArray[_Item], first: int, start: int, count: int) -> NDArray[_Item]:
        """Columns start.. of a tile's rows of a matrix [n, ..], as [count, cols] with zeros beyond the last row."""
        cols = self.job.limits.cols
        tile = np.zeros((count, cols), matrix.dtype)
        part = matrix[first : first + cols, start : start + count].T
        tile[:, : part.shape[1]] = part
        return tile

    @staticmethod
    def _fill(image: Bytes, place: Place, parts: list[bytes]) -> None:
        """Equal parts of a place, each with what follows up to whole beats left as it is."""
        target = image[place.offset : place.offset + place.beats].reshape(len(parts), -1)
        for row, part in zip(target, parts, strict=True):
            row[: len(part)] = np.frombuffer(part, np.uint8)


def _entries(form: TileFormat, scales: NDArray[np.generic], others: NDArray[np.uint8] | None) -> bytes:
    """Entries of the par channel: fp16 scales and zero point codes, or unsigned 8-bit scales and selectors."""
    if scales.dtype == np.float16:
        return pack_par(scales.astype(np.float16, copy=False), others, form.zero_bits)
    above = 0 if others is None else others.astype(np.uint16) << np.uint16(form.scale_bits)
    return pack(scales.astype(np.uint16) | above, form.par_bits)
