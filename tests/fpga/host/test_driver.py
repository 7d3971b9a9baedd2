"""The driver against the board in Python: what it sends, what it refuses, what it says when no board is there."""

from __future__ import annotations

import itertools
import os
import re
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch.errors import BoardError, ConfigError, MismatchError
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.instructions import Buffer as Channel
from bitwright.arch.isa.instructions import End, Load
from bitwright.arch.isa.limits import limits
from bitwright.fpga.host.decoding import OnBoard, Prediction
from bitwright.fpga.host.driver import Accelerator
from bitwright.fpga.host.link import Link, Request, read
from bitwright.fpga.host.products import multiply, needed_bytes, tile_sizes, tiles
from bitwright.fpga.link import protocol
from bitwright.fpga.link.protocol import HEADER_BYTES, INFO_BYTES, Info, Op, Status
from bitwright.workloads import linear
from bitwright.workloads.linear import encode_int8_acts
from bitwright.workloads.lowering import job_of
from board_model import BoardModel, TestBoard, small_machine, with_a_wrong_output

MACHINE = small_machine()
LIMITS = limits(MACHINE)


def accelerator(model: BoardModel) -> Accelerator:
    return Accelerator(Link(model, "model", 10**9, timeout_s=1))


def operands(m: int, k: int, n: int) -> tuple[formats.Encoded, linear.Operand]:
    draw = np.random.default_rng(m + k + n)
    weights = formats.get("int4_asym").encode(draw.normal(size=(n, k)).astype(np.float32), group=32)
    return weights, encode_int8_acts(draw.normal(size=(m, k)).astype(np.float32), None)


def test_the_page_has_every_op_status_and_size() -> None:
    page = (Path(__file__).parents[3] / "docs" / "fpga-link.md").read_text()
    for kind in (Op, Status):
        for item in kind:
            assert re.search(rf"^\| {int(item)} \| {item.name} \|", page, re.MULTILINE), item
    assert f"{INFO_BYTES} bytes: `bitw`" in page
    for byte in (protocol.END, protocol.ESCAPE, *protocol.ESCAPED.values()):
        assert f"{byte:02X}" in page
    assert f"version of this page (1): {protocol.VERSION}," in page


def test_info_comes_out_as_it_went_in() -> None:
    info = Info(1, 16, 2048, 65536, 25_000_000, bytes(range(16)))
    assert len(info.encode()) == INFO_BYTES
    assert Info.decode(info.encode()) == info


def test_a_product_in_tiles_has_the_bits_of_the_numpy_model() -> None:
    weights, acts = operands(3, 96, 37)
    model = BoardModel(MACHINE, replace(TestBoard(), memory_bytes=4096))
    seen: list[tuple[str, int, int]] = []
    product = multiply(
        accelerator(model), weights, acts, LIMITS, golden=True, progress=lambda *step: seen.append(step), name="p"
    )
    (depth,) = product.pass_depths
    expected = linear.multiply_integers(acts, linear.integer_operand(weights, "w"), depth)
    np.testing.assert_array_equal(product.results.view(np.uint32), expected.view(np.uint32))
    assert len(product.counters) == model.runs > 2
    assert seen[-1][1] == seen[-1][2]
    assert all(done < total for _, done, total in seen[:-1])
    assert all(one[1] < two[1] for one, two in itertools.pairwise(seen))


@pytest.mark.parametrize("memory_bytes", [4096, 8192, 65536])
def test_tiles_are_as_large_as_fits(memory_bytes: int) -> None:
    weights, acts = operands(5, 160, 61)
    job = job_of(weights, acts, LIMITS)
    tokens, outputs = tile_sizes(job, memory_bytes)
    assert needed_bytes(replace(job, m=tokens, n=outputs)) <= memory_bytes
    if outputs < job.n:
        assert needed_bytes(replace(job, m=tokens, n=min(job.n, outputs + LIMITS.cols))) > memory_bytes
    covered = np.zeros((5, 61), int)
    for tile in tiles(weights, acts, LIMITS, memory_bytes):
        covered[tile.tokens, tile.outputs] += 1
    assert (covered == 1).all()


def test_a_product_that_no_tile_of_fits_is_refused() -> None:
    weights, acts = operands(1, 3000, 4)
    with pytest.raises(ConfigError, match=r"^memory = 4096 bytes: a token by 4 outputs with a reduction of 3000 "):
        multiply(accelerator(BoardModel(MACHINE, replace(TestBoard(), memory_bytes=4096))), weights, acts, LIMITS)


def test_a_wrong_output_is_a_mismatch() -> None:
    weights, acts = operands(1, 32, 8)
    with pytest.raises(MismatchError, match=r"^product\[0:1, 0:8\]: 1 of 8 outputs differ .*; the first is token 0"):
        multiply(accelerator(with_a_wrong_output(MACHINE)), weights, acts, LIMITS, golden=True)


