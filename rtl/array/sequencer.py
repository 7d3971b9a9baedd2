"""Tile sequencers: when a tile's beats are taken from the streams and which marks travel with them.

Each sequencer adds its registers to the array's own module (no sub-module: an array is one Verilog module plus
its PE) and hands back what the grid needs. Both reach the timing contract's recurrences with no bubble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.utils import bits_for
from bitwright.arch.array_timing import WeightLoad

TILE_BITS = 16
"""Width of tile_m and tile_k: a tile's rows and depth go up to 65,535."""


@dataclass(frozen=True)
class WeightStationaryMarks:
    """What the weight-stationary grid needs in the cycle of an accepted beat, before any skew.

    row_load : one bit an array row     The beat taken now has this array row's weights.
    row_valid : one bit an array row    The activation taken now has a real lane for this row (row < tile_k).
    first : 1                           The activation taken now is its tile's first: weights change over.
    accept : 1                          An activation vector is taken now.
    last : 1                            It is its tile's last.
    """

    row_load: list[Value]
    row_valid: list[Value]
    first: Value
    accept: Value
    last: Value


@dataclass(frozen=True)
class OutputStationaryMarks:
    """What the output-stationary grid needs, before any skew.

    row_valid : one bit an array row    The element taken now has a real lane for this row (row < tile_m).
    first, last : 1                     It is its tile's first / last element (only looked at where valid).
    drain : 1                           Column 0 shows one result row now and shifts the next one up.
    drain_last : 1                      That row is the tile's last.
    """

    row_valid: list[Value]
    first: Value
    last: Value
    drain: Value
    drain_last: Value


def weight_stationary(m: Module, ports: Any, rows: int, load: WeightLoad) -> WeightStationaryMarks:
    """Loads weight rows and streams activations, one tile ahead.

    Load side: the tile command stays at the head of its stream until the tile's last beat of weights is accepted, so
    the next tile's first beat can follow in the next cycle. Beat 0 of tile t+1 waits until the first activation of
    tile t is accepted (the same cycle is legal: a PE that is loaded and swapped at once takes the old weight); where
    weights are not double-buffered, its last one (in that cycle the weight is used for the last time).
    Stream side: with beat 0, (m, k) of the tile moves into a one-entry queue; beside the counters of the tile that
    is streaming, this makes two tiles in flight, and no more can be.

        L[t+1] >= max(L[t] + ceil(k[t] / load.rows), F[t]);   F[t] = T[t], or T[t] + m[t] - 1;
        T[t] >= max(L[t] + 1, T[t-1] + m[t-1])

    `ports` is the array component (its tile, wgt and act members are driven or read here); `rows` its height.
    """
    k_bits = bits_for(rows)
    wgt_row = Signal(range(max(rows, 2)))
    queued = Signal()
    queued_m = Signal(TILE_BITS, reset_less=True)
    queued_k = Signal(k_bits, reset_less=True)
    vectors_left = Signal(TILE_BITS)
    stream_k = Signal(k_bits, reset_less=True)

    starts = Signal()
    first_accepted = Signal()
    act_accept = Signal()
    wgt_free = Signal()
    wgt_accept = Signal()
    wgt_first = Signal()
    wgt_last = Signal()
    act_last = Signal()
    tile_free = ~queued | first_accepted if load.double_buffered else act_last | ~(queued | vectors_left.any())

    m.d.comb += [
        wgt_first.eq(~wgt_row.any()),
        wgt_free.eq(~wgt_first | tile_free),
        ports.wgt_ready.eq(ports.tile_valid & wgt_free),
        wgt_accept.eq(ports.wgt_valid & ports.wgt_ready),
        wgt_last.eq(wgt_row + load.rows >= ports.tile_k if load.rows > 1 else wgt_row + 1 == ports.tile_k),
        ports.tile_ready.eq(wgt_accept & wgt_last),
    ]
    with m.If(wgt_accept):
        m.d.sync += wgt_row.eq(Mux(wgt_last, 0, wgt_row + load.rows))

    m.d.comb += [
        starts.eq(~vectors_left.any() & queued),
        ports.act_ready.eq(vectors_left.any() | queued),
        act_accept.eq(ports.act_valid & ports.act_ready),
        first_accepted.eq(ports.act_valid & starts),
    ]
    k_now = Signal(k_bits)
    m_now = Signal(TILE_BITS)
    m.d.comb += [k_now.eq(Mux(starts, queued_k, stream_k)), m_now.eq(Mux(starts, queued_m, vectors_left))]
    with m.If(act_accept):
        m.d.sync += [vectors_left.eq(m_now - 1), stream_k.eq(k_now)]

    with m.If(wgt_accept & wgt_first):
        m.d.sync += [queued.eq(1), queued_m.eq(ports.tile_m), queued_k.eq(ports.tile_k)]
    with m.Elif(first_accepted):
        m.d.sync += queued.eq(0)

    m.d.comb += act_last.eq(act_accept & (m_now == 1))
    first_rows = [row - row % load.rows for row in range(rows)]
    return WeightStationaryMarks(
        row_load=_named(m, "wgt_load", [wgt_accept & (wgt_row == row if row else wgt_first) for row in first_rows]),
        row_valid=_named(m, "act_valid", [act_accept & (k_now > row) if row else act_accept for row in range(rows)]),
        first=first_accepted,
        accept=act_accept,
        last=act_last,
    )


