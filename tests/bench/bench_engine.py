"""Speed of both engines of a model: blocks a second, against the bound of bare SimPy events; and whole models.

Whole models run as `bitwright simulate --json`, each cold in a process of its own: the median seconds of one core of
runs in turn and the largest resident memory of a process, beside what issue 6 asks for. Then the SimPy engine's seconds
for the first of them, within this process.

python tests/bench/bench_engine.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

import simpy
from bitwright.arch import machine as machines
from bitwright.sim import engine, fast
from bitwright.sim.inference import dram_port, edge_latency_cycles, simulate
from bitwright.workloads import mapping
from bitwright.workloads.operators import Gemm

WHOLE_MODEL = "int8-128x128 llama-2-7b --buffers-kib 512,512,512 --dram hbm2e --prompt-tokens 2048"
BOUNDS = ((1, 1.0, 300), (256, 5.0, 300))  # output tokens, CPU seconds, MiB
ROUNDS = 5
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


def whole_model(timing: str, output_tokens: int) -> tuple[float, float]:
    """(CPU seconds, MiB) of a cold process of one thread."""
    command = [sys.executable, "-m", "bitwright.cli", "simulate", *WHOLE_MODEL.split(), "--json"]
    command += ["--output-tokens", str(output_tokens), "--dram-timing", timing]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def by_simpy(timing: str) -> float:
    """CPU seconds of the SimPy engine for the whole model, equal layers once."""
    machine = machines.with_changes(
        machines.load("int8-128x128"), buffers_kib="512,512,512", dram="hbm2e", dram_timing=timing
    )
    start = time.process_time()
    simulate(machine, "llama-2-7b", prompt_tokens=2048, output_tokens=1, engine="simpy")
    return time.process_time() - start


def main() -> None:
    cases = [(*bound, timing) for bound in BOUNDS for timing in ("bandwidth", "banks")]
    rounds = [[whole_model(timing, output_tokens) for output_tokens, *_, timing in cases] for _ in range(ROUNDS)]
    for (output_tokens, most_s, most_mib, timing), runs in zip(cases, zip(*rounds, strict=True), strict=True):
        seconds, mib = median(run[0] for run in runs), max(run[1] for run in runs)
        print(
            f"llama-2-7b, 2,048 in, {output_tokens} out, {timing}: {seconds:.2f} s of CPU "
            f"(asked: under {most_s:g}), {mib:.0f} MiB (under {most_mib})",
            flush=True,
        )
    for timing in ("bandwidth", "banks"):
        print(f"llama-2-7b, 2,048 in, 1 out, {timing}, by SimPy: {by_simpy(timing):.2f} s of CPU (asked: 60 a layer)")
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
