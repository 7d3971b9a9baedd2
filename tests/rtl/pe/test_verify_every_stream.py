"""The cocotb bench of `bitwright verify` on every streaming PE by default (bulk runs: each PE's own tests)."""

from __future__ import annotations

import pytest
from bitwright.arch import pe
from bitwright.rtl.bench.verification import verify_pe

SMALL = {"lut": "lut:m=1,n=4"}  # the default tile has 512 MACs a step: its protocol is the small tile's


@pytest.mark.parametrize("name", pe.stream_names())
def test_the_bench_of_all_passes(name: str) -> None:
    """Idle x back-pressure, exact cycles, clears, resets, extreme codes, real tensors."""
    spec = pe.stream(name)
    values = ",".join(f"{key}={value}".lower() for key, value in spec.params.items())
    _, passed = next(verify_pe(SMALL.get(name, f"{name}:{values}")))
    assert len(passed) == 8
