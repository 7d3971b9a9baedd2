"""cocotb testbench of the bit-serial PE; plusargs acc_bits, pipeline, latency, strict, cycles and seed.

The checks of the streaming PEs (`cocotb_stream`) on slices and channels in place of steps and sums, with cycles,
monitors, scoreboard and probes shared (`stream.testbench`), and a clear in every stage. With strict=1 `slice.ready` and
`column.valid` are compared with the cycle model (`bit_serial_model`) in every cycle. With strict=0 (another's PE) they
are compared where nothing waits: in channels whose groups take at least the cycles of their scale, a slice takes as
many cycles as it has terms and a sum comes `latency` cycles after its last slice. The scoreboard's sums are golden.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import cocotb
import numpy as np
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import Encoding, format_specials, special_code
from bitwright.rtl.bench import bit_serial_stimulus as stimulus
from bitwright.rtl.bench.bit_serial_bench import (
    SLICE_FIELDS,
    SUM_FIELDS,
    Channels,
    pack_slices,
    random_channels,
    unpack_slices,
)
from bitwright.rtl.bench.bit_serial_model import BitSerialModel, ChannelSum, Slice
from bitwright.rtl.bench.stream import testbench
from bitwright.rtl.bench.stream.model import Offer, StreamModel
from bitwright.rtl.bench.stream.monitors import Scoreboard
from bitwright.rtl.bench.stream.packing import as_integer
from bitwright.rtl.bench.stream.script import Script
from bitwright.rtl.bench.stream.testbench import SHARES
from bitwright.rtl.bench.words import Words

_SPECIAL_PORTS = ("special_write", "special_index", "special_value")
_WHOLE, _GROUP, _PART = (True, True), (True, False), (False, False)  # (group_end, channel_end) of a slice
_SHORT_GROUPS = ((1, 1), (13, 5), (24, 4), (30, 100))  # (weights of a channel, of a group)
_LONG_GROUPS = ((32, 16), (16, 16), (40, 40))


class _Handshakes(BitSerialModel):
    """The cycle model without its arithmetic."""

    def _add(self, item: Slice) -> int:
        return 0


class Testbench(testbench.Testbench):
    """The PE and the slices that it is given."""

    def __init__(self, dut: Any, *, exact: bool = False) -> None:
        acc_bits, pipeline = (int(cocotb.plusargs.get(name, 0)) for name in ("acc_bits", "pipeline"))
        self.spec = BitSerial(acc_bits or BitSerial.acc_bits, pipeline)
        board = Scoreboard(SLICE_FIELDS, SUM_FIELDS, "slice", "column")
        super().__init__(
            dut, "slice", "column", board, latency=self.spec.timing.latency_cycles, exact=exact,
            others=("clear", *_SPECIAL_PORTS),
        )  # fmt: skip
        self.channel, self.model = ChannelSum(self.spec), _Handshakes(self.spec)
        self.free = StreamModel(self.latency)  # the contract where nothing waits
        self.clearing = False
        self.load(stimulus.restless_slices(64, self.seed)[0])

    def load(self, words: Words) -> None:
        """The slices to play from now on; beside them any bits, encodings that do not exist among them."""
        noise = stimulus.restless_slices(64, self.seed)[1]
        self.items = unpack_slices(np.concatenate([words, noise]))
        items = self.items[: len(words)]
        script = Script(
            payloads=[as_integer(word) for word in words],
            cycles=[Encoding(item.encoding).terms for item in items],
            first=[],  # follows from the channel before, from clears and from resets: `ChannelSum.fresh`
            last=[item.group_end and item.channel_end for item in items],
            sums=[],
        )
        self.play_from(script, [as_integer(word) for word in noise])

    def load_short_sums(self) -> int:
        channels = random_channels(self.spec, "int6", 20, 16, 16, self.seed)
        self.load(channels.slices())
        return len(channels.act)

    def sum_of(self, number: int) -> tuple[bool, int | None]:
        first, bits = self.channel.fresh, self.channel.add(self.items[number])
        return first, bits if self.script.last[number] else None

    def advance(self, sum_ready: bool, rst: bool) -> None:
        item, at = self.items[self.at] if self.offering else None, self.at
        self.model.step(item, column_ready=sum_ready, clear=self.clearing, rst=rst)
        offer = Offer(self.script.cycles[at], self.script.last[at]) if self.offering else None
        self.free.step(offer, sum_ready, rst)

    def compare(self, ready: int | None, valid: int | None, shown_step: int, sum_ready: bool, rst: bool) -> None:
        """The cycle model's view of every cycle, or, of another's PE where nothing waits, the contract's."""
        if self.clearing and ready and not rst:
            self.fail("slice.ready = 1: must be 0 in a cycle with clear, nothing is taken")
        if not self.exact or (rst and not self.strict):
            return
        if self.strict:
            expected = self.model.ready(self.items[shown_step].encoding, sum_ready, self.clearing)
            offered = self.model.offered is not None
        else:
            expected = self.free.ready(self.script.cycles[self.at], sum_ready) if self.offering else bool(ready)
            offered = self.free.offered
        if ready != int(expected):
            self.fail(
                f"slice.ready = {testbench.flag(ready)}: must be {int(expected)}, column.valid = {int(offered)}, "
                f"column.ready = {int(sum_ready)}"
            )
        if valid != int(offered):
            self.late(valid, offered)

    async def clock(
        self, *, offer: bool, sum_ready: bool, rst: bool = False, probe: bool = False,
        others: Mapping[str, int] = MappingProxyType({}),
    ) -> bool:  # fmt: skip
        self.clearing = bool(others.get("clear"))
        taken = await super().clock(offer=offer, sum_ready=sum_ready, rst=rst, probe=probe, others=others)
        if rst or self.clearing:
            self.channel.drop()
        if self.clearing and not rst:
            self.scoreboard.clear(on_offer=self.sums.waiting is not None)
        return taken

    async def start(self) -> None:
        """Reset over garbage, then write all special values."""
        await super().start()
        storable = stimulus.storable_specials()
        for index in range(4):
            await self.clock(offer=False, sum_ready=True, others=self.special(index, self.random.choice(storable)))

    def special(self, index: int, value: float) -> dict[str, int]:
        """The inputs of the next cycle that write a special value; no slice on offer may read that one."""
        self.channel.specials[index] = value
        return dict(zip(_SPECIAL_PORTS, (1, index, special_code(value)), strict=True))

    async def load_channels(self, channels: Channels) -> None:
        """Write the format's special values, then load the slices."""
        for index, value in enumerate(format_specials(channels.format)):
            await self.clock(offer=False, sum_ready=True, others=self.special(index, value))
        self.load(channels.slices())

    async def play(self, channels: Channels, *, idle: float = 0.0, slow: float = 0.0, probe: bool = False) -> None:
        """Whole channels, then all their sums, with the given shares of pauses."""
        await self.load_channels(channels)
        await self.play_all(idle=idle, slow=slow, probe=probe)

    def slices(self, *ends: tuple[bool, bool]) -> Words:
        """Random slices with the given (group_end, channel_end)."""
        words = stimulus.restless_slices(len(ends), self.random.getrandbits(30))[0]
        group, channel = (np.array(marks) for marks in zip(*ends, strict=True))
        items = unpack_slices(words)
        fields = {name: [getattr(item, name) for item in items] for name in ("encoding", "selector", "scale")}
        acts, codes = np.array([item.act for item in items]), np.array([item.code for item in items])
        return pack_slices(acts, codes, **fields, group_end=group, channel_end=channel)

    async def send(self, *ends: tuple[bool, bool]) -> None:
        """Random slices with these ends, one after the other, while no sum is taken."""
        self.load(self.slices(*ends))
        while self.taken < len(ends):
            await self.clock(offer=True, sum_ready=False)

    async def wait(self, cycles: int, *, sum_ready: bool) -> None:
        """Cycles without a slice on offer."""
        for _ in range(cycles):
            await self.clock(offer=False, sum_ready=sum_ready)

    async def require_cycles(self, channels: Channels, cycles: int) -> None:
        """From an idle PE, the sum of one channel must be on offer `cycles` cycles after its first slice."""
        await self.load_channels(channels)
        before = self.sums.transfers
        for cycle in range(cycles + 1):
            await self.clock(offer=self.taken < len(self.script), sum_ready=True)
            came = self.sums.transfers - before
            if came != (cycle == cycles):
                kind = f"{channels.format}, {channels.act.shape[1]} weights in groups of {channels.group}"
                self.fail(f"{came} sums in cycle {cycle} of a channel: its sum must come in cycle {cycles} ({kind})")
        await self.drain()


