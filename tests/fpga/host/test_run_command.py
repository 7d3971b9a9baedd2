"""`bitwright fpga run` as its user meets it: what it prints and its exit code, on a terminal behind which is the board
in Python, another device, or nothing. Every wait here has an end."""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from bitwright.cli import main
from bitwright.fpga.link.protocol import design_id
from board_model import BoardModel, TestBoard, small_machine, with_a_wrong_output

MACHINE = small_machine("int8-4x4", ("int4_asym",), kib=4)
Served = Callable[[bytes], bytes | None]
"""What a device says for bytes that come; None: it is unplugged."""


@contextmanager
def device(says: Served, *, endless: bytes = b"") -> Iterator[str]:
    """A terminal and who answers at it; `endless` is said all the time. Gives the port."""
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    port, stop, left = os.ttyname(slave), threading.Event(), bytearray()

    def serve() -> None:
        while not stop.is_set():
            if select.select([master], [], [], 0.01)[0]:
                answer = says(os.read(master, 4096))
                if answer is None:
                    os.close(slave)
                    os.close(master)
                    return
                left.extend(answer)
            if endless and len(left) < 4096:
                left.extend(endless)
            try:
                del left[: os.write(master, left)]
            except BlockingIOError:
                time.sleep(0.001)
        os.close(slave)
        os.close(master)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        stop.set()
        thread.join(10)


def served(model: BoardModel, *, unplugged_after: int = 1 << 40) -> Served:
    taken = 0

    def says(data: bytes) -> bytes | None:
        nonlocal taken
        taken += len(data)
        if taken > unplugged_after:
            return None
        model.write(data)
        return model.read(1 << 20)

    return says


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    own = tmp_path / "mine.yaml"
    own.write_text(yaml.safe_dump(MACHINE.model_dump(mode="json")))

    def run(port: str, *more: str) -> tuple[int, str, str]:
        line = ["bitwright", "fpga", "run", str(own), "--port", port, "--gemm", "3,256,40", "--group", "32", *more]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", line)
            try:
                main.run()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


Command = Callable[..., tuple[int, str, str]]


def test_a_product_is_exit_code_0_its_row_on_stdout_and_progress_on_stderr(command: Command) -> None:
    with device(served(BoardModel(MACHINE, TestBoard(memory_bytes=8192)))) as port:
        code, out, err = command(port, "--json")
    row = json.loads(out)
    assert (code, row["outputs_equal"], row["sent_again"], row["port"]) == (0, 120, 0, port)
    assert row["tiles"] > 1
    first, *_, last = err.splitlines()
    assert first.startswith("int4_asym 3,256,40: ")
    stage, _, count = last.partition(": ")
    done, _, total = count.partition(" of ")
    assert (stage, done) == ("int4_asym 3,256,40", total)


def test_lost_bytes_are_sent_again_and_counted(command: Command) -> None:
    model = BoardModel(MACHINE)
    sent = 0

    def to_board(byte: int) -> tuple[int, ...]:
        nonlocal sent
        sent += 1
        return () if sent in (700, 3000) else (byte,)

    model.to_board = to_board
    with device(served(model)) as port:
        code, out, _ = command(port, "--json")
    row = json.loads(out)
    assert (code, row["outputs_equal"]) == (0, 120)
    assert row["sent_again"] >= 1


def test_a_wrong_output_is_exit_code_1_and_no_row(command: Command) -> None:
    with device(served(with_a_wrong_output(MACHINE))) as port:
        code, out, err = command(port)
    assert (code, out) == (1, "")
    told = err.splitlines()[-1]
    assert told.startswith("bitwright: int4_asym 3,256,40[0:3, 0:40]: 1 of 120 outputs differ from the interpreter's")


def test_a_port_unplugged_in_the_middle_is_exit_code_3(command: Command) -> None:
    with device(served(BoardModel(MACHINE), unplugged_after=2000)) as port:
        code, out, err = command(port)
    assert (code, out) == (3, "")
    told = err.splitlines()[-1]
    assert told.startswith(f"bitwright: {port}: the port is gone (")
    assert told.endswith("); was the board unplugged?")


def test_another_machines_board_is_exit_code_3(command: Command) -> None:
    other = small_machine("int8-4x4", ("int8",), kib=4)
    with device(served(BoardModel(other))) as port:
        code, out, err = command(port)
    assert (code, out) == (3, "")
    assert err == (
        f"bitwright: {port}: the board holds machine {design_id(other).hex()}, not int8-4x4 "
        f"({design_id(MACHINE).hex()}); program that one (bitwright fpga build, program)\n"
    )


@pytest.mark.parametrize(
    ("says", "endless"),
    [(lambda data: b"", b""), (lambda data: data, b""), (lambda data: b"", b"\xc0garbage\xdb")],
    ids=["silent", "an echo", "talks without end"],
)
def test_a_device_that_is_no_board_is_exit_code_3(command: Command, says: Served, endless: bytes) -> None:
    with device(says, endless=endless) as port:
        begin = time.monotonic()
        code, out, err = command(port)
        assert time.monotonic() - begin < 60
    assert (code, out) == (3, "")
    assert err.startswith(f"bitwright: {port}: no board answers at 3000000 baud (")
    assert err.endswith("is it programmed (bitwright fpga program), is this its port, is the baud rate the board's?\n")


@pytest.mark.parametrize("baud", ["0", "-5", "100000001"])
def test_a_baud_rate_that_none_has_is_exit_code_2(command: Command, baud: str) -> None:
    code, out, err = command("/dev/ttyUSB0", "--baud", baud)
    assert (code, out) == (2, "")
    assert err == f"bitwright: baud = {baud}: must be 1..100000000, as the board was built for (here: 3000000)\n"
