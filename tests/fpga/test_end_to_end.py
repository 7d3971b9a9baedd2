"""A projection of SmolLM2 through the real driver, a real terminal and every bit of the serial line, on the board top's
Verilog; the same over lines that break what they carry. Independent source: the functional interpreter, and `linear`.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import serial
import yaml
from bitwright.arch import formats
from bitwright.arch.errors import BoardError, ConfigError
from bitwright.arch.isa.counters import Counters
from bitwright.arch.isa.instructions import Execute
from bitwright.arch.isa.interpreter import run as interpret
from bitwright.arch.isa.limits import limits
from bitwright.arch.registers import OFFSETS
from bitwright.cli.main import app
from bitwright.fpga.host.driver import Accelerator, place
from bitwright.fpga.host.link import Request
from bitwright.fpga.host.products import Product, multiply, tiles
from bitwright.fpga.link.protocol import END, Op, body_of, design_id, frame, length, request
from bitwright.fpga.memory import timing
from bitwright.fpga.simulated import Line, SimulatedBoard
from bitwright.fpga.top import LEDS
from bitwright.sim.accelerator import fast
from bitwright.workloads import checkpoint, linear, texts
from bitwright.workloads.layout import OUT_REGION
from bitwright.workloads.lowering import Lowered, lower
from bitwright.workloads.quantise.prepared import rows_of
from board_model import BoardModel, TestBoard, small_machine
from typer.testing import CliRunner
from worse_lines import WorseLine

MACHINE = small_machine("int8-4x4", ("int4_asym",), kib=4)
LIMITS = limits(MACHINE)
BOARD = TestBoard(memory_bytes=32768)
BAUD = 115_200
"""That the host believes in: simulated time is slower than the board's 3 Mbaud, and silence must be judged by it."""


class Projection:
    """layers.0.k of SmolLM2 (192 x 576) by a token of a text, as the machine takes them."""

    def __init__(self) -> None:
        smollm2 = checkpoint.load("smollm2-135m")
        ids = smollm2.tokenizer.encode(texts.load("jargon").content[:100], add_special_tokens=False).ids
        stream = smollm2.embedding(np.asarray(ids[:1], np.int64))
        self.acts = linear.encode_int8_acts(stream, None)
        self.weights = formats.get("int4_asym").encode(smollm2.weight("layers.0.k"), group=32)

    def expected(self, outputs: int, pass_depth: int | None) -> np.ndarray:
        operand = linear.integer_operand(rows_of(self.weights, 0, outputs), "k")
        return linear.multiply_integers(self.acts, operand, pass_depth)


@pytest.fixture(scope="module")
def projection() -> Projection:
    return Projection()


def on_a_board(projection: Projection, outputs: int, line: Line | None = None) -> tuple[Product, Accelerator]:
    with (
        SimulatedBoard(MACHINE, BOARD, line=line) as board,
        Accelerator.open(board.port, MACHINE, baud=BAUD, retries=20) as host,
    ):
        weights = rows_of(projection.weights, 0, outputs)
        return multiply(host, weights, projection.acts, LIMITS, golden=True, name="layers.0.k"), host


def test_a_projection_equals_the_golden_model_byte_for_byte(
    projection: Projection, record_property: Callable[[str, object], None]
) -> None:
    begin = time.perf_counter()
    product, host = on_a_board(projection, 192)
    (depth,) = product.pass_depths
    expected = projection.expected(192, depth)
    np.testing.assert_array_equal(product.results.view(np.uint32), expected.view(np.uint32))
    assert len(product.counters) > 1, "a projection that is streamed, tile after tile"
    first = rows_of(projection.weights, 0, 192)
    for tile, counted in zip(tiles(first, projection.acts, LIMITS, BOARD.memory_bytes), product.counters, strict=True):
        assert counted == simulated(tile.lowered)
    record_property(
        "figure",
        f"all 192 outputs of layers.0.k of SmolLM2 on {MACHINE.name} behind a pseudo-terminal: {len(product.counters)} "
        f"tiles, {product.cycles} cycles as simulated, {host.statistics.bytes_sent} bytes sent, every output equal; "
        f"{time.perf_counter() - begin:.0f} s",
    )


