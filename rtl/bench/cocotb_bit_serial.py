"""cocotb testbenches of the bit-serial PE; run with plusargs acc_bits, pipeline, cycles and seed.

Its streams are its own, so `cocotb_stream` cannot play them. Every output is compared with the cycle model
(`bit_serial_model`) in every cycle: `slice.ready`, `column.valid` and the sum on offer. The handshake monitors of the
streaming PEs ride on both streams, and the sums of whole channels are also compared with the golden ones.
"""

from __future__ import annotations

import random
from typing import Any

import cocotb
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import Encoding, format_specials, special_code
from bitwright.rtl.bench import bit_serial_stimulus as stimulus
from bitwright.rtl.bench.bit_serial_bench import Channels, unpack_slices
from bitwright.rtl.bench.bit_serial_model import BitSerialModel, Slice
from bitwright.rtl.bench.stream.monitors import HandshakeMonitor, bits_of, number_of, shown
from bitwright.rtl.pe.bit_serial import SLICE
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge


class Testbench:
    """The PE beside its model. Inputs change on the falling edge; outputs are read just before the rising edge."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        acc_bits, pipeline = (int(cocotb.plusargs.get(name, 0)) for name in ("acc_bits", "pipeline"))
        self.model = BitSerialModel(BitSerial(acc_bits or BitSerial.acc_bits, pipeline))
        self.seed = int(cocotb.plusargs.get("seed", 1))
        self.random = random.Random(self.seed)
        self.specials = stimulus.storable_specials()
        self.offer: Slice | None = None
        self.slices, self.columns = HandshakeMonitor("slice"), HandshakeMonitor("column")
        self.cycle = self.taken = 0
        self.got: list[int] = []  # the sums taken

    async def start(self) -> None:
        """Reset over garbage, then write all special values."""
        Clock(self.dut.clk, 10, unit="ns").start()
        await FallingEdge(self.dut.clk)
        for _ in range(2):
            await self.step(rst=True, column_ready=bool(self.random.getrandbits(1)))
        for index in range(4):
            await self.step(special=(index, self.random.choice(self.specials)))

    def slice(self, group_end: float = 0.4, channel_end: float = 0.5) -> Slice:
        """A random slice; most activations are near 1, some are any bits."""
        acts = tuple(
            self.random.getrandbits(16) if self.random.random() < 0.05
            else self.random.getrandbits(1) << 15 | self.random.randint(10, 18) << 10 | self.random.getrandbits(10)
            for _ in range(4)
        )  # fmt: skip
        ends = self.random.random() < group_end
        return Slice(
            acts, tuple(self.random.getrandbits(8) for _ in range(4)), self.random.randrange(len(Encoding)),
            self.random.getrandbits(2), self.random.getrandbits(8), ends, ends and self.random.random() < channel_end,
        )  # fmt: skip

    def _payload(self, item: Slice | None) -> int:
        if item is None:
            return self.random.getrandbits(SLICE.size)
        fields = {name: int(getattr(item, name)) for name in SLICE.members if name not in ("act", "code")}
        fields["act"] = sum(bits << 16 * lane for lane, bits in enumerate(item.act))
        fields["code"] = sum(bits << 8 * lane for lane, bits in enumerate(item.code))
        return sum(value << SLICE[name].offset for name, value in fields.items())

    async def send(self, item: Slice) -> None:
        """Offer a slice until it is taken, while no sum is."""
        self.offer, before = item, self.taken
        while self.taken == before:
            await self.step(column_ready=False)

    async def play(self, channels: Channels, *, idle: float, slow: float) -> None:
        """Whole channels with the given shares of pauses; their sums must be the golden ones."""
        for index, value in enumerate(format_specials(channels.format)):
            await self.step(special=(index, value))
        wanted, before, left = channels.golden(self.model.spec).tolist(), len(self.got), len(channels.act) * 100
        for item in unpack_slices(channels.slices()):
            taken = self.taken
            while self.taken == taken:
                if self.offer is None and self.random.random() >= idle:
                    self.offer = item
                await self.step(column_ready=self.random.random() >= slow)
        while len(self.got) < before + len(wanted) and left:
            await self.step(column_ready=self.random.random() >= slow)
            left -= 1
        got = self.got[before:]
        wrong = [at for at, pair in enumerate(zip(got, wanted, strict=False)) if pair[0] != pair[1]]
        assert len(got) == len(wanted), f"{channels.format}: {len(got)} sums, must be {len(wanted)}"
        assert not wrong, f"{channels.format} column[{wrong[0]}] = {got[wrong[0]]:#x}: must be {wanted[wrong[0]]:#x}"

    def offering(self) -> bool:
        """Whether a sum is on offer."""
        return self.model.offered is not None

    async def step(
        self,
        *,
        column_ready: bool = True,
        clear: bool = False,
        rst: bool = False,
        special: tuple[int, float] | None = None,
    ) -> None:
        """One cycle: apply inputs, compare the outputs, take the edge. `self.offer` is dropped when it is taken."""
        dut, model, payload = self.dut, self.model, self._payload(self.offer)
        dut.slice__valid.value, dut.slice__payload.value = int(self.offer is not None), payload
        dut.column__ready.value, dut.clear.value, dut.rst.value = int(column_ready), int(clear), int(rst)
        dut.special_write.value = int(special is not None)
        if special is not None:
            dut.special_index.value, dut.special_value.value = special[0], special_code(special[1])
        await RisingEdge(dut.clk)  # outputs are read as they stood before the edge
        encoding = payload >> SLICE["encoding"].offset & 7
        ready = model.ready(encoding, column_ready, clear)
        if model.known:
            self._watch(payload, column_ready, rst)
            expected = {"slice__ready": int(ready), "column__valid": int(model.offered is not None)}
            if model.offered is not None:
                expected["column__payload"] = model.offered
            for name, value in expected.items():
                got = bits_of(getattr(dut, name))
                assert got == value, f"cycle {self.cycle}: {name} = {shown(got)}: must be {value:#x} ({self.offer})"
        model.step(self.offer, column_ready=column_ready, clear=clear, rst=rst)
        if special is not None:
            model.specials[special[0]] = special[1]
        if self.offer is not None and ready and not rst:
            self.offer, self.taken = None, self.taken + 1
        await FallingEdge(dut.clk)
        self.cycle += 1

    def _watch(self, payload: int, column_ready: bool, rst: bool) -> None:
        """The rules of both streams, whatever the model says."""
        if rst:
            self.slices.reset()
            self.columns.reset()
            return
        dut, valid = self.dut, number_of(self.dut.column__valid)
        column = bits_of(dut.column__payload) if valid else None
        wrong = self.slices.sample(int(self.offer is not None), number_of(dut.slice__ready), payload)
        wrong = wrong or self.columns.sample(valid, int(column_ready), column)
        assert wrong is None, f"cycle {self.cycle}: {wrong}"
        if column_ready and isinstance(column, int):
            self.got.append(column)


@cocotb.test()
async def every_mix_of_idle_and_back_pressure_equals_the_cycle_model(dut: Any) -> None:
    """Nine mixes of idle sources and slow sinks, with clears, resets and new special values between slices."""
    bench = Testbench(dut)
    await bench.start()
    rng = bench.random
    for idle in (0.0, 0.5, 0.9):
        for slow in (0.0, 0.5, 0.95):
            for _ in range(int(cocotb.plusargs.get("cycles", 1800)) // 9):
                if bench.offer is None and rng.random() >= idle:
                    bench.offer = bench.slice()
                special = None
                if bench.offer is None and rng.random() < 0.1:
                    special = (rng.getrandbits(2), rng.choice(bench.specials))
                odds = rng.random()
                await bench.step(
                    column_ready=rng.random() >= slow, clear=odds < 0.01, rst=0.01 < odds < 0.015, special=special
                )
    assert bench.taken > 100, f"{bench.taken} slices taken"
    assert bench.columns.transfers > 20, f"{bench.columns.transfers} sums taken"
    assert bench.columns.held > 20, f"{bench.columns.held} cycles of a sum held back"


@cocotb.test()
async def extreme_codes(dut: Any) -> None:
    """Channels of the ends of fp16's and the code's range, of every format."""
    bench = Testbench(dut)
    await bench.start()
    for name in stimulus.FORMATS:
        await bench.play(stimulus.extreme_channels(bench.model.spec, name, 6, 12, 8, bench.seed), idle=0.1, slow=0.1)


@cocotb.test()
async def real_tensors_of_smollm2(dut: Any) -> None:
    """Channels of a real model's weights, in formats with 8-bit scales, on its activations."""
    bench = Testbench(dut)
    await bench.start()
    for name in ("bitmod_fp4", "int6"):
        await bench.play(stimulus.real_channels(bench.model.spec, name, 2, bench.seed), idle=0.1, slow=0.2)


