"""Speed of both engines of a model: blocks a second, against the bound of bare SimPy events.

python tests/bench/bench_engine.py
"""

from __future__ import annotations

import time

import simpy
from bitwright.arch import machine as machines
from bitwright.sim import engine, fast
from bitwright.sim.inference import dram_port, edge_latency_cycles
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm

EVENTS_PER_BLOCK = 5  # two loads, one execute, and the tokens that end later


def bare_events_per_s(count: int = 200_000) -> float:
    def ticks(env: simpy.Environment):  # type: ignore[no-untyped-def]
        for _ in range(count):
            yield env.timeout(1)

    env = simpy.Environment()
    env.process(ticks(env))
    start = time.perf_counter()
    env.run()
    return count / (time.perf_counter() - start)


def main() -> None:
    bound = bare_events_per_s() / EVENTS_PER_BLOCK
    print(f"bound: {bound:,.0f} blocks/s ({EVENTS_PER_BLOCK} bare SimPy events a block)")
    for name in ("int8-8x8-ws", "int8-32x32-os"):
        machine = machines.load(name)
        gemm = Gemm("head", "head", 1, 576, 49152, 1, "int8", None)
        start = time.perf_counter()
        program = mapping.compile_gemm(machine, gemm, dram_port(machine))
        mapped = time.perf_counter()
        blocks, shape = len(program.executes), mapping.array_shape(machine, gemm.weight_format)
        print(f"{name}: {blocks} blocks, mapped in {mapped - start:.2f} s")
        for label, run in (("simpy", engine.run), ("fast", fast.run)):
            start = time.perf_counter()
            run(program, shape, dram_port(machine), edge_latency_cycles(machine))
            rate = blocks / (time.perf_counter() - start)
            print(f"  {label}: {rate:,.0f} blocks/s, {rate / bound:.2f} of it")


if __name__ == "__main__":
    main()
