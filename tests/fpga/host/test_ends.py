"""How long an exchange may last: over random lines each ends in the time that docs/fpga-link.md gives; model time."""

from __future__ import annotations

from collections import Counter

import pytest
from bitwright.arch.errors import BoardError
from bitwright.fpga.host import link as links
from bitwright.fpga.host.link import CHARACTER_BITS, Link, Request, read
from bitwright.fpga.link.protocol import Op
from board_model import BoardModel, small_machine
from worse_lines import trouble

BAUD, TIMEOUT_S, RETRIES = 3_000_000, 0.25, 8
POLL_S = 0.05
"""What a read that finds nothing waits, as of the driver's port."""
MACHINE = small_machine()


class Clock:
    """Stands for `time` in the link; the model's reads move it on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class TimedModel(BoardModel):
    """A board model whose reads take time where nothing has come."""

    clock: Clock

    def read(self, size: int) -> bytes:
        data = super().read(size)
        self.clock.now_s += POLL_S * (not data)
        return data


def patience_s(requests: list[Request], copies: int) -> float:
    """The first silence that is a loss, with `copies` of each request under way."""
    under_way = copies * sum(request.cost + links.REPLY_BYTES + request.answer_bytes for request in requests)
    return TIMEOUT_S + 2 * under_way * CHARACTER_BITS / BAUD


def outcome(monkeypatch: pytest.MonkeyPatch, seed: int, every: int, requests: list[Request]) -> tuple[str, float]:
    clock, model = Clock(), TimedModel(MACHINE)
    model.clock = clock
    monkeypatch.setattr(links, "time", clock)
    link = Link(model, "model", BAUD, timeout_s=TIMEOUT_S, retries=RETRIES)  # greeted on a good line
    trouble(model, seed, every, resets=False)
    began = clock.now_s
    try:
        answers = link.exchange(requests)
    except BoardError:
        return "reported", clock.now_s - began
    wanted = [model.memory[r.address : r.address + r.answer_bytes].tobytes() for r in requests]
    assert answers == wanted, f"seed {seed}, a fault every {every} bytes"
    return "right", clock.now_s - began


@pytest.mark.parametrize("every", [3, 20, 150])
def test_one_request_ends_in_95_patiences(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent 9 times, the silences 1, 2, 4, 8 and five times 16 patiences long."""
    requests = [read(Op.READ_MEMORY, 64, 200)]
    bound_s = 95 * patience_s(requests, RETRIES + 1) + (RETRIES + 1) * 2 * POLL_S
    found = [outcome(monkeypatch, seed, every, requests) for seed in range(1000)]
    assert max(seconds for _, seconds in found) <= bound_s
    kinds = Counter(kind for kind, _ in found)
    assert kinds["reported" if every < 150 else "right"] > 0
    if every == 3:  # the bound is reached, so it is no larger than it must be
        assert max(seconds for _, seconds in found) >= 95 * TIMEOUT_S


@pytest.mark.parametrize("every", [20, 150])
def test_a_batch_ends_in_18_of_the_longest_silences_a_request(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each silence ends with one of at most 9 sendings a request, or of as many answers."""
    requests = [read(Op.READ_MEMORY, 16 * at, 40) for at in range(12)]  # 9 * 12 numbers: the window is never full
    bound_s = len(requests) * 18 * (16 * patience_s(requests, RETRIES + 1) + 2 * POLL_S)
    found = [outcome(monkeypatch, seed, every, requests) for seed in range(100)]
    assert max(seconds for _, seconds in found) <= bound_s
    assert {kind for kind, _ in found} <= {"right", "reported"}
