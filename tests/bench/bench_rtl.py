"""Speed of the accelerator's compiled Verilog on arrays of three sizes, and what of it the array's PEs take.

python tests/bench/bench_rtl.py

The same product on each machine; each run's results are the interpreter's. A cycle's time is taken as a part for
everything around the array and a part for each PE: a straight line through the smallest and the largest array, on which
the one between should be.
"""

from __future__ import annotations

import re
import time
from functools import cache
from statistics import median

from bitwright.arch import machine as machines
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa import to_bytes
from bitwright.arch.isa.interpreter import run as interpret
from bitwright.rtl.accelerator.top import verilog
from bitwright.rtl.bench.accelerator_runner import CompiledAccelerator
from bitwright.sim.accelerator.gemm import Gemm

MACHINES = ("int8-8x8", "int8-16x16", "int8-32x32")
PRODUCT = (16, 576, 576)
ROUNDS = 5


def register_bits(text: str, top: str) -> int:
    """Bits of all registers of a design, memories left out: what an always block of a clock assigns."""
    modules = {found[1]: found[0] for found in re.finditer(r"^module (\w+) ?\(.*?^endmodule", text, re.M | re.S)}

    @cache
    def bits(name: str) -> int:
        body = modules[name]
        widths = {
            reg: int(top_bit or 0) + 1
            for top_bit, reg in re.findall(r"^  (?:output )?reg (?:\[(\d+):0\] )?(\w+)", body, re.M)
        }
        clocked = set(re.findall(r"^ +(\w+)(?:\[[^\]]*\])? <= ", body, re.M))
        own = sum(width for reg, width in widths.items() if reg in clocked)
        parts = re.findall(r"^  (\w+) +\w+ \($", body, re.M)
        return own + sum(bits(part) for part in parts if part in modules)

    return bits(top)


def main() -> None:
    designs = []
    for name in MACHINES:
        gemm = Gemm(machines.load(name), *PRODUCT, "int8")
        module, text = verilog(gemm.limits)
        started = time.perf_counter()
        compiled = CompiledAccelerator(text, module, gemm.limits)
        designs.append((name, gemm, compiled, register_bits(text, module), time.perf_counter() - started))
    seconds: dict[str, list[float]] = {name: [] for name in MACHINES}
    cycles: dict[str, int] = {}
    for _ in range(ROUNDS):  # one after the other, so that all meet the same weather
        for name, gemm, compiled, _, _ in designs:
            lowered = gemm.lowered()
            expected = [region.copy() for region in lowered.memory]
            interpret(lowered.program, gemm.limits, expected)
            started = time.process_time()
            done = compiled.run(to_bytes(lowered.program), lowered.memory, FixedMemory())
            seconds[name].append(time.process_time() - started)
            assert done.fault is None, f"{name}: {done.fault}"
            same = (bool((found == wanted).all()) for found, wanted in zip(lowered.memory, expected, strict=True))
            assert all(same), f"{name}: its results are the interpreter's"
            cycles[name] = done.counters.cycles
    spent_us = {name: median(seconds[name]) / cycles[name] * 1e6 for name in MACHINES}
    pes = {name: gemm.limits.rows * gemm.limits.cols for name, gemm, *_ in designs}
    small, _, large = MACHINES
    each_us = (spent_us[large] - spent_us[small]) / (pes[large] - pes[small])
    around_us = spent_us[small] - pes[small] * each_us
    for name, _, _, state_bits, built_s in designs:
        predicted_us = around_us + pes[name] * each_us
        print(
            f"{name}: {' x '.join(map(str, PRODUCT))}, {cycles[name]} cycles at {1e6 / spent_us[name]:.0f} cycles/s "
            f"({spent_us[name]:.2f} us each, the line {predicted_us:.2f}); {pes[name]} PEs, {state_bits} flip-flops; "
            f"in the array {pes[name] * each_us / spent_us[name]:.0%}; built or found in {built_s:.0f} s"
        )
    print(
        f"a PE costs {1000 * each_us:.2f} ns a cycle, all around the array {around_us:.2f} us; "
        f"{small} is {spent_us[large] / spent_us[small]:.1f} times as fast as {large}"
    )


if __name__ == "__main__":
    main()
