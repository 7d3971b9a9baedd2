"""The tiling search of MixPE's simulator (of the BitFusion family): sizes that are powers of two, every loop order.

A tile of b rows, o x o positions, ic inputs and oc outputs is computed at a time; five loops walk the tiles. From the
innermost loop outwards an operand grows with each loop that indexes it while it still fits half its buffer; from the
first time it does not, it is read again in every loop outside. Chosen are the fewest cycles, then the least energy:

    cycles = compute + max(0, middle / 1024 - compute) + ceil(first / 1024) + ceil(last / 1024)

with `first` the bits of the tiles resident at the start, `last` those written at the end and `middle` the rest of the
DRAM traffic. Of outputs the artifact never checks whether a tile fits, and forgets the last write as soon as one loop
let it stay (`last` = 0); both are kept.

Source: yuzhang712/mixpe_simulator at 7e0d42c, bitfusion/src/optimizer/optimizer.py and simulator/accelerator.py;
written here anew over arrays of tilings. Every tile counts as a full one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

WGT_BYTES, ACT_BYTES, OUT_BYTES = 128 * 1024, 256 * 1024, 128 * 1024
OUT_BITS = 16
INTERFACE_BITS = 1024  # of DRAM, a cycle
# Which loop indexes what.
WGT_LOOPS, ACT_LOOPS, OUT_LOOPS = {"ic", "oc"}, {"b", "ow", "oh", "ic"}, {"b", "ow", "oh", "oc"}


@dataclass(frozen=True)
class Array:
    """rows x cols PEs; a PE takes floor(widest / bits) operands of each side, at most floor(widest / narrowest)."""

    rows: int
    cols: int
    widest: int
    narrowest: int

    def packed(self, bits: int) -> int:
        """Operands of `bits` a PE takes in one dimension."""
        return self.widest // max(bits, self.narrowest)


@dataclass(frozen=True)
class Layer:
    """out[m, n] = act[m, k] . wgt[n, k], `count` times; with `kernel` a convolution from k channels to out x out."""

    m: int
    k: int
    n: int
    bits: int
    act_bits: int
    count: int
    kernel: int = 1
    out: int = 1


@dataclass(frozen=True)
class Counts:
    """Cycles, and bits moved; of one tiling, or an array of them."""

    cycles: Any
    stalls: Any
    wgt_read: Any
    wgt_write: Any
    act_read: Any
    act_write: Any
    out_read: Any
    out_write: Any
    dram_read: Any
    dram_write: Any

    @classmethod
    def zero(cls) -> Counts:
        """Nothing."""
        return cls(*(0 for _ in fields(cls)))

    def plus(self, other: Counts, times: int) -> Counts:
        """`other` added `times` over."""
        return Counts(*(getattr(self, f.name) + times * getattr(other, f.name) for f in fields(self)))

    def at(self, index: int) -> Counts:
        """One of an array of tilings."""
        return Counts(*(int(getattr(self, f.name)[index]) for f in fields(self)))


def compute_cycles(array: Array, layer: Layer) -> int:
    """Of the layer as one tile."""
    positions = layer.m * layer.out**2
    row_tiles = -(-positions // (array.rows * array.packed(layer.act_bits)))
    col_tiles = -(-layer.n // (array.cols * array.packed(layer.bits)))
    return row_tiles * col_tiles * layer.kernel**2 * layer.k


def best(array: Array, layer: Layer, energy: Callable[[Counts], Any]) -> Counts:
    """The counts of the best tiling and order; `energy` breaks ties."""
    tiles = _Tiles(array, layer)
    # The one position of a matrix product has a loop too: it decides whether an output tile "stayed".
    loops = ("b", "ow", "oh", "ic", "oc") if layer.out > 1 else ("b", "ow", "ic", "oc")
    found: tuple[float, float, Counts] | None = None
    for order in itertools.permutations(loops):
        counts = tiles.counts(order)
        cost = np.asarray(energy(counts))
        fewest = counts.cycles.min()
        index = int(np.where(counts.cycles == fewest, cost, np.inf).argmin())
        if found is None or (fewest, cost[index]) < found[:2]:
            found = (int(fewest), float(cost[index]), counts.at(index))
    assert found is not None, "there is at least one order"
    return found[2]


def _powers(size: int) -> list[int]:
    """1, 2, 4, ... and `size` in the place of the first that is not smaller."""
    return [min(1 << power, size) for power in range((size - 1).bit_length() + 1)]


class _Tiles:
    """Every tiling of a layer whose operands fit half their buffers, as arrays."""

    def __init__(self, array: Array, layer: Layer) -> None:
        sizes = itertools.product(_powers(layer.m), _powers(layer.out), _powers(layer.k), _powers(layer.n))
        b, o, ic, oc = (np.array(column, dtype=np.int64) for column in zip(*sizes, strict=True))
        area = layer.kernel**2
        act_pack, wgt_pack = array.packed(layer.act_bits), array.packed(layer.bits)
        wgt = _padded(area * ic, array.rows * wgt_pack) * oc * layer.bits
        act = o * o * _padded(area * ic, array.cols * act_pack) * b * layer.act_bits
        fits = (wgt <= WGT_BYTES * 4) & (act <= ACT_BYTES * 4)
        b, o, ic, oc = b[fits], o[fits], ic[fits], oc[fits]
        self.wgt, self.act, self.out = wgt[fits], act[fits], o * o * oc * b * OUT_BITS
        positions = _ceil(layer.out, o)
        self.number = {"b": _ceil(layer.m, b), "ow": positions, "oh": positions}
        self.number |= {"ic": _ceil(layer.k, ic), "oc": _ceil(layer.n, oc)}
        tiles = np.prod([self.number[loop] for loop in self.number], axis=0)
        results = tiles * (oc * o * o * b)
        self.compute = tiles * _ceil(b * o * o, array.rows * act_pack) * _ceil(oc, array.cols * wgt_pack) * area * ic
        self.act_read = results * area * ic * layer.act_bits
        self.wgt_read = results * area * ic * layer.bits
        self.out_words = results * OUT_BITS

    def counts(self, order: tuple[str, ...]) -> Counts:
        """Of every tiling under one order of loops, outermost first."""
        wgt, wgt_first, _ = self._grown(self.wgt, order, WGT_LOOPS, WGT_BYTES)
        act, act_first, _ = self._grown(self.act, order, ACT_LOOPS, ACT_BYTES)
        out, _, stayed = self._grown(self.out, order, OUT_LOOPS, OUT_BYTES)
        last = np.where(stayed, 0, self.out)
        first = wgt_first + act_first
        ends = _ceil(first, INTERFACE_BITS) + _ceil(last, INTERFACE_BITS)
        middle = _ceil(wgt + act + out - first - last, INTERFACE_BITS)
        stalls = np.maximum(0, middle - self.compute) + ends
        return Counts(
            cycles=self.compute + stalls,
            stalls=stalls,
            wgt_read=self.wgt_read,
            wgt_write=wgt,
            act_read=self.act_read,
            act_write=act,
            out_read=out + self.out_words,
            out_write=self.out_words,
            dram_read=wgt + act,
            dram_write=out,
        )

    def _grown(self, size: Any, order: tuple[str, ...], indexed: set[str], capacity: int) -> tuple[Any, Any, Any]:
        """(bits through DRAM, largest that stayed resident, whether it ever fitted) of one operand."""
        moved, resident = size, size
        inside = np.ones(size.shape, dtype=bool)
        stayed = np.zeros(size.shape, dtype=bool)
        for loop in reversed(order):
            number = self.number[loop]
            if loop in indexed:
                moved = moved * number
                now = inside & (moved <= capacity * 4)
                resident = np.where(now, moved, resident)
                stayed |= now
                inside = now
            else:
                moved = np.where(inside, moved, moved * number)
        return moved, resident, stayed


def _ceil(a: Any, b: Any) -> Any:
    return -(-a // b)


def _padded(size: Any, unit: int) -> Any:
    return _ceil(size, unit) * unit