@cocotb.test()
async def without_back_pressure_every_cycle_is_the_contracts(dut: Any) -> None:
    """Channels of every format with a source that never, often or mostly pauses, then single ones in known cycles."""
    bench = Testbench(dut, exact=True)
    await bench.start()
    later = bench.latency - bench.spec.timing.latency_cycles
    lengths = (*_LONG_GROUPS, *(_SHORT_GROUPS if bench.strict else ()))
    try:
        for idle in SHARES:
            for place, name in enumerate(stimulus.FORMATS):
                await bench.play(random_channels(bench.spec, name, 4, 32, 16, bench.seed + place, wild=True), idle=idle)
        for name in stimulus.FORMATS:
            for depth, group in lengths:
                one = random_channels(bench.spec, name, 1, depth, group, bench.seed)
                await bench.require_cycles(one, bench.spec.channel_cycles(name, depth, group) + later)
    except AssertionError as error:
        raise (await bench.explained(error)) from None
    assert bench.sums.transfers >= 75, f"{bench.sums.transfers} sums"


@cocotb.test()
async def extreme_codes(dut: Any) -> None:
    """Channels of the ends of fp16's and the code's range, of every format."""
    bench = Testbench(dut)
    await bench.start()
    for name in stimulus.FORMATS:
        await bench.play(stimulus.extreme_channels(bench.spec, name, 6, 12, 8, bench.seed), idle=0.1, slow=0.1)


