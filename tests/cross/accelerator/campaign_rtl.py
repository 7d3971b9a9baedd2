"""`make campaign-rtl`: real layers on every family's machine at three latencies and two bandwidths, and the 32x32 one;
the random programs of `test_programs` on two more ways to load weights.

A line a run; any difference in a byte or a cycle fails.
"""

from __future__ import annotations

import resource
import time

import pytest
from accelerator_views import MEMORIES, machine_limits
from bitwright.arch import machine
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.limits import Limits, limits
from bitwright.rtl.accelerator.top import verilog
from bitwright.rtl.bench.accelerator_runner import CompiledAccelerator
from bitwright.rtl.bench.verilator import lint
from bitwright.rtl.generation import design_of
from test_layers import TOKENS, run_layer
from test_programs import (
    real_layers,
    test_random_products,
    test_random_programs_of_mixed_formats,
    test_random_stalls_change_no_byte,
)

FAMILIES = [
    ("fp16-8x8", "fp16", None),
    ("fp16-8x8-os", "int4_asym", 32),
    ("int8-8x8", "int4_asym", 32),
    ("int8-8x8-os", "int8", None),
    ("shift-add-8x8", "int4_asym", 64),
    ("shift-add-8x8-os", "int4", 64),
    ("outlier-victim-8x8", "ovp4", 64),
    ("outlier-victim-8x8", "ovp8", 64),
    ("lut-8x8", "int4_asym", 32),
    ("bit-serial-8x8", "bitmod_fp4", 128),
    ("bit-serial-8x8", "bitmod_fp3", 128),
    ("bit-serial-8x8", "int6", 128),
    ("bit-serial-8x8", "int8", 128),
    ("opt3-8x8", "int8", None),
    ("opt3-8x8", "int4", 64),
    ("opt4c-8x8", "int8", 64),
    ("int8-16x16", "int4_asym", 32),
]


WAYS_TO_LOAD = {  # beside the one of test_programs
    "fp16-4x3+2": (16, ("fp16", "int4_asym", "int4")),
    "int8-4x3+1single": (16, ("int8", "int4_asym")),
}


@pytest.fixture(params=WAYS_TO_LOAD)
def lim(request: pytest.FixtureRequest) -> Limits:
    return machine_limits(request.param, *WAYS_TO_LOAD[request.param])


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_layers(family: tuple[str, str, int | None], memory: FixedMemory) -> None:
    for weights, inputs in real_layers().values():
        for tokens in (1, TOKENS):
            print(run_layer(*family, weights, inputs[-tokens:], memory), flush=True)


def test_the_largest_machine_converts_lints_and_builds() -> None:
    """int8-32x32; the figures are of this machine."""
    begin = time.perf_counter()
    design = design_of("int8-32x32")
    converted = time.perf_counter()
    assert lint(design.text(), design.module, waivers=()) == []
    linted = time.perf_counter()
    lim = limits(machine.load("int8-32x32"))
    module, text = verilog(lim)
    CompiledAccelerator(text, module, lim)
    built = time.perf_counter()
    peak_mib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(
        f"int8-32x32: convert {converted - begin:.0f} s, lint {linted - converted:.0f} s, "
        f"convert again and build {built - linted:.0f} s, largest process {peak_mib:.0f} MiB"
    )


__all__ = ["test_random_products", "test_random_programs_of_mixed_formats", "test_random_stalls_change_no_byte"]
