"""What every streaming PE's spec shares: golden sums of checked steps, names with parameters, types of parameters."""

from __future__ import annotations

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError

ACT = np.array([[1, -2], [3, 4], [5, 6]], dtype=np.int8)
WGT = np.array([[100, 100], [-128, 127], [1, 1]], dtype=np.int8)


def test_golden_sums_are_those_of_the_step_rules() -> None:
    """Two sums: a dropped one, then first to last; small dtypes do not wrap."""
    spec = pe.stream("int8-mac", lanes=2)
    found = spec.golden(act=ACT, wgt=WGT, first=[1, 1, 0], last=[0, 0, 1])
    assert found["psum"].tolist() == [3 * -128 + 4 * 127 + 5 + 6]


def test_a_step_after_last_goes_on_with_the_same_sum() -> None:
    spec = pe.stream("int8-mac", lanes=2)
    found = spec.golden(act=ACT, wgt=WGT, first=[1, 0, 0], last=[1, 1, 1])
    assert found["psum"].tolist() == [-100, -100 + 124, -100 + 124 + 11]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"act": ACT, "wgt": WGT}, "int8-mac steps = act, wgt: must be exactly act, wgt, first, last"),
        (
            {"act": ACT * 0.5, "wgt": WGT, "first": [1, 0, 0], "last": [0, 0, 1]},
            "int8-mac act = float64 (3, 2): must be integers of shape (3, 2)",
        ),
        (
            {"act": ACT[:2], "wgt": WGT, "first": [1, 0, 0], "last": [0, 0, 1]},
            "int8-mac act = int8 (2, 2): must be integers of shape (3, 2)",
        ),
        (
            {"act": ACT.astype(int) * 40, "wgt": WGT, "first": [1, 0, 0], "last": [0, 0, 1]},
            "int8-mac act = -80..240: must be in -128..127",
        ),
        (
            {"act": ACT, "wgt": WGT, "first": [0, 1, 0], "last": [0, 0, 1]},
            "int8-mac first: the first step of all must be marked first",
        ),
    ],
)
def test_wrong_steps_get_one_message(steps: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pe.stream("int8-mac", lanes=2).golden(**steps)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize("name", pe.stream_names())
def test_every_variant_is_parsed_from_its_own_text(name: str) -> None:
    for params in type(pe.stream(name)).variants:
        values = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in params.items()]
        text = name + (":" + ",".join(values) if values else "")
        assert pe.parse_name(text) == (name, dict(params))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lanes": 2.5}, "int8-mac.lanes = 2.5: must be of type int"),
        ({"lanes": True}, "int8-mac.lanes = True: must be of type int"),
        ({"lanes": "4"}, "int8-mac.lanes = '4': must be of type int"),
    ],
)
def test_parameters_have_types(params: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pe.stream("int8-mac", **params)
    assert str(caught.value) == message


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        pe.parse_name("int8-mac:lanes=4,lanes=8")
    assert str(caught.value) == "pe = 'int8-mac:lanes=4,lanes=8': lanes is given twice"
