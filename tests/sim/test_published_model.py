"""Llama-2-7B as issue 6 asks for it: prefill of 2,048 tokens and one token at context 2,048, by both engines."""

from __future__ import annotations

import time

import pytest
from bitwright.arch import machine as machines
from bitwright.sim.inference import operator, simulate


@pytest.mark.parametrize("timing", ["bandwidth", "banks"])
def test_both_engines_count_llama_2_7b_alike(timing: str) -> None:
    """Layers are alike, so that one stands for all 32: SimPy's whole run is that of one layer and the head."""
    machine = machines.with_changes(
        machines.load("int8-128x128"), buffers_kib="512,512,512", dram="hbm2e", dram_timing=timing
    )
    sizes = {"prompt_tokens": 2048, "output_tokens": 1}
    operator.cache_clear()
    start = time.process_time()
    reference = simulate(machine, "llama-2-7b", engine="simpy", **sizes)
    assert time.process_time() - start < 60
    assert simulate(machine, "llama-2-7b", **sizes) == reference
    assert reference.prefill.cycles > reference.prefill.bound_cycles > reference.decode.cycles > 0
