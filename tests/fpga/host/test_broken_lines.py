"""The host driver over lines that break what they carry: the golden result, or an error that says so; nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch.errors import BoardError
from bitwright.arch.isa.interpreter import run as interpret
from bitwright.arch.isa.limits import limits
from bitwright.fpga.host.driver import Accelerator
from bitwright.fpga.host.link import Link, read
from bitwright.fpga.link.protocol import Op
from bitwright.workloads.layout import OUT_REGION
from bitwright.workloads.linear import encode_int8_acts
from bitwright.workloads.lowering import Lowered, lower
from board_model import BoardModel, small_machine
from hypothesis import given, settings
from hypothesis import strategies as st
from worse_lines import trouble

MACHINE = small_machine()
LIMITS = limits(MACHINE)


def product(seed: int) -> Lowered:
    draw = np.random.default_rng(seed)
    weights = formats.get("int4_asym").encode(draw.normal(size=(9, 40)).astype(np.float32), group=32)
    return lower(weights, encode_int8_acts(draw.normal(size=(2, 40)).astype(np.float32), None), LIMITS)


LOWERED = product(1)
EXPECTED = [region.copy() for region in LOWERED.memory]
interpret(LOWERED.program, LIMITS, EXPECTED)


def run_on(model: BoardModel) -> list[np.ndarray]:
    """A product through the driver; timeouts are as short as they can be, since the model takes no time."""
    board = Accelerator(Link(model, "model", 10**9, timeout_s=0))
    board._check(MACHINE)
    memory = [region.copy() for region in LOWERED.memory]
    assert board.run(LOWERED.program, memory).fault is None
    return memory


def outcome(seed: int, every: int, resets: bool) -> str:
    model = BoardModel(MACHINE)
    trouble(model, seed, every, resets=resets)
    try:
        memory = run_on(model)
        result = "recovered"
    except BoardError:
        result = "reported"
    else:
        for found, wanted in zip(memory, EXPECTED, strict=True):
            np.testing.assert_array_equal(found, wanted)
    clean = BoardModel.__dataclass_fields__
    model.to_board, model.to_host = clean["to_board"].default, clean["to_host"].default
    model.held_reads = model.held_writes = 0
    after = run_on(model)  # whatever has happened, the next host finds a board that works
    np.testing.assert_array_equal(after[OUT_REGION], EXPECTED[OUT_REGION])
    return result


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), every=st.sampled_from((40, 200, 600, 2000)), resets=st.booleans())
def test_no_wrong_result_is_ever_taken_for_right(seed: int, every: int, resets: bool) -> None:
    outcome(seed, every, resets)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), every=st.sampled_from((60, 200)))
def test_many_more_requests_than_numbers_are_each_given_their_own_answer(seed: int, every: int) -> None:
    """Numbers are used again while late answers are still on the way."""
    model = BoardModel(MACHINE)
    link = Link(model, "model", 10**9, timeout_s=0, retries=100)
    trouble(model, seed, every, resets=False)
    answers = link.exchange([read(Op.READ_MEMORY, at, 3) for at in range(520)])
    assert answers == [model.memory[at : at + 3].tobytes() for at in range(520)]


@pytest.mark.parametrize(("every", "least"), [(2000, 10), (600, 7)])
def test_a_line_that_is_not_too_bad_is_recovered_from(every: int, least: int) -> None:
    results = [outcome(seed, every, False) for seed in range(10)]
    assert results.count("recovered") >= least


def test_a_line_that_loses_everything_is_reported() -> None:
    model = BoardModel(MACHINE)
    model.to_board = lambda byte: ()
    with pytest.raises(BoardError) as error:
        Link(model, "model", 10**9, timeout_s=0)
    assert str(error.value) == (
        "model: no board answers at 1000000000 baud (not a byte came); is it programmed (bitwright fpga program), is "
        "this its port, is the baud rate the board's?"
    )
