# amaranth: UnusedElaboratable=no
# (a top is made only to ask what its frames hold)
"""A machine's array alone on a board (`fpga.array_top`), driven over its serial line: what `fpga run --array` does.

Tile after tile of random operands, every sum compared with the golden of the array's PE. The line has no CRC: a byte
that it loses is a result that does not come, and one that it changes is a sum that differs. Neither is taken for right.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from bitwright.arch.errors import BoardError, ConfigError, MismatchError
from bitwright.arch.machine import Machine
from bitwright.fpga import array_top
from bitwright.fpga.array_top import ArrayTop
from bitwright.fpga.host.driver import BAUD, serial_port
from bitwright.fpga.host.link import CHARACTER_BITS, SerialPort
from bitwright.fpga.host.products import Progress
from bitwright.fpga.host.running import SCHEMA_VERSION, SIMULATED, SimulationBoard
from bitwright.rtl.array.systolic import SystolicArray
from bitwright.rtl.bench.array_tiles import ArrayTile, Beat, random_tile

_TIMEOUT_S, _SIMULATED_TIMEOUT_S = 2, 20
_MOST = 65535
"""Tokens or elements of a tile, whichever the array does not bound."""


@dataclass
class ArrayHost:
    """The host's end of the line.

    Parameters
        top : the design on the board
        port : open
        name, baud : of the port
        timeout_s : silence after which a result does not come any more
    Members
        bytes_sent, bytes_received : so far
    """

    top: ArrayTop
    port: SerialPort
    name: str
    baud: int
    timeout_s: float
    bytes_sent: int = 0
    bytes_received: int = 0

    def run(self, tile: ArrayTile, where: str) -> None:
        """Send a tile and compare every sum. BoardError for one that does not come, MismatchError for a wrong one."""
        begin = {**tile.command, "tile_valid": 1}
        room = max(4, self.top.array.rows)  # of results that wait on the board
        if tile.pairs:
            for wgt, act in zip(tile.wgt, tile.act, strict=True):
                self._send({**begin, **wgt, **act, "wgt_valid": 1, "act_valid": 1})
                begin["tile_valid"] = 0
            self._compare(tile, 0, len(tile.sums), where)
            return
        for wgt in tile.wgt:
            self._send({**begin, **wgt, "wgt_valid": 1})
            begin["tile_valid"] = 0
        for start in range(0, len(tile.act), room):
            some = tile.act[start : start + room]
            for act in some:
                self._send({**begin, **act, "act_valid": 1})
            self._compare(tile, start, start + len(some), where)

    def finish(self) -> None:
        """That the board says no more than it was asked for."""
        if self.port.read(1):
            raise BoardError(f"{self.name}: the board sends more than it was asked for; {self._advice()}")

    def _advice(self) -> str:
        return (
            f"is the array of {self.top.machine.name} on it (bitwright fpga build --array, program)? A byte that the "
            "line loses leaves it in mid frame: press its reset button and run again"
        )

    def _send(self, beat: Beat) -> None:
        word = at = 0
        for name in self.top.inputs:
            word |= beat.get(name, 0) << at
            at += len(getattr(self.top.array, name))
        try:
            self.port.write(word.to_bytes(self.top.frame_bytes, "little"))
        except OSError as error:
            raise BoardError(f"{self.name}: the port is gone ({error}); is the board still plugged in?") from error
        self.bytes_sent += self.top.frame_bytes

    def _receive(self, size: int, where: str) -> bytes:
        got = bytearray()
        last = time.monotonic()
        frames_s = self.top.frame_bytes * (self.top.array.rows + 1) * CHARACTER_BITS / self.baud
        while len(got) < size:
            try:
                some = self.port.read(size - len(got))
            except OSError as error:
                raise BoardError(f"{self.name}: the port is gone ({error}); is the board still plugged in?") from error
            if some:
                got += some
                last = time.monotonic()
            elif time.monotonic() - last > self.timeout_s + frames_s:
                raise BoardError(
                    f"{self.name}: {len(got)} of {size} bytes of results came for {where}, and then none for "
                    f"{self.timeout_s + frames_s:.3g} s; {self._advice()}"
                )
        self.bytes_received += size
        return bytes(got)

    def _compare(self, tile: ArrayTile, start: int, end: int, where: str) -> None:
        """Vectors start..end - 1 of the tile, as they come."""
        size, array = self.top.result_bytes, self.top.array
        data = self._receive((end - start) * size, where)
        bits = len(array.psum_data)
        for index in range(start, end):
            got = int.from_bytes(data[(index - start) * size : (index - start + 1) * size], "little")
            want = tile.sums[index] | (index == len(tile.sums) - 1) << bits
            if got != want:
                wide, each = (got ^ want) & -(got ^ want), bits // array.cols
                col = (wide.bit_length() - 1) // each
                what = f"column {col}" if col < array.cols else "its end"
                raise MismatchError(
                    f"{self.name}: {where}, vector {index} of {len(tile.sums)}: {what} differs: {got:#x}, must be "
                    f"{want:#x}; the line has no CRC: {self._advice()}, to tell a changed byte from a wrong array"
                )


def run(
    machine: Machine, port: str, m: int, k: int, n: int, *, baud: int = BAUD, seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The tiles of a product [m, k] . [k, n] on the array alone at `port`; every sum of every tile compared.

    Parameters
        port : of the board; "simulated": none, see `fpga.simulated`
        baud : of the board's line
        seed : of the operands, which are random codes over their whole range
    Returns a flat row: what ran, bytes over the line and their time at its baud rate. The last column of tiles has the
    array's width, whatever n. Sums over the elements of several tiles are not added: each tile's are compared.
    ConfigError for sizes, BoardError for an absent, silent or wrong board, MismatchError for a wrong sum, ToolError
    where the simulation lacks a tool.
    """
    if min(m, n, k) < 1:
        raise ConfigError(f"gemm = {m},{k},{n}: must be M,K,N of 1 or more")
    shapes = list(_tiles(ArrayTop(machine, SimulationBoard()), m, k, n))
    rng = np.random.default_rng(seed)
    show = progress or (lambda stage, done, total: None)
    with _opened(machine, port, baud, show) as host:
        for index, (tokens, depth) in enumerate(shapes):
            show("tiles", index, len(shapes))
            where = f"tile {index + 1} of {len(shapes)} ({tokens} tokens, {depth} elements)"
            host.run(random_tile(host.top.array, rng, tokens, depth), where)
        show("tiles", len(shapes), len(shapes))
        host.finish()
    sums = sum(tokens for tokens, _ in shapes) * host.top.array.cols
    return {
        "schema_version": SCHEMA_VERSION, "machine": machine.name, "port": port, "array_only": True, "m": m, "k": k,
        "n": n, "seed": seed, "tiles": len(shapes), "sums_equal": sums, "baud": host.baud,
        "bytes_sent": host.bytes_sent, "bytes_received": host.bytes_received,
        "link_ms": 1e3 * max(host.bytes_sent, host.bytes_received) * CHARACTER_BITS / host.baud,
    }  # fmt: skip