def output_stationary(m: Module, ports: Any, rows: int) -> OutputStationaryMarks:
    """Joins the two operand streams element by element and spaces the drains.

    The tile command stays at the head of its stream until the tile's last element is accepted. The drain of a
    tile that ended in cycle E runs in cycles E+m .. E+2m-1; `drain_left` counts 2m-1 .. 1 from cycle E+1 on and is
    at most m exactly there. The next tile's last element may not come before E+2m-1, when row 0 shows its last result;
    so its first one waits until `drain_left` <= its depth:

        S[t+1] = max(E[t] + 1, E[t] + (2 m[t] - 1) - k[t+1] + 1),   E[t] = S[t] + k[t] - 1

    `ports` is the array component (its tile, wgt and act members are driven or read here); `rows` its height.
    """
    drain_bits = bits_for(2 * rows - 1)
    element = Signal(TILE_BITS)
    drain_left = Signal(drain_bits)
    drain_rows = Signal(bits_for(rows), reset_less=True)

    go = Signal()
    accept = Signal()
    first = Signal()
    last = Signal()
    m.d.comb += [
        first.eq(~element.any()),
        last.eq(element + 1 == ports.tile_k),
        go.eq(ports.tile_valid & (~first | (drain_left <= ports.tile_k))),
        ports.act_ready.eq(go & ports.wgt_valid),
        ports.wgt_ready.eq(go & ports.act_valid),
        accept.eq(go & ports.act_valid & ports.wgt_valid),
        ports.tile_ready.eq(accept & last),
    ]
    with m.If(accept):
        m.d.sync += element.eq(Mux(last, 0, element + 1))

    with m.If(accept & last):
        m.d.sync += [drain_left.eq((ports.tile_m << 1) - 1), drain_rows.eq(ports.tile_m)]
    with m.Elif(drain_left.any()):
        m.d.sync += drain_left.eq(drain_left - 1)

    drain = Signal()
    drain_last = Signal()
    m.d.comb += [drain.eq(drain_left.any() & (drain_left <= drain_rows)), drain_last.eq(drain_left == 1)]
    return OutputStationaryMarks(
        row_valid=_named(m, "act_valid", [accept & (ports.tile_m > row) if row else accept for row in range(rows)]),
        first=first,
        last=last,
        drain=drain,
        drain_last=drain_last,
    )


def _named(m: Module, name: str, values: list[Value]) -> list[Value]:
    """One-bit `values` as signals `<name>_r0`, `<name>_r1`, ..."""
    signals = [Signal(name=f"{name}_r{row}") for row in range(len(values))]
    m.d.comb += [signal.eq(value) for signal, value in zip(signals, values, strict=True)]
    return list(signals)
