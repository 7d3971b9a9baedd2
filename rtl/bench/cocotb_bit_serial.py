"""cocotb testbenches of the bit-serial PE; run with plusargs acc_bits, pipeline, cycles and seed.

Every output is compared with the cycle model (`bit_serial_model`) in every cycle: `slice.ready`, `column.valid` and
the sum on offer, which therefore holds still until it is taken.
"""

from __future__ import annotations

import random
from typing import Any

import cocotb
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import Encoding, special_code
from bitwright.rtl.bench.bit_serial_model import BitSerialModel, Slice
from bitwright.rtl.bench.bit_serial_stimulus import storable_specials
from bitwright.rtl.pe.bit_serial import SLICE
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge


class Testbench:
    """The PE beside its model. Inputs change on the falling edge; outputs are read just before the rising edge."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        acc_bits, pipeline = (int(cocotb.plusargs.get(name, 0)) for name in ("acc_bits", "pipeline"))
        self.model = BitSerialModel(BitSerial(acc_bits or BitSerial.acc_bits, pipeline))
        self.random = random.Random(int(cocotb.plusargs.get("seed", 1)))
        self.specials = storable_specials()
        self.offer: Slice | None = None
        self.cycle = self.taken = self.sums = self.held = 0

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
            expected = {"slice__ready": int(ready), "column__valid": int(model.offered is not None)}
            if model.offered is not None:
                expected["column__payload"] = model.offered
                self.sums += column_ready
                self.held += not column_ready
            for name, value in expected.items():
                got = int(getattr(dut, name).value)
                assert got == value, f"cycle {self.cycle}: {name} = {got:#x}: must be {value:#x} ({self.offer})"
        model.step(self.offer, column_ready=column_ready, clear=clear, rst=rst)
        if special is not None:
            model.specials[special[0]] = special[1]
        if self.offer is not None and ready and not rst:
            self.offer, self.taken = None, self.taken + 1
        await FallingEdge(dut.clk)
        self.cycle += 1


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
    assert bench.sums > 20, f"{bench.sums} sums taken"
    assert bench.held > 20, f"{bench.held} cycles of a sum held back"


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
    assert bench.sums == 2 * 24, f"{bench.sums} sums taken"


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
        before = bench.sums
        await bench.step(column_ready=False, clear=True)
        for _ in range(latency + 10):
            await bench.step()
        # `send` returns in the cycle after the slice was taken: the sum is on offer from latency - 1 cycles later.
        assert bench.sums - before == int(wait >= latency - 1), f"clear after {wait} cycles"


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
    assert bench.sums == 24, f"{bench.sums} sums taken"
