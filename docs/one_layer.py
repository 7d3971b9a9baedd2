"""Writes docs/one-layer.md: one matrix of SmolLM2 followed by hand through all five views.

    python docs/one_layer.py > docs/one-layer.md

Every number on the page is computed here; a test fails when the committed page has aged.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from bitwright.arch import formats, pe
from bitwright.arch import machine as machines
from bitwright.sim import activity, engine
from bitwright.sim.costs import machine_costs
from bitwright.sim.energy import Energy, operator_energy
from bitwright.sim.inference import dram_port, edge_latency_cycles
from bitwright.workloads import checkpoint, mapping
from bitwright.workloads.operators import Gemm

MACHINE = "shift-add-16x16-ws"
FORMAT, GROUP = "int4_asym", 64
LAYER, TOKENS = "layers.0.k", 1


def table(columns: list[str], rows: list[list[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def tensor_and_codes() -> tuple[str, object, np.ndarray]:
    """Section 1 and 2: the first group of the first output channel, as floats and as codes."""
    weight = checkpoint.load("smollm2-135m").weight(LAYER)
    encoded = formats.get(FORMAT).encode(weight, group=GROUP)
    codes = formats.get(FORMAT).integers(encoded)
    group = weight[0, :GROUP]
    scale, zero = float(codes.scales[0, 0]), int(codes.zeros[0, 0])
    low, high = min(0.0, float(group.min())), max(0.0, float(group.max()))
    first = [
        [index, f"{group[index]:+.6f}", int(codes.ints[0, index]), f"{scale * (codes.ints[0, index] - zero):+.6f}"]
        for index in range(8)
    ]
    bits = formats.get(FORMAT).storage_bits(weight.shape, GROUP)
    text = f"""\
## 1. The tensor

`{LAYER}` is {weight.shape[0]} output channels by {weight.shape[1]} inputs. Channel 0's first group is its first {GROUP} weights; they
reach from {low:+.6f} to {high:+.6f} (zero is always inside).

## 2. The codes

`{FORMAT}`: scale = fp16(({high:.6f} - {low:.6f}) / 15) = {scale:.8f}, zero point = round({-low:.6f} / scale) = {zero}, and
code = round(w / scale) + zero. The first eight:

{table(["input", "weight", "code", "scale x (code - zero)"], first)}

Stored: {bits.codes:,} bits of codes, {bits.scales:,} of scales, {bits.zeros:,} of zero points, together
{bits.total:,} bits = {bits.total / weight.size:.4f} bits a weight.
"""
    return text, codes, weight


def arithmetic(codes: object, weight: np.ndarray) -> str:
    """Section 3: one group through the PE, and the group's dequantisation."""
    spec = pe.get("shift-add")
    act = np.arange(GROUP) % 17 - 8
    ints, zero, scale = codes.ints[0, :GROUP], int(codes.zeros[0, 0]), np.float16(codes.scales[0, 0])  # type: ignore[attr-defined]
    acc = spec.zero()
    steps = []
    for index in range(GROUP):
        acc = spec.accumulate(acc, act[index], ints[index], wgt_unsigned=True)
        if index < 4:
            steps.append([index, act[index], ints[index], act[index] * ints[index], acc])
    act_sum = int(act.sum())
    corrected = int(acc) - zero * act_sum
    out = np.float32(np.float64(scale) * corrected)
    exact = sum(float(scale) * (int(q) - zero) * int(x) for q, x in zip(ints, act, strict=True))
    return f"""\
## 3. The arithmetic

An easy activation, x = (input mod 17) - 8, as int8 codes. The PE adds x times the unsigned code by four gated shifts:

{table(["input", "x", "code", "product", "sum so far"], steps)}

After {GROUP} inputs the sum is {int(acc)} (it fits the {spec.psum.bits} bits that the group length gives), and the constant-one column has
summed x to {act_sum}. Once a group the column edge computes {int(acc)} - {zero} x {act_sum} = {corrected}, times the scale,
rounded once to float32: {out:.8f}. In exact arithmetic sum of scale x (code - zero) x x = {exact:.8f}.
"""


