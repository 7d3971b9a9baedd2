"""Requests over a serial line that may lose, change or delay bytes: each is answered, or an error says that it was not.

A request is sent as a copy with a number of its own; sent again, it is another copy. The board drops a frame whose CRC
is wrong, and so does the host. The line keeps its order and the board answers in order: once a copy is answered, every
copy before it that was not is lost, and its request is sent again at once. After a silence one request is sent again:
its answer tells of all the others.

Why sending again does no harm. What is unanswered at a time (a batch) is all reads or all writes, and every request is
one that may be done twice (RUN: the board does it once a number).

Why no late answer is taken for another's. Copies are numbered 0..255 around, and none is sent while one that is WINDOW
or more before it is neither answered nor lost. So when a number is used again, its last copy has been answered, or an
answer to a later one was here: nothing of it comes any more.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bitwright.arch.errors import BoardError
from bitwright.fpga.link import protocol
from bitwright.fpga.link.protocol import HEADER_BYTES, REPLY, REPLY_BYTES, FrameError, Info, Op, Status

CHARACTER_BITS = 10
_NUMBERS, WINDOW = 256, 128
_MOST_DOUBLED, _HELLO_RETRIES = 4, 3
"""How often a wait in silence is doubled; how often a board is greeted again."""
_MOST_PART_BYTES = 1 << 16
"""Of a frame that does not end."""
_LEAST_CREDIT = 256
"""Bytes that every board has room for, before it has said how much it has."""

Progress = Callable[[int, int], None]
"""Called with the bytes that were answered for, and all bytes."""


class SerialPort(Protocol):
    """What of `serial.Serial` is used. OSError (as serial.SerialException is one) when the port is gone."""

    @property
    def in_waiting(self) -> int: ...
    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes) -> int | None: ...
    def reset_input_buffer(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Request:
    """What is asked of a board; `rest` is what is written, or a read's length; `answer_bytes` of it are expected."""

    op: Op
    address: int
    rest: bytes = b""
    answer_bytes: int = 0

    @property
    def cost(self) -> int:
        """Bytes of the board's room that it takes."""
        return HEADER_BYTES + len(self.rest)


def read(op: Op, address: int, size: int) -> Request:
    """Of memory or registers."""
    return Request(op, address, protocol.length(size), size)


@dataclass
class Statistics:
    """What went over a link since it was opened."""

    bytes_sent: int = 0
    bytes_received: int = 0
    requests: int = 0
    sent_again: int = 0
    frames_lost: int = 0


@dataclass(eq=False)
class _Entry:
    """A request of a batch."""

    index: int
    request: Request
    sends: int = 0
    done: bool = False

    @property
    def answer_bytes(self) -> int:
        """Of its answer's body, as far as that is known."""
        return REPLY_BYTES + max(0, self.request.answer_bytes)


