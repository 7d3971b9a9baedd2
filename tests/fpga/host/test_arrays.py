# amaranth: UnusedElaboratable=no
"""`bitwright fpga run --array`: every kind of array in simulation, worse lines, and what its user reads."""

from __future__ import annotations

import json
import os
import sys
import tty
from collections.abc import Iterable, Iterator

import pytest
from bitwright.arch.errors import BoardError, ConfigError, MismatchError
from bitwright.arch.machine import Machine
from bitwright.cli import main
from bitwright.fpga import array_top, simulated
from bitwright.fpga.host import arrays
from bitwright.fpga.host.running import SimulationBoard
from bitwright.fpga.simulated import Line, SimulatedBoard

KINDS = [
    ("int8-mac", 2, 3, "ws"),
    ("fp16-mac", 3, 2, "os"),
    ("outlier-victim", 2, 2, "os"),
    ("lut", 2, 3, "os"),
    ("bit-serial", 2, 2, "os"),
    ("opt3", 2, 3, "os"),
]


def small(pe: str = "int8-mac", rows: int = 2, cols: int = 2, dataflow: str = "ws") -> Machine:
    return Machine.model_validate(
        {"name": "own", "pe": pe, "array": {"rows": rows, "cols": cols, "dataflow": dataflow}}
    )


@pytest.mark.parametrize(("pe", "rows", "cols", "dataflow"), KINDS, ids=[kind[0] for kind in KINDS])
def test_every_sum_of_every_kind_of_array_comes_and_is_right(pe: str, rows: int, cols: int, dataflow: str) -> None:
    """9 x 13 . 13 x 7: short tiles at every edge; columns of tiles are whole."""
    row = arrays.run(small(pe, rows, cols, dataflow), "simulated", 9, 13, 7)
    wide = -(-7 // cols) * cols
    depths = -(-13 // rows) if dataflow == "ws" else 1
    assert row["sums_equal"] == 9 * wide * depths
    assert row["tiles"] == -(-7 // cols) * (depths if dataflow == "ws" else -(-9 // rows))


class Worse(Line):
    """The byte number `at` to or from the board is lost, or its lowest bit changes."""

    def __init__(self, way: str, what: str, at: int) -> None:
        self.way, self.what, self.at = way, what, at

    def _struck(self, way: str) -> bool:
        self.at -= way == self.way
        return way == self.way and self.at == -1

    def to_board(self, byte: int) -> Iterable[tuple[int, int]]:
        if not self._struck("to board"):
            return super().to_board(byte)
        return () if self.what == "lost" else super().to_board(byte ^ 1)

    def to_host(self, byte: int) -> bytes:
        if not self._struck("to host"):
            return bytes([byte])
        return b"" if self.what == "lost" else bytes([byte ^ 1])


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of `bitwright fpga run int8-2x2 --array ...`."""
    monkeypatch.setattr(sys, "argv", ["bitwright", "fpga", "run", "int8-2x2", "--array", *words])
    try:
        main.run()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def worse(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Line]]:
    """The line of the next simulated board; silence is short."""
    lines: list[Line] = []

    def made(machine: Machine, board: SimulationBoard, made: tuple[str, str]) -> SimulatedBoard:
        return SimulatedBoard(machine, board, made=made, line=lines.pop())

    monkeypatch.setattr(simulated, "SimulatedBoard", made)
    monkeypatch.setattr(arrays, "_SIMULATED_TIMEOUT_S", 1.5)
    yield lines
    assert not lines


@pytest.mark.parametrize("way", ["to board", "to host"])
@pytest.mark.parametrize("at", [0, 40, 200])
def test_a_byte_lost_is_a_result_that_does_not_come(way: str, at: int, worse: list[Line]) -> None:
    worse.append(Worse(way, "lost", at))
    with pytest.raises((BoardError, MismatchError), match=r"in mid frame: press its reset button"):
        arrays.run(small(), "simulated", 9, 13, 7)


@pytest.mark.parametrize("at", [0, 41, 199])
def test_a_byte_changed_on_its_way_back_is_a_wrong_sum(at: int, worse: list[Line]) -> None:
    worse.append(Worse("to host", "changed", at))
    with pytest.raises(
        MismatchError, match=r"tile \d+ of 28 .*, vector \d of 9: .* differs: 0x.*; the line has no CRC"
    ):
        arrays.run(small(), "simulated", 9, 13, 7)


def test_more_results_than_were_asked_for_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubling(Line):
        left = 9 * 28 * 9

        def to_host(self, byte: int) -> bytes:
            self.left -= 1
            return bytes([byte]) * (1 + (self.left == 0))

    monkeypatch.setattr(
        simulated, "SimulatedBoard",
        lambda machine, board, made: SimulatedBoard(machine, board, made=made, line=Doubling()),
    )  # fmt: skip
    with pytest.raises(BoardError, match="sends more than it was asked for"):
        arrays.run(small(), "simulated", 9, 13, 7)


def test_a_device_that_says_nothing_is_told_in_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "_TIMEOUT_S", 0.2)
    master, slave = os.openpty()
    tty.setraw(slave)
    port = os.ttyname(slave)
    assert command(monkeypatch, "--port", port, "--gemm", "1,2,2") == 3
    os.close(master)
    os.close(slave)
    told = capsys.readouterr().err
    assert (
        f"bitwright: {port}: 0 of 9 bytes of results came for tile 1 of 1 (1 tokens, 2 elements), and then none" in told
    )
    assert "is the array of int8-2x2 on it (bitwright fpga build --array, program)?" in told


def test_an_absent_port_and_options_of_accelerators_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(monkeypatch, "--gemm", "1,2,2", "--port", "/dev/no-such-port") == 3
    assert "port = /dev/no-such-port: cannot be opened" in capsys.readouterr().err
    assert command(monkeypatch, "--gemm", "1,2,2", "--port", "simulated", "--weights", "int8") == 2
    assert capsys.readouterr().err == (
        "bitwright: --weights = int8: not with --array, whose operands are random codes (leave it out)\n"
    )
    with pytest.raises(ConfigError, match=r"gemm = 1,0,2: must be M,K,N of 1 or more"):
        arrays.run(small(), "simulated", 1, 0, 2)


def test_the_command_prints_what_ran(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, "--port", "simulated", "--gemm", "3,5,4", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    top = array_top.ArrayTop(small(), SimulationBoard())
    frames, vectors = 2 * (5 + 3 * 3), 2 * 3 * 3
    assert (row["bytes_sent"], row["bytes_received"]) == (frames * top.frame_bytes, vectors * top.result_bytes)
    assert (row["machine"], row["array_only"], row["tiles"], row["sums_equal"]) == ("int8-2x2", True, 6, 36)
