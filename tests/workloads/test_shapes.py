"""Published shapes: facts against published parameter counts, and errors."""

from __future__ import annotations

import dataclasses

import pytest
from bitwright.arch.errors import ConfigError
from bitwright.workloads import shapes

# Published total parameters (model cards and papers). Norms, biases and learned positions are left out of the
# shape, so a count may be low by up to 1.5 %; tied embeddings are counted once.
PUBLISHED = {
    "smollm2-135m": 134_515_008,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-3-8b": 8_030_261_248,
    "opt-1.3b": 1_315_758_080,
    "opt-6.7b": 6_658_473_984,
    "phi-2": 2_779_683_840,
    "yi-6b": 6_061_035_520,
    "mistral-7b": 7_241_732_096,
}


def test_names_are_the_published_ones() -> None:
    assert set(shapes.names()) == set(PUBLISHED)
    assert all(shapes.get(name).source for name in shapes.names())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_add_up_to_the_published_count(name: str) -> None:
    shape = shapes.get(name)
    total = shape.linear_parameters + (0 if shape.tied_embeddings else shape.vocab * shape.hidden)
    assert PUBLISHED[name] * 0.985 <= total <= PUBLISHED[name]


def test_smollm2_matmuls() -> None:
    found = [(m.name, m.n, m.k, m.count) for m in shapes.get("smollm2-135m").matmuls()]
    assert found == [
        ("q", 576, 576, 30),
        ("k", 192, 576, 30),
        ("v", 192, 576, 30),
        ("o", 576, 576, 30),
        ("gate", 1536, 576, 30),
        ("up", 1536, 576, 30),
        ("down", 576, 1536, 30),
        ("head", 49152, 576, 1),
    ]


def test_two_matrix_feed_forward_has_no_gate() -> None:
    assert [m.name for m in shapes.get("opt-1.3b").matmuls()] == ["q", "k", "v", "o", "up", "down", "head"]


def test_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(ConfigError) as error:
        shapes.get("llama2-7b")
    assert str(error.value) == (
        "model = 'llama2-7b': no such shape; did you mean 'llama-2-7b'? (known: "
        "llama-2-13b, llama-2-7b, llama-3-8b, mistral-7b, opt-1.3b, opt-6.7b, phi-2, smollm2-135m, yi-6b)"
    )


def test_impossible_shapes_are_refused() -> None:
    good = shapes.get("llama-3-8b")
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(good, hidden=0)
    assert str(error.value) == "llama-3-8b.hidden = 0: must be a whole number of at least 1"
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(good, kv_heads=5)
    assert str(error.value) == "llama-3-8b.heads = 32: must be a multiple of kv_heads = 5"
