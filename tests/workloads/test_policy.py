"""Format policies: what may be combined, and the whole message of what may not."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.workloads.policy import FormatPolicy

INT8 = {"pe": "int8-mac", "acts": "int8", "kv": "int8"}


def _refused(**fields: Any) -> str:
    with pytest.raises(ConfigError) as error:
        FormatPolicy(**fields)
    return str(error.value)


def test_default_is_fp16_everywhere() -> None:
    policy = FormatPolicy()
    assert policy.describe() == "fp16, acts fp16, kv fp16, fp16-mac"
    assert policy.head_format == "fp16"


def test_head_follows_the_weights_unless_named() -> None:
    assert FormatPolicy(weights="int4", group=64, **INT8).head_format == "int4"
    policy = FormatPolicy(weights="int4", group=64, head="int8", **INT8)
    assert policy.head_format == "int8"
    assert policy.describe() == "int4 g64, head int8, acts int8, kv int8, int8-mac"


def test_frozen_and_hashable() -> None:
    policy = FormatPolicy()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        policy.weights = "int4"  # type: ignore[misc]
    assert hash(policy) == hash(FormatPolicy())


@pytest.mark.parametrize(
    "fields",
    [
        {"weights": "int3", "group": 64},
        {"weights": "bitmod_fp3", "group": 128, "kv": "int8"},
        {"weights": "int4_asym", "group": 64, **INT8},
        {"weights": "bitmod_fp4", "group": 64, **INT8, "kv": "int4", "acts": "int8_tensor"},
        {"weights": "int4", "group": 64, "pe": "shift-add", "acts": "int8", "kv": "int4"},
    ],
)
def test_good_combinations(fields: dict[str, Any]) -> None:
    assert FormatPolicy(**fields).weights == fields["weights"]


def test_unknown_keys_and_choices() -> None:
    assert _refused(weigths="int4") == (
        "policy.weigths: unknown key; did you mean 'weights'? (known: acts, group, head, kv, pe, weights)"
    )
    assert _refused(acts="int9") == (
        "policy.acts = 'int9': no such choice; did you mean 'int8'? (known: fp16, int8, int8_tensor)"
    )
    assert _refused(kv="int2") == "policy.kv = 'int2': no such choice; did you mean 'int8'? (known: fp16, int4, int8)"
    assert _refused(pe="int8-mc").startswith("policy.pe = 'int8-mc': no such choice; did you mean 'int8-mac'? (known: ")
    assert _refused(weights="int44").startswith(
        "policy.weights = 'int44': no such format; did you mean 'int4'? (known: "
    )
    assert _refused(head="pf16").startswith("policy.head = 'pf16': no such format; did you mean 'fp16'? (known: ")


@pytest.mark.parametrize("group", [0, -1, 2.5, True, "64"])
def test_impossible_groups(group: Any) -> None:
    assert _refused(group=group) == (
        f"policy.group = {group!r}: must be a whole number of at least 1, or null for whole rows"
    )


def test_activations_the_pe_does_not_take() -> None:
    assert _refused(acts="int8") == "policy.acts = 'int8': fp16-mac takes fp16 activations"
    assert _refused(weights="int8", pe="int8-mac", kv="int8") == (
        "policy.acts = 'fp16': int8-mac takes int8 or int8_tensor activations"
    )


def test_weights_the_pe_refuses() -> None:
    assert _refused(weights="fp16", **INT8) == (
        "policy.weights = 'fp16': refused by int8-mac: fp16 has no values that are int8 times a scale"
    )
    assert _refused(weights="int4", group=64, head="fp16", **INT8) == (
        "policy.head = 'fp16': refused by int8-mac: fp16 has no values that are int8 times a scale"
    )
    message = _refused(weights="int4", group=64, pe="shift-add", acts="int8", kv="int8")
    assert message.startswith("policy.kv = 'int8': refused by shift-add: ")
    message = _refused(weights="int4", pe="shift-add", acts="int8", kv="int4")
    assert message.startswith("policy.weights = 'int4': refused by shift-add: ")
