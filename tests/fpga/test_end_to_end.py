"""A projection of SmolLM2 through the real driver, a real terminal and every bit of the serial line, on the board top's
Verilog; the same over lines that break what they carry. Independent source: the functional interpreter, and `linear`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch.errors import BoardError
from bitwright.arch.isa.limits import limits
from bitwright.fpga.host.driver import Accelerator, place
from bitwright.fpga.host.products import Product, multiply, tiles
from bitwright.fpga.link.protocol import Op
from bitwright.fpga.memory import timing
from bitwright.fpga.simulated import Line, SimulatedBoard
from bitwright.fpga.top import LEDS
from bitwright.sim.accelerator import fast
from bitwright.workloads import checkpoint, linear, texts
from bitwright.workloads.quantise.prepared import rows_of
from board_model import TestBoard, small_machine
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
    with SimulatedBoard(MACHINE, BOARD, line=line) as board, Accelerator.open(board.port, MACHINE, baud=BAUD) as host:
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
    assert len(product.counters) > 2, "a projection that is streamed, tile after tile"
    for tile, counted in zip(
        tiles(projection.weights, projection.acts, LIMITS, BOARD.memory_bytes), product.counters, strict=True
    ):
        assert counted == simulated(tile.lowered)
    record_property(
        "figure",
        f"layers.0.k of SmolLM2 on {MACHINE.name} behind a pseudo-terminal: {len(product.counters)} tiles, "
        f"{product.cycles} cycles as simulated, {host.statistics.bytes_sent} bytes sent, every output equal; "
        f"{time.perf_counter() - begin:.0f} s",
    )


def simulated(lowered: object) -> object:
    """Counters of sim.accelerator for the same program where the driver puts it, before the board's memory."""
    sizes = [region.size for region in lowered.memory]  # type: ignore[attr-defined]
    program = lowered.program  # type: ignore[attr-defined]
    port = MACHINE.port
    return fast.run(
        program, LIMITS, [size // port.bytes for size in sizes], timing(BOARD.single_port_memory),
        placement=place(16 * len(program), sizes), outstanding_reads=port.outstanding_reads,
        outstanding_writes=port.outstanding_writes,
    ).counters  # fmt: skip


@pytest.mark.parametrize(("seed", "every"), [(1, 4000), (2, 1500), (3, 1500), (4, 500), (5, 150)])
def test_a_broken_line_is_recovered_from_or_reported(projection: Projection, seed: int, every: int) -> None:
    line = WorseLine(seed, every)
    try:
        product, host = on_a_board(projection, 16, line)
    except BoardError as error:
        assert every < 1000, f"too few faults to give up: {error}"
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
        assert board.leds >> LEDS.index("a host has begun a session") & 1
        threading.Timer(0.1, board.reset).start()
        with pytest.raises(BoardError, match="the board was reset since it was opened"):
            for _ in range(20):
                host.write_memory(0, data)
        assert not board.leds >> LEDS.index("a host has begun a session") & 1
        host.close()
        again = Accelerator.open(board.port, MACHINE, baud=BAUD)
        again.write_memory(0, data)
        assert again.read_memory(0, len(data)) == data
    with pytest.raises(BoardError, match="the port is gone .* was the board unplugged"):
        again.read_memory(0, 16)


def test_memory_is_refused_while_a_run_goes_on() -> None:
    """A run of nothing but words that the fetcher waits for: started by hand, ended by the watchdog."""
    with SimulatedBoard(MACHINE, BOARD) as board, Accelerator.open(board.port, MACHINE, baud=BAUD) as host:
        assert host._link.info.memory_bytes == BOARD.memory_bytes
        host.write_registers({"PROGRAM_WORDS": 0})
        host.start()
        assert host.wait() == 4
        assert host.read_register("ERROR") != 0
        assert Op.RUN in list(Op)