def cycles_and_energy() -> str:
    """Section 4 to 6: program, cycles, energy."""
    machine = machines.load(MACHINE)
    gemm = Gemm("key", "attention_projections", TOKENS, 576, 192, 1, FORMAT, GROUP)
    port = dram_port(machine)
    program = mapping.compile_gemm(machine, gemm, port)
    counters = engine.run(program, mapping.array_shape(machine, FORMAT), port, edge_latency_cycles(machine))
    counts = activity.count(program, True, machine.array.cols, machine.physical_cols, GROUP)
    unit = machine_costs(machine, (FORMAT,), FORMAT)
    energy = operator_energy(machine, gemm, program, counts, unit, counters, port)
    passes = sum(1 for execute in program.executes for _ in execute.passes())
    parts = [[name, f"{getattr(energy, name):,.1f}"] for name in Energy.__dataclass_fields__]
    loads = Counter((item.tensor, item.size_bytes) for item in program.loads)
    load_cycles = [
        f"{count} x {tensor} {size:,} B: {port.busy_cycles(size)}" for (tensor, size), count in loads.items()
    ]
    arrive = sum(port.busy_cycles(item.size_bytes) for item in program.loads[:2]) + port.latency_cycles
    store = port.busy_cycles(program.stores[0].size_bytes)
    by_hand = arrive + (passes - 1) * 16 + 2 + counters.cycles_fill_drain + store
    assert by_hand == counters.cycles, "the page's own arithmetic"
    causes = [
        ["the array takes activations", counters.cycles_stream],
        ["the array waits for its own weight registers", counters.cycles_array_stall],
        ["DRAM", counters.cycles_dram_wait],
        ["last operand to last output", counters.cycles_fill_drain],
        ["total", counters.cycles],
    ]
    return f"""\
## 4. The program

`{MACHINE}` multiplies M = {TOKENS} token by K = 576 by N = 192 in {passes} passes ({576 // 16} slices of 16 inputs, cut at groups of {GROUP}, times
{192 // 16} tiles of 16 channels):

```
{program}
```

## 5. The cycles

At {machine.clock_mhz:g} MHz `{machine.dram}` moves {port.bytes_per_cycle:.1f} bytes a cycle; a load keeps the channel busy for ceil(bytes / that) cycles
and arrives {port.latency_cycles} cycles later. {"; ".join(load_cycles)} cycles.

The first block's two loads are there in cycle {arrive}. A weight-stationary pass of one token takes max(1, 16) = 16 cycles, because each needs its own
16 weight rows; later loads hide behind the passes. So the last of {passes} passes takes its one activation in cycle {arrive} + {passes - 1} x 16 + 1, and the array
is done with operands one cycle later. {machine.array.rows} + {machine.physical_cols} - 1 cycles of skew and {edge_latency_cycles(machine)} stages of the column edge follow ({counters.cycles_fill_drain} cycles), then the store ({store}):
{arrive} + {(passes - 1) * 16 + 2:,} + {counters.cycles_fill_drain} + {store} = {by_hand:,} cycles, which is what the engine counts:

{table(["cause", "cycles"], causes)}

## 6. The energy

Events times unit costs of the `{machine.node}` table, in pJ. {counts.active_cell_cycles:,} cell cycles are active ({TOKENS} x 576 x {192 // 16} tiles x {machine.physical_cols} columns) at {unit.cell.op_pj:.4f} pJ,
{counts.wgt_words:,} weight rows x 16 are loaded into cells at {unit.weight_load_pj:.4f} pJ, and {8 * program.dram_bytes:,} bits cross the DRAM port at
{unit.dram_read_pj_per_bit:.3f} pJ (read) or {unit.dram_write_pj_per_bit:.3f} pJ (write).

{table(["part", "pJ"], [*parts, ["total", f"{energy.total_pj:,.1f}"]])}
"""


def page() -> str:
    """The whole page."""
    first, codes, weight = tensor_and_codes()
    head = f"""\
# One matrix by hand

<!-- written by docs/one_layer.py; do not edit -->
The key projection of SmolLM2-135M's first layer, one decode token, on `{MACHINE}`: the same numbers in all views, so that
you can check them with a pocket calculator.
"""
    return "\n".join([head, first, arithmetic(codes, weight), cycles_and_energy()])


if __name__ == "__main__":
    print(page(), end="")