@cocotb.test()
async def real_tensors_of_smollm2(dut: Any) -> None:
    """Channels of a real model's weights, in formats with 8-bit scales, on its activations."""
    bench = Testbench(dut)
    await bench.start()
    for name in ("bitmod_fp4", "int6"):
        await bench.play(stimulus.real_channels(bench.spec, name, 2, bench.seed), idle=0.1, slow=0.2)


@cocotb.test()
async def a_clear_in_mid_group_drops_the_channel_but_not_the_sum_on_offer(dut: Any) -> None:
    """A clear at every distance from a channel's last slice, with the sum of the channel before it waiting."""
    bench = Testbench(dut)
    await bench.start()
    waits = bench.longest_wait
    for wait in range(waits):
        await bench.send(_WHOLE)
        await bench.wait(bench.latency, sum_ready=False)
        for ends in (_PART, _GROUP):
            await bench.send(ends)
            await bench.wait(wait, sum_ready=False)
        waiting = bench.sums.waiting
        assert waiting is not None, "no sum on offer before the clear"
        await bench.clock(offer=False, sum_ready=False, others={"clear": 1})
        await bench.clock(offer=False, sum_ready=False)
        assert bench.sums.waiting == waiting, "the clear took back the sum on offer"
        await bench.send(_WHOLE)
        await bench.drain()
    assert bench.sums.transfers == 2 * waits, f"{bench.sums.transfers} sums taken"


@cocotb.test()
async def a_clear_drops_a_channel_in_any_stage_until_its_sum_is_on_offer(dut: Any) -> None:
    """A clear at every distance from the only slice of a channel, whose sum comes out only if it was on offer."""
    bench = Testbench(dut)
    await bench.start()
    for wait in range(bench.latency + 3):
        await bench.send(_WHOLE)
        await bench.wait(wait, sum_ready=False)
        before = bench.sums.transfers
        await bench.clock(offer=False, sum_ready=False, others={"clear": 1})
        await bench.drain()
        # `send` returns in the cycle after the slice was taken: the sum is on offer from latency - 1 cycles later.
        came, must = bench.sums.transfers - before, int(wait >= bench.latency - 1)
        assert came == must, f"{came} sums after a clear {wait} cycles after a slice: must be {must}"