def _tiles(top: ArrayTop, m: int, k: int, n: int) -> Iterator[tuple[int, int]]:
    """Tokens and elements of each tile."""
    array = top.array
    most_m, most_k = array.rows, _MOST
    if isinstance(array, SystolicArray) and array.dataflow == "ws":
        most_m, most_k = _MOST, array.rows
    for _ in range(0, n, array.cols):
        for depth in range(0, k, most_k):
            for token in range(0, m, most_m):
                yield min(most_m, m - token), min(most_k, k - depth)


@contextmanager
def _opened(machine: Machine, port: str, baud: int, show: Progress) -> Iterator[ArrayHost]:
    board = SimulationBoard()
    if port != SIMULATED:
        line = serial_port(port, baud)
        try:
            line.reset_input_buffer()
            yield ArrayHost(ArrayTop(machine, board), line, port, baud, _TIMEOUT_S)
        finally:
            line.close()
        return
    from bitwright.fpga.simulated import SimulatedBoard

    show("compiling the simulated board", 0, 1)
    made = SimulatedBoard(machine, board, made=array_top.verilog(machine, board))
    show("compiling the simulated board", 1, 1)
    with made as simulated:
        line = serial_port(simulated.port, board.baud)
        try:
            yield ArrayHost(ArrayTop(machine, board), line, port, board.baud, _SIMULATED_TIMEOUT_S)
        finally:
            line.close()
