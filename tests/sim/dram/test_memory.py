"""A whole memory: its channels against one reference channel each; addresses, counts and errors."""

from __future__ import annotations

import pytest
from bitwright.arch import dram
from bitwright.arch.dram import Dram
from bitwright.arch.errors import ConfigError
from bitwright.sim.dram import Counts, DramChannels, ReferenceChannel, Run
from hypothesis import example, given, settings
from hypothesis import strategies as st


class _Bytewise:
    """The same memory, its addresses mapped byte range by byte range, a reference channel each."""

    def __init__(self, memory: Dram) -> None:
        self.memory = memory
        self.channels = [ReferenceChannel(memory.device) for _ in range(memory.channels)]

    def transfer(self, address: int, size_bytes: int, write: bool, clock: int) -> tuple[int, int]:
        bursts: list[list[int]] = [[] for _ in self.channels]
        block, burst_bytes = self.memory.interleave_bytes, self.memory.device.burst_bytes
        for byte in range(address, address + size_bytes):
            number = byte // block
            local = (number // self.memory.channels * block + byte % block) // burst_bytes
            mine = bursts[number % self.memory.channels]
            if not mine or mine[-1] != local:
                mine.append(local)
        served = []
        for channel, mine in zip(self.channels, bursts, strict=True):
            assert mine == list(range(mine[0], mine[0] + len(mine))) if mine else True
            if mine:
                served.append(channel.serve(Run(mine[0], len(mine), write, clock)))
        return max(entered for entered, _ in served), max(finish for _, finish in served)

    @property
    def counts(self) -> Counts:
        return Counts(*(sum(parts) for parts in zip(*(channel.counts for channel in self.channels), strict=True)))


TRANSFERS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 40_000), st.integers(0, 150).map(lambda block: block * 4096)),
        st.one_of(st.integers(1, 300), st.sampled_from([4096, 8192, 16384]), st.integers(1, 30_000)),
        st.booleans(),
        st.sampled_from([0, 0, 1, 40, 900, 30_000]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(dram.names()), clock_khz=st.sampled_from([250_000, 1_000_000, 1_234_567]), moves=TRANSFERS)
def test_channels_equal_one_reference_each_in_every_cycle_and_count(
    name: str, clock_khz: int, moves: list[tuple[int, int, bool, int]]
) -> None:
    memory = dram.load(name)
    fast, slow, now = DramChannels(memory, clock_khz), _Bytewise(memory), 0
    for address, size_bytes, write, later in moves:
        now += later
        clock = -(-now * 10**9 // (clock_khz * memory.clock_ps))
        served = slow.transfer(address, size_bytes, write, clock)
        cycles = tuple(-(-one * clock_khz * memory.clock_ps // 10**9) for one in served)
        assert fast.transfer(address, size_bytes, write, now) == cycles
        assert fast.counts == slow.counts


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(dram.names()),
    start=st.integers(0, 3000),
    burst=st.integers(0, 9000),
    pieces=st.integers(1, 5),
    size=st.integers(1, 3_000_000),
    write=st.booleans(),
    now=st.sampled_from([0, 777, 12_000]),
)
@example(name="hbm3", start=0, burst=0, pieces=1, size=24577, write=False, now=777)  # last piece: one channel of 16
def test_a_stream_equals_a_transfer_a_piece(
    name: str, start: int, burst: int, pieces: int, size: int, write: bool, now: int
) -> None:
    memory = dram.load(name)
    piece = memory.channels * memory.interleave_bytes * pieces * 3
    address = burst * memory.device.burst_bytes
    one, many = DramChannels(memory, 1_000_000), DramChannels(memory, 1_000_000)
    for channels in (one, many):
        channels.transfer(start, 5000, not write, 0)
    accepts, finishes = one.stream(address, size, piece, write, now)
    served = [many.transfer(address + done, min(piece, size - done), write, now) for done in range(0, size, piece)]
    assert finishes == [transfer.finish for transfer in served]
    assert accepts == max(transfer.accepts_next for transfer in served)
    assert one.counts == many.counts
    assert one.transfer(0, 9000, write, now) == many.transfer(0, 9000, write, now)


def test_pieces_that_do_not_go_over_all_channels_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        DramChannels(dram.load("hbm3"), 1_000_000).stream(0, 1 << 20, 4096, False, 0)
    assert str(caught.value) == "piece_bytes = 4096: must be a multiple of 8192 for hbm3"


@pytest.mark.parametrize("name", dram.names())
def test_a_stream_is_near_the_peak_and_never_above_it(name: str) -> None:
    memory = dram.load(name)
    t = memory.device.timing
    size = 1 << 26
    served = DramChannels(memory, 1_000_000).transfer(0, size, False, 0)
    efficiency = size / (served.finish * 1e-9) / memory.peak_bytes_per_s
    lost = (t.rfc + t.closing + t.rcd_read) / t.refi  # a refresh, and rows closed before and opened after it
    assert 1 - lost - 0.01 < efficiency < 1 - t.rfc / t.refi + 0.005


def test_bits_are_whole_bursts() -> None:
    channels = DramChannels(dram.load("ddr4-3200-x64"), 1_000_000)
    channels.transfer(60, 8, False, 0)  # two bursts of 64 bytes
    channels.transfer(0, 1, True, 0)
    assert (channels.read_bits, channels.write_bits) == (1024, 512)
    assert channels.counts == Counts(reads=2, writes=1, hits=1, closed=2)


@pytest.mark.parametrize(("address", "size"), [(0, 0), (-1, 4), (4294967296, 1), (4294967290, 7)])
def test_a_transfer_outside_the_memory_is_refused(address: int, size: int) -> None:
    with pytest.raises(ConfigError) as caught:
        DramChannels(dram.load("ddr4-3200-x64"), 1_000_000).transfer(address, size, False, 0)
    assert str(caught.value) == (
        f"transfer of {size} bytes at {address}: must be 1 or more bytes in 0..4294967296 of ddr4-3200-x64"
    )


def test_a_clock_must_be_a_whole_number() -> None:
    with pytest.raises(ConfigError) as caught:
        DramChannels(dram.load("hbm2"), 0)
    assert str(caught.value) == "clock_khz = 0: must be a whole number of 1 or more"
