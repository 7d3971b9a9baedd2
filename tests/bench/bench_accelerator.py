"""Speed of the accelerator's fast engine against the SimPy engine, on SmolLM2-135M's 576 x 576 projection.

python tests/bench/bench_accelerator.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bitwright.arch import machine as machines
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.network import validate
from bitwright.sim.accelerator import engine, fast
from bitwright.sim.accelerator.gemm import Gemm

REPEATS = 50
AIM = 5


def processor_ms(work: Callable[..., object], *what: Any) -> float:
    start = time.process_time()
    work(*what)
    return (time.process_time() - start) * 1000


def main() -> None:
    for tokens in (1, 16, 128):
        gemm = Gemm(machines.load("int8-16x16"), tokens, 576, 576, "int8")
        what = gemm.program, gemm.limits, gemm.layout.region_beats
        rounds = []
        for _ in range(REPEATS):  # one after the other, so that all three meet the same weather
            slow, quick = (processor_ms(run, *what, FixedMemory()) for run in (engine.run, fast.run))
            rounds.append((slow, quick, processor_ms(validate, *what)))
        slow, quick, verdict = (median(times) for times in zip(*rounds, strict=True))
        ratio, alone = (median((slow - less * verdict) / quick for slow, quick, verdict in rounds) for less in (0, 1))
        cycles = fast.run(*what, FixedMemory()).counters.cycles
        print(
            f"{tokens} x 576 x 576 on int8-16x16: {len(gemm.program)} instructions, {cycles} cycles; simpy {slow:.2f} "
            f"ms, of it the validator {verdict:.2f}; fast {quick:.2f} ms, {ratio:.1f} times as fast (aim {AIM}), "
            f"{alone:.1f} without the validator; {cycles / quick / 1000:.1f} million cycles/s"
        )


if __name__ == "__main__":
    main()