@cocotb.test()
async def a_sum_on_offer_holds_until_it_is_taken(dut: Any) -> None:
    """A first sum waits for 0, 1, 2 ... cycles while further channels of one slice and of several press on."""
    bench = Testbench(dut)
    await bench.start()
    for wait in range(bench.longest_wait):
        for ends in ([_WHOLE] * 6, [_WHOLE, _PART, _GROUP, _WHOLE] * 2):
            bench.load(bench.slices(*ends))
            await bench.play_held(wait)
    assert bench.sums.held > bench.longest_wait, f"{bench.sums.held} cycles of waiting sums"


@cocotb.test()
async def a_reset_in_any_cycle_drops_all_but_the_special_values(dut: Any) -> None:
    """0, 1, 2 ... cycles after a channel's slice: in mid-slice, in mid-group, over a sum on offer; then a channel of
    special values alone, whose sum must come."""
    bench = Testbench(dut)
    await bench.start()
    for wait in range(bench.longest_wait):
        for sum_ready in (False, True):
            bench.load(bench.slices(_WHOLE, _PART, _GROUP, *[_PART] * 40))
            while not await bench.clock(offer=True, sum_ready=sum_ready):
                pass
            for _ in range(wait):
                await bench.clock(offer=True, sum_ready=sum_ready)
            await bench.clock(offer=True, sum_ready=sum_ready, rst=True)
            bench.offering, before = False, bench.sums.transfers
            fields = {"encoding": Encoding.FP4, "selector": wait % 4, "scale": 1, "group_end": 1, "channel_end": 1}
            bench.load(pack_slices(np.full((1, 4), 0x3C00), np.full((1, 4), 8), **fields))
            while not bench.taken:
                await bench.clock(offer=True, sum_ready=bool(bench.random.getrandbits(1)))
            await bench.drain()
            after = bench.sums.transfers - before
            assert after == 1, f"{after} sums after a reset {wait} cycles after a channel's slice: must be 1"


@cocotb.test()
async def ready_does_not_depend_on_valid_nor_the_sum_on_inputs(dut: Any) -> None:
    """`slice.valid`, the payload, `column.ready`, clear and special values change within each cycle."""
    bench = Testbench(dut)
    await bench.start()
    for idle, slow in ((0.0, 0.0), (0.5, 0.5), (0.1, 0.8)):
        for name in ("int8", "bitmod_fp4"):
            await bench.play(
                random_channels(bench.spec, name, 6, 12, 4, bench.seed), idle=idle, slow=slow, probe=True
            )  # fmt: skip


@cocotb.test()
async def every_mix_of_idle_and_back_pressure_with_clears_and_resets(dut: Any) -> None:
    """Nine mixes of a pausing source and a slow sink, with clears, resets and new special values among them."""
    bench = Testbench(dut)
    await bench.start()
    rng, storable = bench.random, stimulus.storable_specials()
    bench.load(stimulus.restless_slices(max(64, bench.cycles // 2), bench.seed)[0])
    for idle in SHARES:
        for slow in SHARES:
            for _ in range(bench.cycles // 9):
                others: dict[str, int] = {"clear": int(rng.random() < 0.01)}
                index = rng.randrange(4)
                if rng.random() < 0.1 and index != bench.items[bench.at].selector:
                    others |= bench.special(index, rng.choice(storable))
                offer, ready = rng.random() >= idle, rng.random() >= slow
                await bench.clock(offer=offer, sum_ready=ready, rst=rng.random() < 0.005, others=others)
    await bench.drain()
    counts = f"{bench.taken} slices, {bench.sums.transfers} sums, {bench.sums.held} cycles of waiting sums"
    assert min(bench.taken, bench.sums.transfers, bench.sums.held) > 20, counts
