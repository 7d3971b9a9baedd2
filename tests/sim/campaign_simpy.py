"""A published model whole, by the SimPy engines and the fast ones: `make campaign-simpy`.

Llama-2-7B, prefill of 2,048 tokens and one token at context 2,048, on a 128 x 128 array with HBM2E: every operator of
the tile engines, on both kinds of memory and over a generation of 256 tokens; and every linear layer as a program of
the accelerator. Layers are alike, so each distinct product runs once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from bitwright.arch import machine as machines
from bitwright.cli.gemm import model_row
from bitwright.sim.inference import operator, simulate

MODEL = "llama-2-7b"


def machine(timing: str) -> machines.Machine:
    return machines.with_changes(
        machines.load("int8-128x128"), buffers_kib="512,512,512", dram="hbm2e", dram_timing=timing
    )


def timed(what: str, run: Callable[[], Any]) -> Any:
    start = time.process_time()
    found = run()
    print(f"{what}: {time.process_time() - start:.1f} s of CPU")
    return found


@pytest.mark.parametrize("output_tokens", [1, 256])
@pytest.mark.parametrize("timing", ["bandwidth", "banks"])
def test_the_tile_engines_count_the_whole_model_alike(timing: str, output_tokens: int) -> None:
    operator.cache_clear()
    simpy, fast = (
        timed(
            f"tile engine, {timing}, {output_tokens} out, {engine}",
            lambda engine=engine: simulate(  # type: ignore[misc]
                machine(timing), MODEL, prompt_tokens=2048, output_tokens=output_tokens, engine=engine
            ),
        )
        for engine in ("simpy", "fast")
    )
    assert simpy == fast
    print(f"  {simpy.cycles} cycles, every counter equal")


def test_the_accelerators_engines_count_every_linear_layer_alike() -> None:
    rows = [
        timed(
            f"accelerator, {engine}",
            lambda engine=engine: model_row(  # type: ignore[misc]
                machine("bandwidth"), MODEL, engine=engine, weights=None, group=None, prompt_tokens=2048,
                output_tokens=1, batch=1,
            ),
        )
        for engine in ("simpy", "fast")
    ]  # fmt: skip
    for row in rows:
        del row["engine"]
    assert rows[0] == rows[1]
    print(f"  {rows[0]['cycles']} cycles, {sum(layer['instructions'] for layer in rows[0]['layers'])} instructions run")