def simulated(lowered: Lowered) -> Counters:
    """Counters of sim.accelerator for the same program where the driver puts it, before the board's memory."""
    sizes = [region.size for region in lowered.memory]
    port = MACHINE.port
    return fast.run(
        lowered.program, LIMITS, [size // port.bytes for size in sizes], timing(BOARD.single_port_memory),
        placement=place(16 * len(lowered.program), sizes), outstanding_reads=port.outstanding_reads,
        outstanding_writes=port.outstanding_writes,
    ).counters  # fmt: skip


@pytest.mark.parametrize(("seed", "every", "must"), [(1, 4000, True), (2, 1500, True)])
def test_a_broken_line_is_recovered_from_or_reported(
    projection: Projection, seed: int, every: int, must: bool
) -> None:  # fmt: skip
    line = WorseLine(seed, every)
    try:
        product, host = on_a_board(projection, 16, line)
    except BoardError:
        if must:
            raise
        return
    (depth,) = product.pass_depths
    expected = projection.expected(16, depth)
    np.testing.assert_array_equal(product.results.view(np.uint32), expected.view(np.uint32))
    assert line.faults
    assert host.statistics.sent_again


def test_a_board_that_is_reset_or_unplugged_is_reported() -> None:
    data = bytes(range(256)) * 64
    with SimulatedBoard(MACHINE, BOARD) as board:
        host = Accelerator.open(board.port, MACHINE, baud=BAUD)
        assert is_lit(board, "a host has begun a session")
        threading.Timer(0.1, board.reset).start()
        with pytest.raises(BoardError) as error:
            write_for_long(host, data)
        assert str(error.value) == (
            f"{board.port}: the board was reset since it was opened: what was loaded may be lost; open it again"
        )
        assert not is_lit(board, "a host has begun a session")
        host.close()
        again = Accelerator.open(board.port, MACHINE, baud=BAUD)
        again.write_memory(0, data)
        assert again.read_memory(0, len(data)) == data
    with pytest.raises(BoardError, match=r": the port is gone \(.*\); was the board unplugged\?$"):
        again.read_memory(0, 16)


def write_for_long(host: Accelerator, data: bytes) -> None:
    for _ in range(20):
        host.write_memory(0, data)


def is_lit(board: SimulatedBoard, state: str) -> bool:
    return bool(board.leds >> LEDS.index(state) & 1)


def test_another_machine_than_the_board_holds_is_reported() -> None:
    other = small_machine("int8-4x4", ("int8",))
    with SimulatedBoard(MACHINE, BOARD) as board:
        with pytest.raises(BoardError) as error:
            Accelerator.open(board.port, other, baud=BAUD)
        assert str(error.value) == (
            f"{board.port}: the board holds machine {design_id(MACHINE).hex()}, not int8-4x4 "
            f"({design_id(other).hex()}); program that one (bitwright fpga build, program)"
        )


@pytest.mark.parametrize("kind", ["session", "no session"])
def test_the_gates_answer_as_the_model_in_python(kind: str) -> None:
    """Random requests, good and bad ones, byte for byte; the line one request at a time."""
    draw, model = random.Random(kind), BoardModel(MACHINE, BOARD)
    with SimulatedBoard(MACHINE, BOARD) as board, serial.Serial(board.port, timeout=5) as port:

        def ask(body: bytes) -> bytes:
            port.write(frame(body))
            answer = port.read_until(bytes([END]))
            answer = port.read_until(bytes([END])) if answer == bytes([END]) else answer
            return body_of(answer.strip(bytes([END])))

        def both(body: bytes) -> None:
            assert ask(body) == model.answer(body), body.hex()

        if kind == "session":
            both(request(7, 0, Op.HELLO, 0))
            for start in range(0, BOARD.memory_bytes, 4096):
                both(request(7, 1, Op.WRITE_MEMORY, start, model.memory[start : start + 1900].tobytes()))
        for number in range(150):
            both(a_request(draw, number & 0xFF))
        if kind == "session":  # what was written beyond the end is not at the beginning
            both(request(7, 0, Op.READ_MEMORY, 0, length(128)))


def a_request(draw: random.Random, number: int) -> bytes:
    """One that starts no run that is one (PROGRAM_WORDS stays 0), and reads memory only where it was written."""
    session = draw.choice((7, 7, 7, 7, 7, 7, 8, 0))
    op = draw.choice((*(op for op in Op if op not in (Op.HELLO, Op.RUN)), draw.choice((0, 9, 0x82))))
    if op == Op.READ_MEMORY:
        at, size = 4096 * draw.randrange(9) + draw.randrange(1800), draw.choice((0, 1, 16, 99, 40000))
        return request(session, number, op, at, length(size)[: draw.choice((2, 2, 2, 1, 0))])
    if op == Op.WRITE_MEMORY:
        at, size = 4096 * draw.randrange(9) + draw.randrange(1800), draw.choice((0, 1, 16, 99))
        return request(session, number, op, min(at, 32760) if draw.random() < 0.9 else 1 << 31, draw.randbytes(size))
    known = sorted(OFFSETS[name] for name in OFFSETS if name not in ("PROGRAM_WORDS", "STATUS", "RESET", "INTERRUPT"))
    at = draw.choice((draw.choice(known), draw.choice(known), 0x02C, 0xFFC, 0x1000, 0x42, 0x10004, OFFSETS["CONTROL"]))
    if op == Op.READ_REGISTERS:
        return request(session, number, op, at, length(draw.choice((0, 3, 4, 4, 8, 16))))
    return request(session, number, op, at, draw.randbytes(draw.choice((0, 2, 4, 4, 4))))


def test_memory_is_refused_while_a_run_goes_on_and_reset_ends_one() -> None:
    lowered = a_long_run()
    expected = [region.copy() for region in lowered.memory]
    assert interpret(lowered.program, LIMITS, expected).legal
    size = lowered.memory[OUT_REGION].size
    with SimulatedBoard(MACHINE, BOARD) as board, Accelerator.open(board.port, MACHINE, baud=BAUD) as host:
        outputs = host.load(lowered.program, lowered.memory).regions[OUT_REGION]
        host.start()
        with pytest.raises(BoardError) as error:
            host.write_memory(outputs, bytes(size))
        assert str(error.value) == f"{board.port}: the board refuses WRITE_MEMORY at {outputs:#x}: BUSY"
        assert host.wait() == 2
        assert host.result(2).counters == simulated(lowered)
        assert host.read_memory(outputs, size) == expected[OUT_REGION].tobytes()
        host.write_memory(outputs, bytes(size))
        host._link.exchange([Request(Op.RUN, 1)])  # the number of the run that was: it is not done again
        assert host.wait() == 2
        assert host.read_memory(outputs, size) == bytes(size)
        host.start()
        assert host.read_register("STATUS") == 1
        host.write_registers({"RESET": 1})
        assert host.read_register("STATUS") == 0
        assert host.read_memory(outputs, size) == bytes(size)
        host.start()
        assert host.wait() == 2
        assert host.read_memory(outputs, size) == expected[OUT_REGION].tobytes()


def test_the_command_runs_a_product_on_a_port_and_compares_it(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(yaml.safe_dump(MACHINE.model_dump(mode="json")))
    with SimulatedBoard(MACHINE, BOARD) as board:
        arguments = ["fpga", "run", str(own), "--port", board.port, "--gemm", "2,64,24", "--baud", str(BAUD)]
        ran = CliRunner().invoke(app, [*arguments, "--group", "32", "--json"])
        assert ran.exception is None, ran.exception
        row = json.loads(ran.stdout)
        assert row["outputs_equal"] == 48
        assert row["weights"] == "int4_asym"
        assert row["cycles"] > 0
        assert row["bytes_sent"] > 1000
        assert 0.9 < row["link_share"] < 1
        ran = CliRunner().invoke(app, [*arguments, "--weights", "int4"])
        assert str(ran.exception) == "weights.format = int4: the machine has int4_asym (ask limits() for the format)"
        assert isinstance(ran.exception, ConfigError)
    ran = CliRunner().invoke(app, arguments)
    assert str(ran.exception).startswith(f"port = {board.port}: cannot be opened (")
    assert isinstance(ran.exception, BoardError)


def a_long_run() -> Lowered:
    """A product whose first Execute is done 800 times over, so that a host comes in between."""
    draw = np.random.default_rng(1)
    weights = formats.get("int4_asym").encode(draw.normal(size=(4, 64)).astype(np.float32), group=32)
    lowered = lower(weights, linear.encode_int8_acts(draw.normal(size=(8, 64)).astype(np.float32), None), LIMITS)
    at = next(at for at, item in enumerate(lowered.program) if isinstance(item, Execute))
    again = replace(lowered.program[at], hand_acc=False, free_act=False, free_wgt=False, free_par=False)
    return replace(lowered, program=(*lowered.program[:at], *[again] * 800, *lowered.program[at:]))
