"""What host and board say to one another, byte for byte: the one description, in words in docs/fpga-link.md.

The hardware (`framing`, `requests`) and the host (`fpga.host.link`) both take their numbers from here.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from enum import IntEnum

from bitwright.arch.isa.limits import limits
from bitwright.arch.machine import Machine
from bitwright.arch.registers import MAJOR, MINOR

VERSION = 1
"""Moves when a host of the old protocol would go wrong."""

END, ESCAPE = 0xC0, 0xDB
"""End a frame; say that the next byte stands for one of these two."""
ESCAPED = {END: 0xDC, ESCAPE: 0xDD}
_MEANT = {code: byte for byte, code in ESCAPED.items()}

CRC_BYTES = 4
HEADER_BYTES = 7
"""Of a request: session, number, op, 4 of the address."""
REPLY_BYTES = 4
"""Of a reply: session, number, op with REPLY, status."""
LENGTH_BYTES = 2
"""How much a read asks for, after its header."""
REPLY = 0x80
NO_SESSION = 0
"""What a board has that was reset, or was not yet greeted."""


class Op(IntEnum):
    """What a request asks for."""

    HELLO = 1  # begin the session that the header names; answers with an Info
    READ_MEMORY = 2
    WRITE_MEMORY = 3
    READ_REGISTERS = 4
    WRITE_REGISTERS = 5
    RUN = 6  # start the run that the address numbers, unless it was the last one


class Status(IntEnum):
    """How a request went. Any but OK: nothing of what was to be read follows."""

    OK = 0
    BAD_REQUEST = 1  # an unknown op, no or half words, an address outside, a register that is not for this op
    NO_SESSION = 2  # another session than the board's, which may have been reset
    BUSY = 3  # memory during a run; a run during a run
    REFUSED = 4  # the accelerator's registers answered with an error


class FrameError(ValueError):
    """Bytes that are no frame."""


def crc(body: bytes) -> bytes:
    """CRC-32 of IEEE 802.3, lowest byte first."""
    return zlib.crc32(body).to_bytes(CRC_BYTES, "little")


def frame(body: bytes) -> bytes:
    """A body on the line: END, body and CRC with END and ESCAPE escaped, END."""
    whole = body + crc(body)
    whole = whole.replace(bytes([ESCAPE]), bytes([ESCAPE, ESCAPED[ESCAPE]]))
    whole = whole.replace(bytes([END]), bytes([ESCAPE, ESCAPED[END]]))
    return bytes([END]) + whole + bytes([END])


def body_of(line: bytes) -> bytes:
    """The body of what stood between two ENDs. FrameError for a wrong escape, a wrong CRC, too few bytes."""
    first, *rest = line.split(bytes([ESCAPE]))
    whole = bytearray(first)
    for part in rest:
        if not part or part[0] not in _MEANT:
            raise FrameError(f"an escape before {part[:1].hex() or 'the end'}")
        whole.append(_MEANT[part[0]])
        whole += part[1:]
    if len(whole) <= CRC_BYTES:
        raise FrameError(f"{len(whole)} bytes: no room for a body")
    body, check = bytes(whole[:-CRC_BYTES]), bytes(whole[-CRC_BYTES:])
    if crc(body) != check:
        raise FrameError(f"CRC {check.hex()}, computed {crc(body).hex()}")
    return body


def request(session: int, number: int, op: Op, address: int, rest: bytes = b"") -> bytes:
    """The body of a request; `rest` is what is written, or a read's length."""
    return bytes([session, number, op]) + address.to_bytes(4, "little") + rest


def length(size: int) -> bytes:
    """What a read adds to its header: how many bytes."""
    return size.to_bytes(LENGTH_BYTES, "little")


@dataclass(frozen=True)
class Info:
    """What a board says of itself when it is greeted.

    Members
        version : of the protocol
        port_bytes : of a beat
        link_bytes : requests that may wait unanswered, counted in bytes of their bodies
        memory_bytes : of the accelerator's memory, from address 0
        clock_hz : of the accelerator
        design : which machine it is (`design_id`)
    """

    version: int
    port_bytes: int
    link_bytes: int
    memory_bytes: int
    clock_hz: int
    design: bytes

    def encode(self) -> bytes:
        """The INFO_BYTES bytes."""
        numbers = ((self.version, 1), (self.port_bytes, 1), (self.link_bytes, 2), (self.memory_bytes, 4))
        parts = [number.to_bytes(size, "little") for number, size in (*numbers, (self.clock_hz, 4))]
        return MAGIC + b"".join(parts) + self.design

    @classmethod
    def decode(cls, data: bytes) -> Info:
        """FrameError for bytes that are none."""
        if len(data) < 5 or data[:4] != MAGIC:
            raise FrameError(f"{data[:8].hex()}...: not what a bitwright board answers")
        if data[4] == VERSION and len(data) != INFO_BYTES:
            raise FrameError(f"{len(data)} bytes: must be {INFO_BYTES}")
        number = int.from_bytes
        return cls(
            data[4], data[5], number(data[6:8], "little"), number(data[8:12], "little"),
            number(data[12:16], "little"), bytes(data[16:]),
        )  # fmt: skip


MAGIC = b"bitw"
DESIGN_BYTES = 16
INFO_BYTES = 16 + DESIGN_BYTES


def design_id(machine: Machine) -> bytes:
    """What of a machine its programs depend on, as a hash: equal where a program for one runs on the other."""
    facts = machine.model_dump(mode="json", include={"pe", "array", "buffers", "port"})
    facts |= {"formats": [form.name for form in limits(machine).formats], "registers": [MAJOR, MINOR]}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()[:DESIGN_BYTES]
