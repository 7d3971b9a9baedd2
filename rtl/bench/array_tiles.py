"""Single tiles of any machine's array, as beats of its three streams, with the vectors that must come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe import StreamSpec
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.fp16_mac import canonical
from bitwright.arch.pe.terms import Encoding
from bitwright.rtl.array.asynchronous import AsynchronousTile
from bitwright.rtl.array.bit_serial_tile import specials_value
from bitwright.rtl.array.broadcast import BroadcastTile
from bitwright.rtl.array.systolic import SystolicArray
from bitwright.rtl.bench import array_runner, broadcast_runner
from bitwright.rtl.bench.array_golden import bits_of, expected, random_operands
from bitwright.rtl.bench.broadcast_runner import TileWork
from bitwright.rtl.bench.verilator import Stream

Beat = Mapping[str, int]
"""Port -> its value in a beat."""
SPECIALS = (3.0, -3.0, 6.0, -6.0)
"""Of bit-serial tiles: BitMoD's special values of three bits."""


@dataclass(frozen=True)
class ArrayTile:
    """A tile of m tokens, and what it gives.

    Members
        command : of its tile stream
        wgt, act : beats in their order
        pairs : bool             A beat of weights and one of activations go together (output stationary); else all
            weights go before the first activation.
        sums : m vectors, each `psum_data` as one integer
    """

    command: Beat
    wgt: Sequence[Beat]
    act: Sequence[Beat]
    pairs: bool
    sums: Sequence[int]


def random_tile(array: SystolicArray | BroadcastTile, rng: np.random.Generator, m: int, k: int) -> ArrayTile:
    """A tile of random operands, over their whole range, of m tokens by k elements, all columns in use.

    Results by the golden of the array's PE. Modes, special values, scales and selectors are random where the array has
    them; `wgt_unsigned` is 0.
    """
    if isinstance(array, SystolicArray):
        spec = array.spec
        wgt, act = random_operands(spec, rng, m, k, array.cols)
        program = array_runner.streams(spec, array.rows, array.dataflow, [(m, k)], [wgt], [act], array.load.rows)
        return _tile(program, array.dataflow == "os", bits_of(expected(spec, wgt, act)), spec.psum.bits)
    work, sums = _broadcast(array, rng, m, k)
    program = broadcast_runner.streams(array.family, array.rows, [work])
    return _tile(program, True, sums, array.family.psum_bits)


def _broadcast(array: BroadcastTile, rng: np.random.Generator, m: int, k: int) -> tuple[TileWork, npt.NDArray[Any]]:
    """A tile's operands and its sums [m, cols]."""
    spec, family, cols = array.spec, array.family, array.cols
    if isinstance(spec, BitSerial):
        act = rng.integers(0, 1 << 15, (k, m)) % (0x1F << 10) | rng.integers(0, 2, (k, m)) << 15  # finite
        par = rng.integers(0, 256, cols) | rng.integers(0, len(SPECIALS), cols) << 8
        encoding = Encoding(int(rng.integers(0, len(Encoding))))
        work = TileWork(act, rng.integers(0, 256, (k, cols)), int(encoding), specials_value(SPECIALS), par)
        pairs = m, cols, k
        values = np.broadcast_to(act.T.astype(np.uint16).view(np.float16)[:, np.newaxis], pairs)
        options: dict[str, Any] = {"encoding": encoding, "selector": par >> 8, "specials": SPECIALS}
        sums = spec.group_sum(values, np.broadcast_to(work.wgt.T, pairs), **options)
        return work, (canonical(spec.scaled(sums, par & 255)) + np.float32(0)).view(np.uint32)
    if isinstance(array, AsynchronousTile):
        act, wgt = rng.integers(-128, 128, (k, m)), rng.integers(-128, 128, (k, cols))
        return TileWork(act, wgt, 0), act.T @ wgt
    assert isinstance(spec, StreamSpec)
    planes = spec.params.get("weight_bits", 2)  # outlier-victim: narrow or wide
    mode = 0 if family.mode_field is None else int(rng.integers(0, planes))
    act = rng.integers(0, 1 << spec.act.bits, (k, m))
    if family.whole:
        act -= 1 << spec.act.bits - 1
    work = TileWork(act, rng.integers(0, 1 << family.code_bits, (k, cols)), mode)
    return work, broadcast_runner.golden(spec, work)[0]


def _tile(program: tuple[Stream, Stream, Stream], pairs: bool, sums: npt.NDArray[Any], bits: int) -> ArrayTile:
    command, wgt, act = (_beats(stream) for stream in program)
    return ArrayTile(command[0], wgt, act, pairs, [_packed(row, bits) for row in sums])


def _beats(stream: Stream) -> list[Beat]:
    ports = {name: np.asarray(values) for name, values in stream.payload.items()}
    count = len(next(iter(ports.values())))
    return [{name: _value(values[beat]) for name, values in ports.items()} for beat in range(count)]


def _value(given: npt.NDArray[Any]) -> int:
    """What a port is driven with, from the words of a wide one or the integer of one of at most 64 bits."""
    return _packed(given, 32) if given.ndim else int(given) & (1 << 64) - 1


def _packed(lanes: npt.NDArray[Any], bits: int) -> int:
    """Lanes of so many bits as one integer, the first one lowest."""
    return sum((int(value) & ((1 << bits) - 1)) << bits * lane for lane, value in enumerate(lanes))
