"""Variants: choices add up, defaults leave the name, a rule that would be ignored is refused, the text is true.

Cases: every format with options, every choice of every option; all pairs of options of each format in both orders.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch.errors import FormatError
from bitwright.arch.formats.options import Variants
from bitwright.arch.formats.scaled import ScaledFormat

WITH_OPTIONS = [name for name in formats.names() if getattr(formats.get(name), "options", None)]


def variants_of(name: str) -> Variants:
    fmt = formats.get(name)
    assert isinstance(fmt, Variants)
    return fmt


def message_of(call: object, *args: object, **kwargs: object) -> str:
    with pytest.raises(FormatError) as error:
        call(*args, **kwargs)  # type: ignore[operator]
    return str(error.value)


def choices(fmt: Variants) -> list[dict[str, str]]:
    """Every single choice of a format, with the e8m0 scale that a scale rule needs."""
    found = []
    for option, known in fmt.options.items():
        needs = {"scale": "e8m0"} if option == "scale_rule" and "scale" in fmt.options else {}
        found += [{option: value, **needs} for value in known]
    return found


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_every_choice_has_one_name_that_gives_it_again(name: str) -> None:
    fmt = variants_of(name)
    for chosen in choices(fmt):
        variant = fmt.with_options(**chosen)
        assert formats.get(variant.name).name == variant.name
        differing = {key: value for key, value in chosen.items() if fmt.option_value(key) != value}
        assert (variant is fmt) == (not differing)
        assert variant.chosen == differing
        assert {key: variant.option_value(key) for key in chosen} == chosen
        assert variant.with_options() is variant or variant.with_options().name == variant.name
        back = variant.with_options(**{key: fmt.option_value(key) for key in differing})
        assert back is fmt


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_choices_add_up_in_any_order(name: str) -> None:
    fmt = variants_of(name)
    for first, second in itertools.combinations(choices(fmt), 2):
        if any(first.get(key, value) != value for key, value in second.items()):
            continue
        both = fmt.with_options(**first, **{k: v for k, v in second.items() if k not in first})
        for one, other in ((first, second), (second, first)):
            step = fmt.with_options(**one).with_options(**other)
            assert step.name == both.name
            options = fmt.options
            assert [step.option_value(key) for key in options] == [both.option_value(key) for key in options]


def test_the_examples_of_the_review() -> None:
    sparse = variants_of("dns_int4:fraction=0.05").with_options(select="sensitivity")
    assert sparse.name == "dns_int4:fraction=0.05,select=sensitivity"
    assert variants_of("dns_int4:fraction=0.05").with_options().name == "dns_int4:fraction=0.05"
    mx = variants_of("mxfp4:scale_rule=rceil").with_options(ties="away")
    assert mx.name == "mxfp4:scale_rule=rceil,ties=away"
    values = np.linspace(-7, 7, 64, dtype=np.float32)
    assert isinstance(mx, ScaledFormat)
    assert np.array_equal(formats.get(mx.name).decode(mx.encode(values)), mx.decode(mx.encode(values)))


def test_defaults_are_refused_in_names() -> None:
    assert message_of(formats.get, "int4:scale=fp16") == (
        "format = int4:scale=fp16: is int4 (write that: options in alphabetical order, no defaults)"
    )
    assert variants_of("int4").with_options(scale="fp16") is formats.get("int4")


def test_a_scale_rule_that_nothing_would_follow_is_refused() -> None:
    assert message_of(formats.get, "int4:scale_rule=ceil") == (
        "int4:scale_rule=ceil: scale_rule: only e8m0 scales have one, the scale is fp16 (add scale=e8m0)"
    )
    assert message_of(formats.get, "bitmod_fp4:scale_rule=rceil") == (
        "bitmod_fp4: option scale_rule: no such option; did you mean 'scale'? (known: scale)"
    )
    for name in WITH_OPTIONS:
        fmt = formats.get(name)
        if isinstance(fmt, ScaledFormat):
            assert ("scale_rule" in fmt.options) == ("e8m0" in fmt.scale_formats)


def test_an_option_called_self_is_an_unknown_option() -> None:
    message = message_of(formats.get, "int4:self=1")
    assert message == "int4: option self: no such option; known: scale, scale_rule"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("int4", "scale = max|w| / 7; nearest, ties to even"),
        ("int4:scale=e8m0", "scale = 2**(floor(log2 max|w|) - 2); nearest, ties to even"),
        ("int4:scale=none", "scale = 1; nearest, ties to even"),
        (
            "int4:scale=e4m3",
            "scale = e4m3(max|w| / 7 / tensor) * tensor, tensor = max|array| / (448 * 7); nearest, ties to even",
        ),
        ("int4_asym", "scale = (max - min, both with 0) / 15, zero = -min / scale; nearest, ties to even"),
        (
            "int4_asym:scale=e8m0,scale_rule=rceil",
            "scale = least power of two >= (max - min, both with 0) / 15, zero = -min / scale; nearest, ties to even",
        ),
        ("fp4_e2m1:ties=away", "scale = max|w| / 6; nearest, ties away from zero"),
        ("mxfp4:ties=lower", "scale = 2**(floor(log2 max|w|) - 2); nearest, ties to the lower, saturating"),
        ("nvfp4:tensor_scale=one", "scale = e4m3(max|w| / 6); nearest, ties to even, saturating"),
        (
            "nf4:scale=e8m0,scale_rule=even",
            "scale = 2**(floor(log2 max|w|)), max|w| first rounded to 1 significant bit; nearest, ties to the lower",
        ),
        ("nested4", "scale = max|w| / 255; top 4 bits of the 8-bit code; nearest, ties to even"),
        ("afpq_fp4", "scale = max of each sign / 6; nearest, ties to even"),
        ("ternary", "scale = mean|w|; nearest, ties to even, clipped to -1..1"),
        (
            "ternary:scale=e8m0",
            "scale = mean|w|, to a power of two by the rule floor; nearest, ties to even, clipped to -1..1",
        ),
        (
            "posit8_es1:peak=4,scale=fp16",
            "scale = max|w| / 4; nearest code of the endless posit, ties to the even code",
        ),
    ],
)
def test_the_scale_rule_says_what_the_variant_does(name: str, text: str) -> None:
    assert formats.get(name).scale_rule == text