@cocotb.test()
async def a_clear_in_mid_group_drops_the_channel_but_not_the_sum_on_offer(dut: Any) -> None:
    """A clear at every distance from a channel's last slice, with the sum of the channel before it waiting."""
    bench = Testbench(dut)
    await bench.start()
    for wait in range(24):
        for ends in ((1.0, 1.0), (0.0, 0.0), (1.0, 0.0)):
            await bench.send(bench.slice(*ends))
            for _ in range(24 if ends == (1.0, 1.0) else wait):
                await bench.step(column_ready=False)
        assert bench.offering(), "no sum on offer before the clear"
        await bench.step(column_ready=False, clear=True)
        assert bench.offering(), "the clear took back the sum on offer"
        bench.offer = bench.slice(1.0, 1.0)
        for _ in range(40):
            await bench.step(column_ready=True)
        assert not bench.offering(), "a sum was left over"
    assert bench.columns.transfers == 2 * 24, f"{bench.columns.transfers} sums taken"


@cocotb.test()
async def a_clear_drops_a_channel_in_any_stage_until_its_sum_is_on_offer(dut: Any) -> None:
    """A clear at every distance from the only slice of a channel, whose sum comes out only if it was on offer."""
    bench = Testbench(dut)
    await bench.start()
    latency = bench.model.spec.timing.latency_cycles
    for wait in range(latency + 3):
        await bench.send(bench.slice(1.0, 1.0))
        for _ in range(wait):
            await bench.step(column_ready=False)
        before = bench.columns.transfers
        await bench.step(column_ready=False, clear=True)
        for _ in range(latency + 10):
            await bench.step()
        # `send` returns in the cycle after the slice was taken: the sum is on offer from latency - 1 cycles later.
        assert bench.columns.transfers - before == int(wait >= latency - 1), f"clear after {wait} cycles"


@cocotb.test()
async def a_reset_in_mid_group_drops_everything_but_the_special_values(dut: Any) -> None:
    """A reset at every distance from a slice, then a channel of special values alone."""
    bench = Testbench(dut)
    await bench.start()
    for wait in range(24):
        for _ in range(3):
            await bench.send(bench.slice(0.5, 0.5))
        for _ in range(wait):
            await bench.step(column_ready=False)
        await bench.step(column_ready=False, rst=True)
        special = Slice((0x3C00,) * 4, (8,) * 4, Encoding.FP4, wait % 4, 1, True, True)
        bench.offer = special
        for _ in range(40):
            await bench.step()
        bench.offer = None
    assert bench.columns.transfers == 24, f"{bench.columns.transfers} sums taken"
