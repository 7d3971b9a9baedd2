# amaranth: UnusedElaboratable=no
# (parts that are refused)
"""Frames: the software's two directions against one another and single faults, the gates' against the software's.

Independent source of the CRC: zlib (software), amaranth.lib.crc (gates).
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.fpga.link.framing import Deframer, Framer
from bitwright.fpga.link.protocol import END, ESCAPE, FrameError, body_of, frame
from bitwright.rtl.accelerator import memories
from bitwright.rtl.bench.verilator import Compiled
from hypothesis import given
from hypothesis import strategies as st

HARD = bytes([END, ESCAPE, 0xDC, 0xDD, 0])
bodies = st.binary(min_size=1, max_size=40) | st.lists(st.sampled_from(HARD), min_size=1, max_size=30).map(bytes)


@lru_cache
def compiled(kind: str) -> Compiled:
    part = Deframer(512) if kind == "deframer" else Framer()
    return Compiled(memories.verilog(part, kind), kind, optimise="-O1")


@given(body=bodies)
def test_a_body_comes_out_as_it_went_in(body: bytes) -> None:
    line = frame(body)
    assert line[0] == line[-1] == END
    assert END not in line[1:-1]
    assert body_of(line[1:-1]) == body


@given(body=bodies, data=st.data())
def test_no_single_fault_gives_another_body(body: bytes, data: st.DataObject) -> None:
    """A bit changed, a byte lost or doubled: what comes out, if something does, is the body."""
    line = bytearray(frame(body))
    at = data.draw(st.integers(0, len(line) - 1))
    kind = data.draw(st.sampled_from(("flip", "drop", "double")))
    if kind == "flip":
        line[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "drop":
        del line[at]
    else:
        line.insert(at, line[at])
    for part in filter(None, bytes(line).split(bytes([END]))):
        try:
            assert body_of(part) == body
        except FrameError:
            continue


def worse(line: bytes, draw: random.Random) -> bytes:
    """A frame, or one that something has happened to."""
    broken = bytearray(line)
    for _ in range(draw.choice((0, 0, 0, 1, 1, 2))):
        at = draw.randrange(len(broken))
        match draw.randrange(4):
            case 0:
                broken[at] ^= 1 << draw.randrange(8)
            case 1:
                del broken[at]
            case 2:
                broken.insert(at, draw.choice(HARD))
            case 3:
                broken[at] = draw.choice(HARD)
    return bytes(broken) or line


def test_the_gates_take_the_same_frames_as_the_software() -> None:
    draw = random.Random(1)
    for _ in range(40):
        line = b"".join(
            worse(frame(bytes(draw.choice((draw.randrange(256), draw.choice(HARD))) for _ in range(size))), draw)
            for size in (draw.randrange(1, 60) for _ in range(20))
        ) + bytes([END])
        wanted, lost = [], 0
        for part in filter(None, line.split(bytes([END]))):
            try:
                wanted.append(body_of(part))
            except FrameError:
                lost += 1
        found, dropped = deframed(line, draw)
        assert found == wanted
        assert dropped == lost


def deframed(line: bytes, draw: random.Random, *, slow: bool = False) -> tuple[list[bytes], int]:
    """What the gates make of a line whose bytes come 4 cycles or more apart, a reader that pauses, and frames lost."""
    gaps = [draw.choice((4, 4, 5, 9)) for _ in line]
    cycles = sum(gaps) + (20_000 if slow else 200)
    valid, data = np.zeros(cycles, np.uint8), np.zeros(cycles, np.uint8)
    at = np.cumsum(gaps)
    valid[at], data[at] = 1, np.frombuffer(line, np.uint8)
    often = 0.14 if slow else 0.8
    ready = np.asarray([draw.random() < often for _ in range(cycles)], np.uint8)
    with compiled("deframer").open(random_state=True, seed=draw.randrange(1, 1000)) as simulation:
        simulation.reset()
        out = simulation.run({"valid": valid, "data": data, "bodies__ready": ready})
    taken = (out["bodies__valid"] & ready).astype(bool)
    found, part = [], bytearray()
    for word in out["bodies__payload"][taken].tolist():
        part.append(word & 0xFF)
        if word >> 8:
            found.append(bytes(part))
            part.clear()
    assert not part, "the last body has an end"
    return found, int(out["lost"].sum())


def test_bodies_that_find_no_room_are_lost_whole() -> None:
    """511 bytes wait at most; what comes then is dropped, and after room was made all is well."""
    sent = [bytes([number]) * 100 for number in range(1, 9)]
    line = b"".join(map(frame, sent))
    cycles = 4 * len(line) + 2000
    valid, data = np.zeros(cycles, np.uint8), np.zeros(cycles, np.uint8)
    valid[: 4 * len(line) : 4], data[: 4 * len(line) : 4] = 1, np.frombuffer(line, np.uint8)
    with compiled("deframer").open() as simulation:
        simulation.reset()
        blocked = simulation.run({"valid": valid, "data": data})
        assert int(blocked["lost"].sum()) == 3
        out = simulation.run({"bodies__ready": 1}, 2000)
        words = out["bodies__payload"][out["bodies__valid"].astype(bool)]
        assert [word & 0xFF for word in words.tolist()] == [byte for body in sent[:5] for byte in body]
        out = simulation.run({"valid": valid, "data": data, "bodies__ready": np.ones(cycles, np.uint8)})
        assert int(out["bodies__valid"].sum()) == 800


def test_a_body_that_finds_room_only_later_is_lost_whole() -> None:
    """A reader that is about as slow as the line: room comes and goes within a frame."""
    draw = random.Random(4)
    for _ in range(6):
        sent = [draw.randbytes(draw.randrange(50, 300)) for _ in range(20)]
        found, dropped = deframed(b"".join(map(frame, sent)), draw, slow=True)
        rest = iter(sent)
        assert all(body in rest for body in found), "bodies as they were sent, in order"
        assert dropped == len(sent) - len(found)
        assert dropped > 0


def test_a_broken_character_loses_its_frame() -> None:
    line = frame(b"hello") + frame(b"again")
    for at in range(len(line)):
        valid = np.tile(np.asarray([1, 0, 0, 0], np.uint8), len(line))
        data = np.repeat(np.frombuffer(line, np.uint8), 4)
        broken = np.zeros(4 * len(line), np.uint8)
        broken[4 * at] = 1
        with compiled("deframer").open() as simulation:
            simulation.reset()
            pins = {"valid": valid, "data": data, "broken": broken, "bodies__ready": np.ones(len(valid), np.uint8)}
            out = simulation.run(pins)
            tail = simulation.run({"bodies__ready": 1}, 40)
        words = [
            word & 0xFF
            for part in (out, tail)
            for word in part["bodies__payload"][part["bodies__valid"].astype(bool)].tolist()
        ]
        assert bytes(words) == (b"again" if at < len(frame(b"hello")) else b"hello"), at


def test_the_gates_send_the_frames_of_the_software() -> None:
    draw = random.Random(2)
    sent = [bytes(draw.choice((draw.randrange(256), draw.choice(HARD))) for _ in range(size)) for size in range(1, 60)]
    words = [byte | (at + 1 == len(body)) << 8 for body in sent for at, byte in enumerate(body)]
    wanted = b"".join(map(frame, sent))
    found = bytearray()
    with compiled("framer").open(random_state=True, seed=3) as simulation:
        simulation.reset()
        while len(found) < len(wanted):
            offers, ready = bool(words) and draw.random() < 0.9, draw.random() < 0.7
            pins = {"bodies__valid": int(offers), "bodies__payload": words[0] if words else 0}
            out = simulation.run({**pins, "bytes__ready": int(ready)}, 1)
            if offers and out["bodies__ready"][0]:
                words.pop(0)
            if ready and out["bytes__valid"][0]:
                found.append(int(out["bytes__payload"][0]))
    assert bytes(found) == wanted


def test_a_ring_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        Deframer(1000)
    assert str(error.value) == "link_bytes = 1000: must be a power of two in 512..32768"