def test_a_fault_is_the_results_and_a_products_mismatch() -> None:
    model = BoardModel(MACHINE)
    board = accelerator(model)
    program = [Load(buffer=Channel.ACT, beats=4), End()]
    empty = [np.zeros(0, np.uint8) for _ in range(4)]
    run = board.run(program, empty)
    assert (run.fault, run.index) == (Fault.OUT_OF_REGION, 0)


def test_what_cannot_be_run_is_refused() -> None:
    board = accelerator(BoardModel(MACHINE))
    empty = [np.zeros(0, np.uint8) for _ in range(4)]
    for arguments, message in (
        ((b"", empty), "outputs: must be given for a program of bytes (or give its instructions)"),
        (([End()], empty[:3]), "memory: 3 regions: must be 4"),
        (([End()], [np.zeros(9, np.uint8), *empty[1:]]), "memory[0]: 9 bytes: must be beats of 16 bytes"),
        (
            ([End()], [np.zeros(1 << 17, np.uint8), *empty[1:]]),
            "memory = 0x100..0x20100: the board has 65536 bytes (split the work into smaller tiles)",
        ),
    ):
        with pytest.raises(ConfigError) as error:
            board.run(*arguments)
        assert str(error.value) == message
    with pytest.raises(ConfigError) as error:
        board.run([End()], empty, max_cycles=0)
    assert str(error.value) == "max_cycles = 0: must be 1..4294967296"


def test_no_more_is_under_way_than_the_board_has_room_for() -> None:
    """The model holds what it gets back for a while, and counts."""
    model = BoardModel(MACHINE, replace(TestBoard(), link_bytes=512))
    board = accelerator(model)
    waiting: list[int] = []
    answer = model.answer
    deliver = model._deliver

    def count() -> None:
        bodies = [protocol.body_of(bytes(line)) for line in model.under_way.split(b"\xc0") if line]
        waiting.append(sum(map(len, bodies)))
        deliver()

    model._deliver = count  # type: ignore[method-assign]
    model.held_writes = 3
    data = np.random.default_rng(1).integers(0, 256, 20_000, dtype=np.uint8).tobytes()
    board.write_memory(0, data)
    assert model.memory[:20_000].tobytes() == data
    assert 256 < max(waiting) < 512
    assert answer is not None


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A port that nobody answers at."""
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    for handle in (master, slave):
        os.close(handle)


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    port = str(tmp_path / "ttyUSB9")
    with pytest.raises(BoardError) as error:
        Accelerator.open(port)
    message = str(error.value)
    assert message.startswith(f"port = {port}: cannot be opened ([Errno 2] ")
    assert "; is the board plugged in, and may you use the port? Ports of this machine: " in message
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    ("sent", "heard"), [(b"", "not a byte came"), (b"login: \xc0\xc0", "9 bytes came, none of them an answer")]
)
def test_a_port_at_which_no_board_answers(terminal: tuple[int, str], sent: bytes, heard: str) -> None:
    master, port = terminal

    class Talks(Link):
        def _greet(self) -> Info:
            os.write(master, sent)
            self.port.reset_input_buffer = lambda: None  # type: ignore[method-assign]
            return super()._greet()

    import bitwright.fpga.host.driver as driver

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "Link", Talks)
        with pytest.raises(BoardError) as error:
            Accelerator.open(port, timeout_s=0.05, retries=2)
    assert str(error.value) == (
        f"{port}: no board answers at 3000000 baud ({heard}); is it programmed (bitwright fpga program), is this its "
        "port, is the baud rate the board's?"
    )


def test_a_port_in_use_is_refused(terminal: tuple[int, str]) -> None:
    import serial

    _, port = terminal
    with serial.Serial(port, exclusive=True), pytest.raises(BoardError, match=r"cannot be opened .*lock"):
        Accelerator.open(port)


def test_a_board_of_another_kind_or_version_is_refused() -> None:
    model = BoardModel(MACHINE)
    answer = model.answer
    for data, message in (
        (b"hello", "model: 68656c6c6f...: not what a bitwright board answers; is this the board's port?"),
        (
            Info(2, 16, 2048, 65536, 1, bytes(16)).encode(),
            "model: the board speaks version 2 of the link, this host 1; build and program it again (bitwright fpga "
            "build, program)",
        ),
    ):
        model.answer = lambda body, data=data: answer(body)[:4] + data  # type: ignore[method-assign]
        with pytest.raises(BoardError) as error:
            accelerator(model)
        assert str(error.value) == message


def test_a_line_that_goes_in_the_middle_is_reported() -> None:
    model = BoardModel(MACHINE)
    board = accelerator(model)
    model.is_gone = True
    with pytest.raises(BoardError) as error:
        board.read_memory(0, 64)
    assert str(error.value) == "model: the port is gone ([Errno 5] Input/output error); was the board unplugged?"


def test_a_board_that_falls_silent_is_reported() -> None:
    model = BoardModel(MACHINE)
    board = Accelerator(Link(model, "model", 10**9, timeout_s=0, retries=3))
    model.to_board = lambda byte: ()
    with pytest.raises(BoardError) as error:
        board.read_memory(64, 16)
    assert str(error.value) == (
        "model: the board did not answer READ_MEMORY at 0x40, sent 4 times (0 broken frames came); the line loses too "
        "much, or the board was unplugged or lost its bitstream"
    )


def test_a_silent_board_is_reported_with_every_number_under_way() -> None:
    """No number is free for another copy: the link must not wait for ever."""
    model = BoardModel(MACHINE)
    link = Link(model, "model", 10**9, timeout_s=0, retries=500)
    link._credit = 10**6
    model.to_board = lambda byte: ()
    with pytest.raises(BoardError, match=r"^model: the board did not answer READ_MEMORY at 0x0, sent 1 times"):
        link.exchange([read(Op.READ_MEMORY, at, 3) for at in range(2000)])


def test_requests_sent_twice_do_not_keep_the_boards_room() -> None:
    """Second copies of all that is under way are lost after their first answers came: what waits still goes out."""
    model = BoardModel(MACHINE)
    link = Link(model, "model", 10**9, timeout_s=0.01, retries=20)
    link._credit = 2 * (HEADER_BYTES + 4)
    answer, seen = model.answer, []

    def some(body: bytes) -> bytes:
        seen.append(body)
        return b"" if len(seen) in (2, 4, 5, 8) else answer(body)

    model.answer = some  # type: ignore[method-assign]
    answers = link.exchange([read(Op.READ_MEMORY, at, 3) for at in range(8)])
    assert answers == [model.memory[at : at + 3].tobytes() for at in range(8)]


def test_a_run_is_started_once_however_often_it_is_asked_for() -> None:
    model = BoardModel(MACHINE)
    link = Link(model, "model", 10**9, timeout_s=1)
    for _ in range(3):
        link.exchange([Request(Op.RUN, 5)])
    assert model.runs == 1
    link.exchange([Request(Op.RUN, 6)])
    assert model.runs == 2


def test_answers_to_an_earlier_session_are_not_taken() -> None:
    """A host that was killed leaves answers on the line: here one for every number, from another board's memory."""
    model = BoardModel(MACHINE)
    model.reset_input_buffer = lambda: None  # type: ignore[method-assign]
    answer = model.answer

    def after_others(body: bytes) -> bytes:
        session = body[0] % 255 + 1
        for number in range(256):
            for op, data in ((Op.HELLO, Info(1, 8, 512, 4096, 1, bytes(16)).encode()), (Op.READ_MEMORY, b"stale")):
                model.answers += protocol.frame(bytes([session, number, op | protocol.REPLY, Status.OK]) + data)
        wrong = bytes([body[0], body[1], (Op.RUN if body[2] != Op.RUN else Op.HELLO) | protocol.REPLY, Status.OK])
        model.answers += protocol.frame(wrong + b"other")
        return answer(body)

    model.answer = after_others  # type: ignore[method-assign]
    link = Link(model, "model", 10**9, timeout_s=1)
    assert link.info.memory_bytes == model.board.memory_bytes
    assert link.exchange([read(Op.READ_MEMORY, 40, 5)]) == [model.memory[40:45].tobytes()]