@dataclass
class Link:
    """A session with a board.

    Parameters
        port : open, its reads give up after a short time
        name : of the port, for messages
        baud : of the line: how long silence may last follows from it
        timeout_s : silence that is a loss, beyond the time that the bytes under way take; each time that nothing comes
            twice as long, at most 16 times: a busy machine is no lost byte
        retries : how often a request is sent again before the link is given up; a greeting at most 3 times
    Members
        info : of the board, once greeted
    BoardError: nothing answers, what answers is no board of ours, the board was reset, requests stay unanswered.
    """

    port: SerialPort
    name: str
    baud: int
    timeout_s: float = 0.25
    retries: int = 8
    statistics: Statistics = field(default_factory=Statistics)

    def __post_init__(self) -> None:
        self._session = random.randint(1, 255)
        self._number = random.randrange(_NUMBERS)
        self._credit = _LEAST_CREDIT
        self._part = bytearray()  # of a frame
        self.info = self._greet()
        self._credit = self.info.link_bytes - 1

    def _greet(self) -> Info:
        try:
            self.port.reset_input_buffer()
        except OSError as error:
            raise self._gone(error) from error
        (answer,) = self.exchange([Request(Op.HELLO, 0, answer_bytes=-1)])
        try:
            info = Info.decode(answer)
        except FrameError as error:
            raise BoardError(f"{self.name}: {error}; is this the board's port?") from None
        if info.version != protocol.VERSION:
            raise BoardError(
                f"{self.name}: the board speaks version {info.version} of the link, this host {protocol.VERSION}; "
                "build and program it again (bitwright fpga build, program)"
            )
        return info

    def exchange(self, requests: Sequence[Request], progress: Progress | None = None) -> list[bytes]:
        """Do requests that may be done in any order, and twice: all reads or all writes. Their answers, in order.

        BoardError too for one that the board refuses.
        """
        answers: list[bytes] = [b""] * len(requests)
        todo = deque(_Entry(index, request) for index, request in enumerate(requests))
        copies: dict[int, _Entry] = {}  # by number, in the order in which they were sent
        total = sum(request.cost + max(0, request.answer_bytes) for request in requests)
        done = 0
        quiet_since, silences = time.monotonic(), 0
        while todo or copies:
            while todo and self._may_send(todo[0], copies):
                self._send(todo.popleft(), copies)
                quiet_since = time.monotonic()
            for body in self._receive():
                found = self._match(body, copies)
                if found is None:
                    continue
                quiet_since, silences = time.monotonic(), 0
                number, data = found
                answered = copies[number]
                lost = list(copies)[: list(copies).index(number)]
                again = {copies[other] for other in lost} - {answered}
                for other in (*lost, number):
                    del copies[other]
                if not answered.done:
                    answered.done, answers[answered.index] = True, data
                    done += answered.request.cost + max(0, answered.request.answer_bytes)
                    if progress is not None:
                        progress(done, total)
                again = {entry for entry in again if not entry.done} - set(copies.values())
                todo.extendleft(sorted(again, key=lambda entry: -entry.index))
            if not todo and all(entry.done for entry in copies.values()):
                break  # what is left was sent twice; an answer to it is too late for anyone
            under_way = sum(entry.request.cost + entry.answer_bytes for entry in copies.values())
            patience_s = (self.timeout_s + 2 * under_way * CHARACTER_BITS / self.baud) * 2 ** min(
                silences, _MOST_DOUBLED
            )
            if copies and time.monotonic() - quiet_since > patience_s:
                # One that is done is as good a probe as any: its second answer frees the room of all before it.
                probe = next((entry for entry in copies.values() if not entry.done), next(iter(copies.values())))
                if self._in_window(copies):
                    self._send(probe, copies)
                elif silences > _MOST_DOUBLED:
                    raise BoardError(self._silent(probe))
                quiet_since, silences = time.monotonic(), silences + 1
        return answers

    def _may_send(self, entry: _Entry, copies: dict[int, _Entry]) -> bool:
        """Whether the board has room for it, and its number is free."""
        used = sum(copy.request.cost for copy in copies.values())
        return not copies or (entry.request.cost <= self._credit - used and self._in_window(copies))

    def _in_window(self, copies: dict[int, _Entry]) -> bool:
        """Whether the next number may go out: the oldest copy that may be answered is less than WINDOW before it."""
        oldest = next(iter(copies))
        return (self._number + 1 - oldest) % _NUMBERS < WINDOW

    def _send(self, entry: _Entry, copies: dict[int, _Entry]) -> None:
        """Another copy of a request."""
        if entry.sends > (min(self.retries, _HELLO_RETRIES) if entry.request.op is Op.HELLO else self.retries):
            raise BoardError(self._silent(entry))
        self.statistics.requests += entry.sends == 0
        self.statistics.sent_again += entry.sends > 0
        entry.sends += 1
        number = self._number = (self._number + 1) % _NUMBERS
        copies[number] = entry
        request = entry.request
        line = protocol.frame(protocol.request(self._session, number, request.op, request.address, request.rest))
        self.statistics.bytes_sent += len(line)
        try:
            self.port.write(line)
        except OSError as error:
            raise self._gone(error) from error

    def _silent(self, entry: _Entry) -> str:
        if entry.request.op is Op.HELLO:
            heard = self.statistics.bytes_received
            what = f"{heard} bytes came, none of them an answer" if heard else "not a byte came"
            return (
                f"{self.name}: no board answers at {self.baud} baud ({what}); is it programmed (bitwright fpga "
                "program), is this its port, is the baud rate the board's?"
            )
        return (
            f"{self.name}: the board did not answer {entry.request.op.name} at {entry.request.address:#x}, sent "
            f"{entry.sends} times ({self.statistics.frames_lost} broken frames came); the line loses too much, or the "
            "board was unplugged or lost its bitstream"
        )

    def _gone(self, error: OSError) -> BoardError:
        return BoardError(f"{self.name}: the port is gone ({error}); was the board unplugged?")

    def _receive(self) -> list[bytes]:
        """The bodies of the frames that have come; waits a little for the first byte."""
        try:
            data = self.port.read(max(1, self.port.in_waiting))
        except OSError as error:
            raise self._gone(error) from error
        self.statistics.bytes_received += len(data)
        *lines, rest = bytes(self._part + data).split(bytes([protocol.END]))
        self._part = bytearray(rest[:_MOST_PART_BYTES])
        bodies = []
        for line in lines:
            if line:
                try:
                    bodies.append(protocol.body_of(line))
                except FrameError:
                    self.statistics.frames_lost += 1
        return bodies

    def _match(self, body: bytes, copies: dict[int, _Entry]) -> tuple[int, bytes] | None:
        """Which copy a reply answers, and with what; None: none, it is late."""
        if len(body) < REPLY_BYTES:
            return None
        session, number, op, status = body[:REPLY_BYTES]
        entry = copies.get(number)
        if session != self._session or entry is None or op != entry.request.op | REPLY:
            return None
        if status != Status.OK:
            self._refused(entry.request, status)
        data = body[REPLY_BYTES:]
        if len(data) != entry.request.answer_bytes and entry.request.answer_bytes >= 0:
            raise BoardError(
                f"{self.name}: {len(data)} bytes answer {entry.request.op.name} at {entry.request.address:#x}: must be "
                f"{entry.request.answer_bytes}; host and board do not speak the same protocol"
            )
        return number, data

    def _refused(self, request: Request, status: int) -> None:
        if status == Status.NO_SESSION:
            raise BoardError(
                f"{self.name}: the board was reset since it was opened: what was loaded may be lost; open it again"
            )
        name = Status(status).name if status in list(Status) else f"status {status}"
        raise BoardError(f"{self.name}: the board refuses {request.op.name} at {request.address:#x}: {name}")

    def close(self) -> None:
        """Give the port back."""
        self.port.close()
