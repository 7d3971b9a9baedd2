"""What rides on the streams of a PE in simulation: the rules of the handshake, and the sums in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bitwright.arch.pe.stream import Field

SHOWN_LANES, SHOWN_STEPS = 8, 4
Bits = int | str  # a number, or the bits as text where some are x


def bits_of(handle: Any) -> Bits:
    """A signal of cocotb's as a number, or as text where some of its bits are x."""
    text = str(handle.value)
    try:
        return int(text, 2)
    except ValueError:
        return text


def number_of(handle: Any) -> int | None:
    """The same of a signal that may not be x: None if it is."""
    value = bits_of(handle)
    return value if isinstance(value, int) else None


def shown(bits: Bits | None, fields: Sequence[Field] = ()) -> str:
    """A payload for a message: in bits, and each field in decimal."""
    if bits is None or isinstance(bits, str):
        return "x" if bits is None else f"0b{bits}"
    width = max(1, -(-sum(field.bits * field.lanes for field in fields) // 4))
    return f"{bits:#0{width + 2}x}" + (f" ({decimal(bits, fields, ' ')})" if fields else "")


def decimal(bits: int, fields: Sequence[Field], equals: str = " = ") -> str:
    """Each field of a payload in decimal; of more than `SHOWN_LANES` lanes the first ones."""
    parts, at = [], 0
    for field in fields:
        lanes = []
        for lane in range(min(field.lanes, SHOWN_LANES)):
            code = bits >> at + lane * field.bits & ((1 << field.bits) - 1)
            lanes.append(str(code - (1 << field.bits) if field.signed and code > field.high else code))
        if field.lanes > SHOWN_LANES:
            lanes.append("...")
        parts.append(f"{field.name}{equals}{lanes[0] if field.lanes == 1 else '[' + ', '.join(lanes) + ']'}")
        at += field.bits * field.lanes
    return ", ".join(parts)


def steps_of_sum(
    numbers: Sequence[int], payload: Callable[[int], int], fields: Sequence[Field], name: str = "step"
) -> str:
    """The operands of a sum for a message; of more than `SHOWN_STEPS` steps those of the first two and the last.

    numbers : of its steps. payload : the bits of the step of a number. name : what the steps are called.
    """
    count = len(numbers)
    if count <= SHOWN_STEPS:
        head = f"its {name}" if count == 1 else f"its {name}s"
        places: Sequence[int] = range(count)
    else:
        head, places = f"of its {count} {name}s,", (0, 1, count - 1)
    steps = [f"{numbers[place]}: {decimal(payload(numbers[place]), fields)}" for place in places]
    return f"{head} {'; '.join(steps)}"


def another_latency(given: int, measured: int) -> str:
    """The tail of a message when every sum comes the same number of cycles too late or too early."""
    if measured < 1:
        return ""
    cycles, way = abs(measured - given), "later" if measured > given else "earlier"
    return f"; it came {cycles} cycle{'s' if cycles > 1 else ''} {way}: try --latency {measured}"


class HandshakeMonitor:
    """The rules of one valid/ready stream: `valid` and the payload hold until `ready`; neither signal is ever x.

    `transfers` and `held` count the cycles in which the payload was taken and in which it waited.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: Bits | None = None
        self.transfers = self.held = 0

    def reset(self) -> None:
        """A reset takes back whatever was on offer."""
        self.waiting = None

    def sample(self, valid: int | None, ready: int | None, payload: Bits | None) -> str | None:
        """One cycle; returns what broke a rule."""
        for signal, value in (("valid", valid), ("ready", ready)):
            if value is None:
                return f"{self.name}.{signal} = x: must be 0 or 1 after a reset"
        if self.waiting is not None and not valid:
            return f"{self.name}.valid fell before {self.name}.ready: must hold until the payload is taken"
        if self.waiting is not None and payload != self.waiting:
            return (
                f"{self.name}.payload changed from {shown(self.waiting)} to {shown(payload)} while it waited for "
                f"{self.name}.ready: must hold still"
            )
        self.waiting = payload if valid and not ready else None
        self.transfers += bool(valid and ready)
        self.held += bool(valid and not ready)
        return None


@dataclass(frozen=True)
class Owed:
    """A sum that is due: the number of its last step, its bits, and its steps as (number, payload), the first `count`.

    The bits are None where a sum goes back to before a reset: the PE owes one, of any value.
    """

    number: int
    sum_bits: int | None
    steps: list[tuple[int, int]]
    count: int


class Scoreboard:
    """The sums that a PE owes, in order, from the steps that it took.

    step_fields, sum_fields : of the two payloads. source, sink : what the streams are called.
    """

    def __init__(
        self, step_fields: Sequence[Field], sum_fields: Sequence[Field], source: str = "step", sink: str = "sum"
    ) -> None:
        self.step_fields, self.sum_fields = tuple(step_fields), tuple(sum_fields)
        self.source, self.sink = source, sink
        self.owed: deque[Owed] = deque()
        self.steps: list[tuple[int, int]] | None = None  # of the sum that is begun; shared with the sums owed

    def reset(self) -> None:
        """A reset loses steps in flight and sums on offer."""
        self.owed.clear()
        self.steps = None

    def clear(self, on_offer: bool) -> None:
        """A clear loses steps and sums in flight; the sum on offer, if one is and waits, stays."""
        held = [self.owed[0]] if on_offer else []
        self.reset()
        self.owed.extend(held)

    def took(self, number: int, first: bool, last: bool, sum_bits: int | None, payload: int = 0) -> None:
        """A step was taken; `sum_bits` is the golden sum at a step marked `last`."""
        if first:
            self.steps = []
        if self.steps is not None:
            self.steps.append((number, payload))
        if last and self.steps is None:
            self.owed.append(Owed(number, None, [], 0))
        elif last and self.steps is not None:
            self.owed.append(Owed(number, sum_bits, self.steps, len(self.steps)))

    def offered(self, payload: Bits | None) -> str | None:
        """A sum is on offer in this cycle; returns what is wrong with it."""
        if not self.owed:
            return f"{self.sink}.valid = 1: must be 0, every sum was taken (or lost in a reset)"
        due = self.owed[0]
        if due.sum_bits is None or payload == due.sum_bits:
            return None
        fields, steps = self.sum_fields, dict(due.steps[: due.count])
        return (
            f"{self.sink}.payload = {shown(payload, fields)}: must be {shown(due.sum_bits, fields)}; "
            f"{steps_of_sum(list(steps), steps.__getitem__, self.step_fields, self.source)}"
        )
