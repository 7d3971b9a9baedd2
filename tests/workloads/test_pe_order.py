"""The PE's order of additions: its bits, and how far BLAS is from them on SmolLM2's own operands.

Cases: 2 x 300 outputs against `arch.pe`; all outputs of 2 matrices of a tiny model and 16 tokens of the real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.workloads import checkpoint, pe_order
from bitwright.workloads.checkpoint import Checkpoint
from bitwright.workloads.perplexity import perplexity
from bitwright.workloads.policy import FormatPolicy


@pytest.mark.parametrize("width", [7, 333])
def test_sums_have_the_bits_of_the_pe(width: int) -> None:
    rng = np.random.default_rng(width)
    acts = rng.standard_t(2, (70, width)).astype(np.float16)
    weights = rng.standard_normal((600, width)).astype(np.float16)
    found = pe_order.sequential_product(acts.astype(np.float32), weights.astype(np.float32))
    rows, columns = rng.integers(0, 70, 300), rng.integers(0, 600, 300)
    spec = pe.get("fp16-mac")
    acc = np.zeros(300, np.float32)
    for k in range(width):
        acc = spec.accumulate(acc, acts[rows, k], weights[columns, k])
    assert np.array_equal(found[rows, columns].view(np.uint32), acc.view(np.uint32))


def test_tiny_model(tiny: Any, tmp_path: Path) -> None:
    """The BLAS run is `perplexity`; every matrix has a distance, of the size of float32's roundings."""
    text = tmp_path / "text.txt"
    text.write_text("hello hell, a hello to all " * 10)
    source, policy = checkpoint.load(tiny.path), FormatPolicy(weights="int4", group=16, head="fp16")
    found = pe_order.measure(source, policy, tokens=20, text=text)
    plain = perplexity(source, policy, tokens=20, window=20, text=text)
    assert float(f"{found.perplexity_blas:.5g}") == plain.perplexity
    assert found.predictions == 19
    assert set(found.distances) == {name for name in (*source.matrices, "head") if name != "embed"}
    assert found.distances["head"].outputs == 20 * source.shape.vocab
    assert 0 < max(distance.rms for distance in found.distances.values()) < 1e-6
    # BLAS sums in an order of the processor's choice: a last bit of float32 may flip the fp16 rounding of a later
    # input, 2**-11 of it.
    assert abs(found.relative_shift) < 2**-9


def test_the_real_model(smollm2: Checkpoint) -> None:
    """16 tokens; outputs differ by some 1e-7 of their root mean square, perplexity by less than 5e-3 of itself."""
    found = pe_order.measure(smollm2, FormatPolicy(), tokens=16)
    rms = [distance.rms for distance in found.distances.values()]
    print(f"rms distance {min(rms):.1e}..{max(rms):.1e}, perplexity {found.relative_shift:+.1e}")
    assert len(rms) == 211
    assert 1e-8 < np.median(rms) < 1e-6
    assert max(distance.largest for distance in found.distances.values()) < 1e-3
    assert 0 < abs(found.relative_shift) < 5e-3


def test_other_pes_are_refused(smollm2: Checkpoint) -> None:
    with pytest.raises(ConfigError) as error:
        pe_order.measure(smollm2, FormatPolicy(weights="int8", pe="int8-mac", acts="int8", kv="int8"))
    assert str(error.value) == (
        "policy = int8, acts int8, kv int8, int8-mac: must be round to nearest on fp16-mac; pe_order.measure"
    )
