"""Speed of perplexity: processor seconds a policy, and how far that is from BLAS doing the products alone.

    OPENBLAS_NUM_THREADS=1 python tests/bench/bench_perplexity.py [--tokens 1024]

One core. The bound is the multiply-adds of the matrices, the head and the attention (only keys a query sees) at the
rate of the best 1024 x 1024 x 1024 float32 product of this machine. Seconds are processor time, so other work on the
machine disturbs them less than the wall clock, but not nothing (shared caches).
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from bitwright.workloads import checkpoint
from bitwright.workloads.perplexity import perplexity
from bitwright.workloads.policy import FormatPolicy

INT8: dict[str, Any] = {"pe": "int8-mac", "acts": "int8", "kv": "int8"}
SHIFT: dict[str, Any] = {"pe": "shift-add", "acts": "int8", "kv": "int4"}
POLICIES: tuple[dict[str, Any], ...] = (
    {},
    {"weights": "int8"},
    {"weights": "int4", "group": 64},
    {"weights": "bitmod_fp3", "group": 64},
    {"weights": "int8", **INT8},
    {"weights": "int8", **INT8, "acts": "int8_tensor"},
    {"weights": "int4", "group": 64, **INT8},
    {"weights": "int4_asym", "group": 64, **INT8},
    {"weights": "int4_asym", "group": 32, **INT8},
    {"weights": "fp4_e2m1", "group": 64, **INT8},
    {"weights": "bitmod_fp4", "group": 64, **INT8},
    {"weights": "int3", "group": 64, **INT8},
    {"weights": "int3_asym", "group": 64, **INT8},
    {"weights": "bitmod_fp3", "group": 64, **INT8},
    {"weights": "int4_asym", "group": 64, **SHIFT},
)
LIMITS_S = {"fp16-mac": 8.0, "int8-mac": 15.0, "shift-add": 15.0}


def blas_peak() -> float:
    """Multiply-adds a second of the fastest of several large products, one thread."""
    left, right = (np.random.default_rng(i).random((1024, 1024), np.float32) for i in range(2))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 1024**3 / best


def measure(tokens: int, window: int = 512) -> dict[str, list[float]]:
    """Print the table and return the processor seconds of the policies of each PE."""
    source = checkpoint.load("smollm2-135m")
    shape, peak = source.shape, blas_peak()
    pairs = tokens // window * window * (window + 1) // 2
    macs = shape.linear_parameters * tokens + 2 * pairs * shape.layers * shape.heads * shape.head_dim
    bound = macs / peak
    print(f"{tokens} tokens, {2 * macs / 1e9:.0f} GFLOP; BLAS {2 * peak / 1e9:.0f} GFLOP/s, so at least {bound:.2f} s")
    print(f"{'policy':55} {'ppl':>9} {'bits/w':>7} {'w. error':>9} {'s':>6} {'x bound':>8} {'GFLOP/s':>8}")
    seconds: dict[str, list[float]] = {}
    for fields in POLICIES:
        policy = FormatPolicy(**fields)
        start = time.process_time()
        result = perplexity(source, policy, tokens=tokens, window=window)
        took = time.process_time() - start
        seconds.setdefault(policy.pe, []).append(took)
        error = float(np.mean(list(result.weight_errors.values())))
        line = f"{policy.describe():55} {result.perplexity:9.5g} {result.bits_per_weight:7.3f} {error:9.5f}"
        print(f"{line} {took:6.2f} {took / bound:8.2f} {2 * macs / took / 1e9:8.0f}", flush=True)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak_mib:.0f} MiB; all policies {sum(map(sum, seconds.values())):.0f} s of one core")
    return seconds


@pytest.mark.bench
def test_every_policy_is_in_time() -> None:
    for name, seconds in measure(1024).items():
        assert max(seconds) < LIMITS_S[name], name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024)
    measure(parser.parse_args().tokens)
