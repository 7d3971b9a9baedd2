"""What rides on the streams of a PE in simulation: the rules of the handshake, and the sums in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bitwright.arch.pe.stream import Field

Bits = int | str  # a number, or the bits as text where some are x


def shown(bits: Bits | None, fields: Sequence[Field] = ()) -> str:
    """A payload for a message: in bits, and each field in decimal."""
    if bits is None or isinstance(bits, str):
        return "x" if bits is None else f"0b{bits}"
    parts, at = [], 0
    for field in fields:
        lanes = []
        for _ in range(field.lanes):
            code = bits >> at & ((1 << field.bits) - 1)
            lanes.append(code - (1 << field.bits) if field.signed and code > field.high else code)
            at += field.bits
        parts.append(f"{field.name} {lanes[0] if field.lanes == 1 else lanes}")
    width = max(1, -(-at // 4))
    return f"{bits:#0{width + 2}x}" + (f" ({', '.join(parts)})" if parts else "")


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


class Scoreboard:
    """The sums that a PE owes, in order, from the steps that it took: (number of the last step, the sum's bits).

    The bits are None where a sum goes back to before a reset: the PE owes one, of any value.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = fields
        self.owed: deque[tuple[int, int | None]] = deque()
        self.begun = False

    def reset(self) -> None:
        """A reset loses steps in flight and sums on offer."""
        self.owed.clear()
        self.begun = False

    def took(self, number: int, first: bool, last: bool, sum_bits: int | None) -> None:
        """A step was taken; `sum_bits` is the golden sum at a step marked `last`."""
        self.begun = self.begun or first
        if last:
            self.owed.append((number, sum_bits if self.begun else None))

    def offered(self, payload: Bits | None) -> str | None:
        """A sum is on offer in this cycle; returns what is wrong with it."""
        if not self.owed:
            return "sum.valid = 1: must be 0, every sum was taken (or lost in a reset)"
        number, want = self.owed[0]
        if want is None or payload == want:
            return None
        return (
            f"sum.payload = {shown(payload, self.fields)}: must be {shown(want, self.fields)}, the sum to step {number}"
        )
