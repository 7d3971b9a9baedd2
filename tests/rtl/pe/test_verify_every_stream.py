"""`bitwright verify` of every streaming PE as it stands by default: the cocotb bench and the bulk runs."""

from __future__ import annotations

import pytest
from bitwright.arch import pe
from bitwright.rtl.bench.verification import verify_pe

PARAMS = {"lut": ":m=1,n=4"}  # the default tile has 512 MACs a step: its protocol is the small tile's


@pytest.mark.parametrize("name", pe.stream_names())
def test_the_bench_of_all_passes(name: str) -> None:
    """cocotb: idle x back-pressure, exact cycles, clears, resets, extreme codes, real tensors; then bulk runs."""
    spec = pe.stream(name)
    text = name + PARAMS.get(name, ":" + ",".join(f"{key}={value}".lower() for key, value in spec.params.items()))
    found = list(verify_pe(text))
    assert len(found) == 2
    assert len(found[0][1]) == 8
    assert len(found[1][1]) >= 3
