"""GPU rooflines: worked by hand, never above a machine of the same peaks, and data with sources."""

from __future__ import annotations

import pytest
from bitwright.sim import gpus
from bitwright.workloads import shapes
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.steps import decode, prefill, static

FP16, INT8 = FormatPolicy(), FormatPolicy(pe="int8-mac", weights="int8", acts="int8", kv="int8")


def of(name: str) -> gpus.Gpu:
    return next(gpu for gpu in gpus.gpus() if gpu.name == name)


@pytest.mark.parametrize(
    ("name", "sms", "fma_a_cycle", "boost_mhz"),
    [("a100-80gb-sxm", 108, 1024, 1410), ("h100-sxm", 132, 2048, 1830), ("rtx-4090", 128, 512, 2520)],
)
def test_peaks_are_what_the_matrix_units_do_at_boost(name: str, sms: int, fma_a_cycle: int, boost_mhz: int) -> None:
    # SMs x dense fp16 multiply-adds an SM and cycle x 2 x clock (architecture whitepapers); int8 is twice that.
    peaks = of(name).tera_ops
    assert peaks["fp16"] == pytest.approx(sms * fma_a_cycle * 2 * boost_mhz * 1e-6, rel=2e-3)
    assert peaks["int8"] == pytest.approx(2 * peaks["fp16"], rel=1e-4)


def test_a_decode_step_is_bound_by_its_bytes() -> None:
    # Llama-2-7B in fp16 by hand: 6,607,077,376 weights; 32 layers x 2 x 4096 of 2,049 tokens read and one written.
    read = 2 * 6_607_077_376 + 2 * 32 * 2 * 4096 * (2049 + 1)
    a100 = of("a100-80gb-sxm")
    (row,) = (
        row for row in gpus.references(shapes.get("llama-2-7b"), FP16, [decode(2048)]) if row["gpu"] == "a100-80gb-sxm"
    )
    assert row["least_decode_ms"] == pytest.approx((read - 40 * 2**20) / 2039e9 * 1e3, rel=1e-9)
    assert row["least_prefill_ms"] == 0
    assert a100.bound_s("fp16", 0, 10) == 0  # L2 holds it


def test_a_prefill_is_bound_by_its_useful_macs() -> None:
    # Llama-2-7B, 2,048 tokens: layers' matrices for each, the head for the last; causal scores and values.
    shape = shapes.get("llama-2-7b")
    head = 32000 * 4096
    macs = 2048 * (6_607_077_376 - head) + head + 32 * 2 * 4096 * (2048 * 2049 // 2)
    (row,) = (row for row in gpus.references(shape, INT8, [prefill(2048)]) if row["gpu"] == "h100-sxm")
    assert row["mac_format"] == "int8"
    assert row["least_prefill_ms"] == pytest.approx(2 * macs / 1978.9e12 * 1e3, rel=1e-9)


def test_steps_add_up() -> None:
    shape, steps = shapes.get("smollm2-135m"), static(64, 3, 2)
    together = gpus.references(shape, FP16, steps)
    alone = [gpus.references(shape, FP16, [step]) for step in steps]
    for index, row in enumerate(together):
        assert row["least_latency_ms"] == pytest.approx(sum(one[index]["least_latency_ms"] for one in alone))
