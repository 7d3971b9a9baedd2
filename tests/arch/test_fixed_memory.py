"""The fixed-timing memory: worked examples, and against a memory that is played cycle by cycle."""

from __future__ import annotations

import random

import pytest
from bitwright.arch import config
from bitwright.arch.errors import ConfigError
from bitwright.arch.fixed_memory import Burst, FixedMemory, FixedMemoryTiming, bursts

SEED = 20261123


def test_a_read_alone_takes_its_latency_and_then_a_beat_every_beat_cycles() -> None:
    timing = FixedMemoryTiming(FixedMemory(latency_cycles=7, beat_cycles=3))
    assert timing.read(10, 4) == Burst(first_beat=17, last_beat=26)
    assert timing.free == 29


def test_a_write_shares_the_bus_and_is_answered_after_its_last_beat() -> None:
    timing = FixedMemoryTiming(FixedMemory(latency_cycles=2, beat_cycles=1, response_cycles=5))
    assert timing.read(0, 8) == Burst(2, 9)
    assert timing.write(0, 2) == Burst(10, 11, 16)  # accepted in the same cycle, served after the read
    assert timing.read(50, 1) == Burst(52, 52)  # the bus was free


@pytest.mark.parametrize("kind", ["read", "write"])
def test_ready_comes_in_the_cycle_after_the_oldest_has_ended(kind: str) -> None:
    memory = FixedMemory(latency_cycles=3, beat_cycles=1, reads=2, writes=2, response_cycles=4)
    timing = FixedMemoryTiming(memory)
    ready, serve = (lambda: getattr(timing, f"{kind}_ready_from")), getattr(timing, kind)
    assert ready() == 0
    first = serve(0, 5)
    assert ready() == 0
    serve(1, 5)
    end = first.last_beat if kind == "read" else first.response
    assert end is not None
    assert ready() == end + 1
    with pytest.raises(AssertionError, match=rf"^a {kind} in cycle {end}, not ready before {end + 1}$"):
        serve(end, 1)
    serve(end + 1, 1)


def test_bursts_are_told_in_order_of_time_and_a_read_before_a_write() -> None:
    timing = FixedMemoryTiming(FixedMemory())
    timing.write(5, 1)
    for accept in (timing.read, timing.write):
        with pytest.raises(
            AssertionError, match=r"^burst \(5, [01]\) after \(5, 1\): one of a kind a cycle, in order$"
        ):
            accept(5, 1)


def played(memory: FixedMemory, wanted: list[tuple[int, bool, int]]) -> list[tuple[int, Burst]]:
    """(cycle of acceptance, burst) of each (earliest cycle, write, beats), in order; one cycle at a time."""
    waiting, order = list(enumerate(wanted)), list[list[int]]()  # order: index, accepted, beats left
    first, last, response = dict[int, int](), dict[int, int](), dict[int, int]()
    accepted = dict[int, int]()
    cycle, next_beat = 0, 0
    while len(last) < len(wanted):
        open_now = [index for index in accepted if max(last.get(index, 1 << 60), response.get(index, 0)) >= cycle]
        ready = {
            False: sum(not wanted[index][1] for index in open_now) < memory.reads,
            True: sum(wanted[index][1] for index in open_now) < memory.writes,
        }
        for write in (False, True):
            mine = [(index, item) for index, item in waiting if item[1] == write]
            if mine and mine[0][1][0] <= cycle and ready[write]:
                index, item = mine[0]
                accepted[index] = cycle
                order.append([index, item[2]])
                waiting.remove((index, item))
        if order and cycle >= max(next_beat, accepted[order[0][0]] + memory.latency_cycles):
            index = order[0][0]
            first.setdefault(index, cycle)
            order[0][1] -= 1
            next_beat = cycle + memory.beat_cycles
            if order[0][1] == 0:
                order.pop(0)
                last[index] = cycle
                if wanted[index][1]:
                    response[index] = cycle + memory.response_cycles
        cycle += 1
    return [(accepted[i], Burst(first[i], last[i], response.get(i))) for i in range(len(wanted))]


def random_memory(rng: random.Random) -> FixedMemory:
    choices = ((1, 2, 9, 30), (1, 2, 3), (1, 2, 5), (1, 2, 5), (1, 6))
    return FixedMemory(**dict(zip(FixedMemory.model_fields, map(rng.choice, choices), strict=True)))


@pytest.mark.parametrize("seed", range(SEED, SEED + 150))
def test_equals_the_memory_played_cycle_by_cycle(seed: int) -> None:
    rng = random.Random(seed)
    memory = random_memory(rng)
    at = 0
    wanted = []
    for _ in range(30):
        at += rng.choice((0, 0, 1, 3, 40))
        wanted.append((at, rng.random() < 0.5, rng.randint(1, 12)))
    slow = played(memory, wanted)
    timing = FixedMemoryTiming(memory)
    free = {False: 0, True: 0}
    kinds = [write for _, write, _ in wanted]
    queues = {write: [i for i, kind in enumerate(kinds) if kind == write] for write in (False, True)}
    found: dict[int, tuple[int, Burst]] = {}
    while queues[False] or queues[True]:
        heads = []
        for write, queue in queues.items():
            if queue:
                ready = timing.write_ready_from if write else timing.read_ready_from
                heads.append((max(wanted[queue[0]][0], ready, free[write]), write))
        cycle, write = min(heads)
        index = queues[write].pop(0)
        free[write] = cycle + 1
        found[index] = cycle, (timing.write if write else timing.read)(cycle, wanted[index][2])
    assert [found[i] for i in range(len(wanted))] == slow, f"seed {seed}, {memory}"


@pytest.mark.parametrize(
    ("address", "beats", "port_bytes", "wanted"),
    [
        (0x1000, 5, 16, [(0x1000, 5)]),
        (0x1FF0, 2, 16, [(0x1FF0, 1), (0x2000, 1)]),
        (0x1000, 600, 8, [(0x1000, 256), (0x1800, 256), (0x2000, 88)]),
        (0x1008, 600, 8, [(0x1008, 256), (0x1808, 255), (0x2000, 89)]),
        (0x1040, 130, 64, [(0x1040, 63), (0x2000, 64), (0x3000, 3)]),
        (0x1000, 256, 16, [(0x1000, 256)]),
    ],
)
def test_rows_end_bursts_at_4_kib_and_after_256_beats(
    address: int, beats: int, port_bytes: int, wanted: list[tuple[int, int]]
) -> None:
    assert list(bursts(address, beats, port_bytes)) == wanted


@pytest.mark.parametrize("name", ["latency_cycles", "beat_cycles", "reads", "writes", "response_cycles"])
@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (0, "greater than or equal to 1"),
        (-3, "greater than or equal to 1"),
        ((1 << 20) + 1, "less than or equal to 1048576"),
        (2.0, "a valid integer"),
    ],
)
def test_a_number_out_of_range_is_refused(name: str, value: float, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.validate(FixedMemory, {name: value}, "edge.yaml")
    assert str(caught.value) == f"{name} = {value!r}: must be {rule}; edge.yaml"
