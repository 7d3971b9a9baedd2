"""The border's sparse encoder: its digits against Python's integers, flags, cycles, parameters."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import units
from bitwright.arch.pe.opt_sparse import Opt4c
from bitwright.arch.pe.sparse_encoder import FINAL, SparseEncoder
from bitwright.arch.pe.stream import FIRST, LAST

ENCODINGS = ("en-t", "mbe")


def value(code: int) -> int:
    """A digit code by its definition in words."""
    return 0 if code >> 2 & 1 else {0: -2, 1: 1, 2: 2, 3: -1}[code & 3] * 4 ** (code >> 3)


def test_it_is_an_edge_unit_with_a_module_for_each_encoding() -> None:
    assert units.get("sparse-encoder") == SparseEncoder("en-t")
    assert [SparseEncoder(name).module_name for name in ENCODINGS] == ["sparse_encoder_ent", "sparse_encoder_mbe"]
    assert Opt4c(encoding="mbe", encoder=False).border_encoder == SparseEncoder("mbe")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_digits_between_two_final_ones_are_a_weights(encoding: str) -> None:
    rng = np.random.default_rng(1)
    weights = np.concatenate([np.arange(-128, 128), rng.integers(-128, 128, 1000)])
    first, last = (rng.integers(0, 2, len(weights)) for _ in range(2))
    spec = SparseEncoder(encoding)
    stream = {"wgt": weights, FIRST: first, LAST: last}
    sent = spec.encode(stream)
    found, here = [], []
    for code, *flags in zip(*(sent[name].tolist() for name in ("digit", FINAL, FIRST, LAST)), strict=True):
        here.append((code, *flags))
        if flags[0]:
            found.append(here)
            here = []
    assert here == []
    assert [sum(value(code) for code, *_ in digits) for digits in found] == weights.tolist()
    assert [len(digits) for digits in found] == spec.cycles(stream).tolist()
    for digits, begin, end in zip(found, first.tolist(), last.tolist(), strict=True):
        assert [flags[2] for flags in digits] == [begin, *[0] * (len(digits) - 1)]
        assert [flags[3] for flags in digits] == [*[0] * (len(digits) - 1), end]
        places = [code >> 3 for code, *_ in digits]
        assert places == sorted(set(places))
        assert len(digits) == 1 or all(value(code) for code, *_ in digits)


def test_wrong_parameters_are_refused() -> None:
    for params, message in (
        ({"encoding": "booth"}, "sparse-encoder encoding = 'booth': must be en-t or mbe"),
        ({"rows": 4}, "sparse-encoder.rows: no such parameter (known: encoding)"),
    ):
        with pytest.raises(ConfigError) as error:
            units.get("sparse-encoder", **params)
        assert str(error.value) == message
