"""Speed of the codecs: nanoseconds a weight, and how far that is from copying the same bytes.

    python tests/bench/bench_formats.py [--rows 49152]

One core, the best of several runs. The matrix is SmolLM2-135M's embedding (49152 x 576, 28.3 M weights) with
Gaussian values. The bound moves what encode and decode must move (4 bytes in and 1 out, then back: 10 bytes a
weight) at the rate of a float32 array copy (8 bytes a weight). The last column is the time for all matrices of
SmolLM2-135M at that speed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pytest
from bitwright.arch import formats

NAMES = ("int4", "int4_asym", "fp4_e2m1", "bitmod_fp4", "bitmod_fp3")
GROUP = 64
WIDTH = 576
# SmolLM2-135M: embedding, and 30 layers of q, o (576 x 576), k, v (192 x 576), gate, up, down (1536 x 576).
MODEL_WEIGHTS = 49152 * 576 + 30 * 576 * (2 * 576 + 2 * 192 + 3 * 1536)
LIMITS_S = {"int4": 3.0, "bitmod_fp3": 8.0}


def best_ns(work: Callable[[], object], weights: int, runs: int = 5) -> float:
    """Least time of several runs, in ns a weight."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) / weights * 1e9


def measure(rows: int) -> dict[str, float]:
    """Print the table and return the whole-model seconds of each format."""
    values = np.random.default_rng(0).normal(scale=0.05, size=(rows, WIDTH)).astype(np.float32)
    target = np.empty_like(values)
    bound = best_ns(lambda: np.copyto(target, values), values.size) * 10 / 8
    print(f"{rows} x {WIDTH} float32, group {GROUP}, one core; copy bound {bound:.2f} ns/weight")
    print(f"{'format':12} {'encode':>8} {'decode':>8} {'both':>8} ns/weight {'x bound':>8} {'SmolLM2-135M':>14}")
    seconds = {}
    for name in NAMES:
        fmt = formats.get(name)
        encoded = fmt.encode(values, group=GROUP)
        encode_ns = best_ns(lambda fmt=fmt: fmt.encode(values, group=GROUP), values.size)  # type: ignore[misc]
        decode_ns = best_ns(lambda fmt=fmt, encoded=encoded: fmt.decode(encoded), values.size)  # type: ignore[misc]
        both = encode_ns + decode_ns
        seconds[name] = both * MODEL_WEIGHTS / 1e9
        costs = f"{encode_ns:8.2f} {decode_ns:8.2f} {both:8.2f}"
        print(f"{name:12} {costs} {'':9} {both / bound:8.1f} {seconds[name]:12.2f} s")
    return seconds


@pytest.mark.bench
def test_codecs_quantise_the_whole_model_in_time() -> None:
    seconds = measure(8192)
    for name, limit in LIMITS_S.items():
        assert seconds[name] < limit, name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=49152)
    measure(parser.parse_args().rows)
