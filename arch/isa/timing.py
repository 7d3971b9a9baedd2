"""When the accelerator's parts do things: the constants that the RTL, the simulator and their tests share.

A unit starts an instruction in one cycle and is done with it in a later one; both are counted from the first cycle of
the run. What follows from an instruction alone is here; what depends on others (slots, the memory, the queue) follows
from `network` and `arch.fixed_memory`.
"""

from __future__ import annotations

from bitwright.arch.isa.instructions import Op, Vector
from bitwright.arch.isa.limits import Limits
from bitwright.arch.pe.fixed_point_unit import FixedPointDequantiser
from bitwright.arch.pe.units import GroupDequantiser

IN_FLIGHT = 4
"""Most instructions that a unit has started and not done."""

EXECUTE_FILL = 4
"""From an Execute's start to its first weight row at the array."""

VECTOR_DRAIN = 14
"""From a Vector's last slot of work to its last beat written."""

STORE_FILL = 3
"""From a Store's start to its first address at the memory port."""

FETCH_BYTES = 256
"""A fetch: a chunk of the program, which begins at a multiple of it."""

_CHECK_CYCLES = 4  # multiply, add, compare
_CHECK_EXECUTE_CYCLES = 13  # k by group takes 7, the extents that follow from it 5


def check_cycles(op: Op | None) -> int:
    """From an instruction taken by the fetcher to the first cycle in which its queue can take it; None: no such op.

    A fault that the instruction has, and an End, take effect in that cycle.
    """
    return _CHECK_EXECUTE_CYCLES if op is Op.EXECUTE else _CHECK_CYCLES


def execute_drain(limits: Limits) -> int:
    """From a result at the array's edge to its accumulator written; the last one's cycle is the Execute's last.

    The latency of the unit below a column: correct, scale, add; of a wide fixed-point sum one more to normalise.
    """
    wide = limits.pe.edge_unit == FixedPointDequantiser.name
    return (FixedPointDequantiser if wide else GroupDequantiser).timing.latency_cycles


def vector_lanes(limits: Limits) -> int:
    """Columns that the vector unit takes at once: the fp32 values of a beat."""
    return limits.port_bytes // 4


def vector_slots(vector: Vector, limits: Limits) -> int:
    """Cycles in which a Vector reads; the last is that many after its start."""
    chunks = -(-limits.cols // vector_lanes(limits))
    a_row, a_chunk = vector.scale and not vector.by_column, vector.by_column + vector.bias + vector.residual
    return vector.m * (a_row + chunks * max(1, a_chunk))