def test_many_more_requests_than_numbers_are_answered_in_order() -> None:
    model = BoardModel(MACHINE)
    link = Link(model, "model", 10**9, timeout_s=1)
    answers = link.exchange([read(Op.READ_MEMORY, at, 3) for at in range(2000)])
    assert answers == [model.memory[at : at + 3].tobytes() for at in range(2000)]


def test_products_of_the_rule_on_a_board_have_the_bits_of_the_numpy_rule() -> None:
    """The last token's by the board, those before it in numpy; a whole decode step is `make campaign-fpga`'s."""
    draw = np.random.default_rng(1)
    values, weight = draw.normal(size=(3, 96)).astype(np.float32), draw.normal(size=(37, 96)).astype(np.float32)
    model = BoardModel(MACHINE)
    rule = OnBoard(accelerator(model), LIMITS, "int4_asym", 32, golden=True)
    results = []
    for chosen in (rule, linear.IntegerRule("int4_asym", 32, pass_depth=LIMITS.slice_steps)):
        weights, _ = chosen.encode_weights(weight, "w")
        results.append(chosen.multiply(chosen.encode_acts(values, 1, "x"), weights))
    np.testing.assert_array_equal(results[0].view(np.uint32), results[1].view(np.uint32))
    assert rule.runs == model.runs > 0
    assert rule.cycles > 0


def test_a_prediction_is_the_sum_of_runs_and_line() -> None:
    found = Prediction(2_000_000, 10_000_000, 250_000, 50_000, 3_000_000)
    assert (found.compute_s, found.link_s) == (0.2, 1.0)
    assert found.tokens_per_s == pytest.approx(1 / 1.2)
    assert found.link_share == pytest.approx(1 / 1.2)
