"""Lowered programs of broadcast tiles: results equal `workloads.linear` and an independent product, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats, machine, pe
from bitwright.arch.errors import ConfigError, FormatError
from bitwright.arch.formats.base import Encoded
from bitwright.arch.isa.encoding import from_bytes, to_bytes
from bitwright.arch.isa.instructions import Execute, NumberType
from bitwright.arch.isa.interpreter import region_beats, run
from bitwright.arch.isa.limits import Limits, limits, tile_format
from bitwright.arch.isa.network import validate
from bitwright.arch.pe import broadcast
from bitwright.arch.pe.stream import StreamSpec
from bitwright.workloads import linear, texts
from bitwright.workloads.attention import AttentionRule
from bitwright.workloads.checkpoint import Checkpoint
from bitwright.workloads.linear import Operand
from bitwright.workloads.lowering import Lowered, lower
from bitwright.workloads.tiling import Tiling
from bitwright.workloads.transformer import DecoderLayer
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

F32 = NDArray[np.float32]
PAIRS = {"int4": "ovp4", "int3": "ovp4", "ovp4": "ovp4", "int8": "ovp8", "int6": "ovp8", "ovp8": "ovp8"}
FLINT = {"flint4": "ovp4_flint", "ovp4_flint": "flint4", "ovp8": "int8"}
LUTS = ("int2", "int4", "int8", "int3_asym", "int4_asym", "int8_asym", "bipolar_int2", "bipolar_int3")
# A machine's PE, its parameters, and of each weight format the activations' format.
MACHINES: tuple[tuple[str, dict[str, Any], dict[str, str]], ...] = (
    ("outlier-victim", {}, PAIRS),
    ("outlier-victim", {"lanes": 4, "normal": "flint4"}, FLINT),
    ("lut", {"weight_bits": 8}, dict.fromkeys(LUTS, "int8")),
    ("lut", {"weight_bits": 8, "variant": "unpu"}, dict.fromkeys(LUTS[:6], "int8")),
    ("lut", {"k": 3, "depth": 8192, "variant": "reinterpretation"}, {"int4": "int8", "bipolar_int3": "int8"}),
)


# --- References ---------------------------------------------------------------------------------------------------


def activations(x: F32, format_name: str) -> Operand:
    """Integers of a format with one fp32 scale a token, as an operand."""
    form = formats.get(format_name)
    codes = form.integers(form.encode(x, group=None, scale_format="fp32"))
    return Operand(codes.ints.astype(np.float32), codes.scales, x.shape[1], int(np.abs(codes.ints).max()))


def weights_of(encoded: Encoded) -> Operand:
    return linear.integer_operand(encoded, "test")


def largest_sum(acts: Operand, weights: Operand) -> float:
    return float((np.abs(acts.values).astype(np.float64) @ np.abs(weights.values).astype(np.float64).T).max())


def independent(acts: Operand, encoded: Encoded, depth: int | None) -> F32:
    """acc <- fp32(acc + fp32(scale * sum)), slice after slice, then times the token's scale: in int64 and float64."""
    weights = weights_of(encoded)
    assert weights.scales is not None
    assert acts.scales is not None
    left, right = acts.values.astype(np.int64), weights.values.astype(np.int64)
    total = np.zeros((len(left), len(right)), np.float32)
    group = weights.group
    for first in range(0, left.shape[1], group):
        end = min(first + group, left.shape[1])
        for start in range(first, end, depth or end):
            part = slice(start, min(start + (depth or end), end))
            sums = left[:, part] @ right[:, part].T
            scale = weights.scales[:, first // group].astype(np.float64)
            total = total + (sums * scale).astype(np.float32)
    product: F32 = total * acts.scales
    return product


def expected(acts: Operand, encoded: Encoded, depth: int | None) -> F32:
    """The independent product, which is `linear`'s where float32 products of the two formats are below 2**24."""
    wanted, weights = independent(acts, encoded, depth), weights_of(encoded)
    if acts.largest * weights.largest < 1 << 24:
        rule = linear.IntegerRule(encoded.format, None, pass_depth=depth)
        equal_bits(rule.multiply(acts, weights), wanted)
    return wanted


def equal_bits(found: NDArray[Any], wanted: F32) -> None:
    np.testing.assert_array_equal((found + 0).view(np.uint32), (wanted + 0).view(np.uint32))


def executed(lowered: Lowered, lim: Limits, schedule: Random | None = None) -> NDArray[Any]:
    program = from_bytes(to_bytes(lowered.program))
    outcome = validate(program, lim, region_beats(lim, lowered.memory))
    assert outcome.legal, outcome
    assert run(program, lim, lowered.memory, schedule=schedule).legal
    return lowered.read()


# --- Random machines and shapes -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """A tile with small slots, and a product some times its size."""

    machine: int
    format: str
    rows: int
    cols: int
    port_bytes: int
    slots: tuple[int, int, int, int, int, int]
    m: int
    k: int
    n: int
    groups: int | None  # steps a group
    bias: bool
    seed: int

    @property
    def spec(self) -> StreamSpec:
        name, params, _ = MACHINES[self.machine]
        return broadcast.tile_spec(name, self.rows, self.cols, params)

    @property
    def group(self) -> int | None:
        tile = broadcast.family(self.spec)
        return None if self.groups is None else self.groups * tile.lanes * tile.values(self.format)

    def limits(self) -> Limits:
        names = tuple(tile_format(self.spec, name, "test") for name in MACHINES[self.machine][2])
        lim = Limits(self.rows, self.cols, "os", self.spec, self.port_bytes, names, 1, 1, 1, 1, 1, 1)
        row = lim.beats(32 * self.cols)
        least = (lim.lanes, lim.beats(8 * lim.lanes * self.cols), lim.beats(24 * self.cols), 2 * row, 1, row)
        sizes = (one + more for one, more in zip(least, self.slots, strict=True))
        return Limits(self.rows, self.cols, "os", self.spec, self.port_bytes, names, *sizes)

    def operands(self) -> tuple[Encoded, Operand, F32 | None]:
        draw = np.random.default_rng(self.seed)
        acts = (draw.normal(size=(self.m, self.k)) * np.exp(draw.normal(size=(self.m, 1)))).astype(np.float32)
        weights = draw.normal(size=(self.n, self.k)).astype(np.float32)
        acts *= np.where(draw.random(acts.shape) < 0.05, 6, 1).astype(np.float32)
        weights *= np.where(draw.random(weights.shape) < 0.05, 6, 1).astype(np.float32)
        encoded = formats.get(self.format).encode(weights, group=self.group)
        bias = draw.normal(size=self.n).astype(np.float32) if self.bias else None
        return encoded, activations(acts, MACHINES[self.machine][2][self.format]), bias


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    index = draw(st.integers(0, len(MACHINES) - 1))
    rows, cols = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    return Case(
        machine=index,
        format=draw(st.sampled_from(sorted(MACHINES[index][2]))),
        rows=rows,
        cols=cols,
        port_bytes=draw(st.sampled_from([8, 16, 32, 64])),
        slots=draw(st.tuples(*[st.one_of(st.integers(0, 8), st.integers(0, 200))] * 6)),
        m=draw(st.one_of(st.integers(1, 4), st.integers(1, 3 * rows))),
        k=draw(st.integers(1, 70)),
        n=max(1, cols * draw(st.integers(1, 4)) + draw(st.integers(-2, 2))),
        groups=draw(st.one_of(st.none(), st.integers(1, 8))),
        bias=draw(st.booleans()),
        seed=draw(st.integers(0, 1 << 16)),
    )


@given(case=cases())
@settings(max_examples=400, deadline=None)
def test_any_product_on_any_tile_equals_the_independent_product(case: Case) -> None:
    lim, (encoded, acts, bias) = case.limits(), case.operands()
    assume(largest_sum(acts, weights_of(encoded)) < 1 << 31)
    lowered = lower(encoded, acts, lim, bias=bias)
    wanted = expected(acts, encoded, lowered.pass_depth)
    found = executed(lowered, lim, Random(case.seed))
    equal_bits(found, wanted if bias is None else wanted + bias)
    layout = lowered.layout
    event(f"{MACHINES[case.machine][0]}, {case.format}")
    event("groups cut" if layout.tiling.k < layout.job.group else "groups whole")


@pytest.mark.parametrize("to", [NumberType.FP16, NumberType.INT8])
def test_narrow_results_are_rounded_once(to: NumberType) -> None:
    case = Case(0, "ovp4", 3, 5, 8, (40, 60, 8, 20, 40, 3), 7, 22, 13, 3, True, 3)
    lim, (encoded, acts, bias) = case.limits(), case.operands()
    assert bias is not None
    lowered = lower(encoded, acts, lim, bias=bias, to=to)
    wanted = expected(acts, encoded, lowered.pass_depth) + bias
    narrow = wanted.astype(np.float16) if to is NumberType.FP16 else np.rint(wanted).clip(-127, 127).astype(np.int8)
    np.testing.assert_array_equal(executed(lowered, lim), narrow)


def test_a_group_too_long_for_the_buffers_is_cut_between_steps() -> None:
    """One scale a row, 100 values, 4 at once: pieces of 16 (halvings of 100, up to whole steps) and not of 13."""
    lim = dataclasses.replace(limits(machine.load("lut-4x4")), wgt_beats=3)
    case = Case(2, "int4", 4, 4, 16, (0,) * 6, 2, 100, 8, None, False, 1)
    encoded, acts, _ = case.operands()
    lowered = lower(encoded, acts, lim)
    executes = [item for item in lowered.program if isinstance(item, Execute)]
    assert {(item.k, item.group) for item in executes} == {(16, 16), (4, 4)}
    assert lowered.pass_depth == lowered.layout.tiling.k == 16
    equal_bits(executed(lowered, lim), expected(acts, encoded, 16))
    with pytest.raises(ConfigError) as caught:
        lower(encoded, acts, lim, tiling=Tiling(2, 18, 8, True))
    assert str(caught.value) == "tiling = 2 x 18 x 8: k must be 100 or a multiple of 4, which the tile takes at once"


def test_two_narrow_values_are_one_element() -> None:
    lim = limits(machine.load("outlier-victim-4x4"))
    for name, elements in (("ovp4", 25), ("ovp8", 49)):
        encoded, acts, _ = Case(0, name, 4, 4, 16, (0,) * 6, 2, 49, 8, 2, False, 1).operands()
        lowered = lower(encoded, acts, lim, tiling=Tiling(2, elements, 8, True))
        assert {item.k for item in lowered.program if isinstance(item, Execute)} == {elements}
        assert lowered.pass_depth is None
        equal_bits(executed(lowered, lim), expected(acts, encoded, None))


# --- Real layers --------------------------------------------------------------------------------------------------

CONFIGURATIONS = [
    ("outlier-victim-16x16", {}, "ovp4", "ovp4", None),
    ("outlier-victim-16x16", {}, "ovp8", "ovp8", None),
    ("outlier-victim-16x16", {}, "int4", "ovp4", 64),
    ("outlier-victim-16x16", {}, "int8", "int8", None),
    ("lut-4x64", {}, "int4_asym", "int8", 64),
    ("lut-4x64", {"weight_bits": 2, "variant": "full"}, "bipolar_int2", "int8", 64),
    ("lut-16x16", {"weight_bits": 8}, "int8", "int8", None),
]


@pytest.fixture(scope="module")
def layer_0(smollm2: Checkpoint) -> dict[str, tuple[F32, F32]]:
    """q and down of layer 0, each with the inputs of 16 tokens in float16 arithmetic."""
    ids = smollm2.tokenizer.encode(texts.load("jargon").content[:400], add_special_tokens=False).ids[:16]
    seen: dict[str, F32] = {}
    layer = DecoderLayer(
        smollm2,
        linear.Fp16Rule("fp16", None),
        AttentionRule("fp16", "fp16"),
        1,
        16,
        lambda what, acts: seen.update({what: acts.copy()}),
    )
    layer.run(0, smollm2.embedding(np.asarray(ids, np.int64)))
    inputs = {"layers.0.q": "layers.0.attn_input", "layers.0.down": "layers.0.down_input"}
    return {name: (smollm2.weight(name), seen[what]) for name, what in inputs.items()}


@pytest.mark.parametrize(("name", "params", "form", "act_form", "group"), CONFIGURATIONS)
def test_layers_of_smollm2(
    name: str,
    params: dict[str, Any],
    form: str,
    act_form: str,
    group: int | None,
    layer_0: dict[str, tuple[F32, F32]],
    record_property: Callable[[str, object], None],
) -> None:
    loaded = machine.load(name)
    text = ",".join(f"{key}={value}" for key, value in params.items())
    lim = limits(loaded.model_copy(update={"pe": f"{loaded.pe}:{text}" if text else loaded.pe}), formats=[form])
    for matrix, (weights, inputs) in layer_0.items():
        encoded = formats.get(form).encode(weights, group=group)
        for tokens in (16, 1):
            acts = activations(inputs[-tokens:], act_form)
            most = largest_sum(acts, weights_of(encoded))
            assert most < 1 << 31, "no sum can saturate"
            lowered = lower(encoded, acts, lim)
            equal_bits(executed(lowered, lim), expected(acts, encoded, lowered.pass_depth))
            tiling = lowered.layout.tiling
            record_property(
                "figure",
                f"{name} {matrix} {form} x {act_form}, {tokens} tokens: {len(lowered.program)} instructions, blocks "
                f"{tiling.m} x {tiling.k} x {tiling.n} elements; no sum beyond {most:.3g}",
            )


# --- Errors -------------------------------------------------------------------------------------------------------


def operands(form: str, act_form: str, k: int = 16, group: int | None = None) -> tuple[Encoded, Operand]:
    draw = np.random.default_rng(3)
    encoded = formats.get(form).encode(draw.normal(size=(5, k)).astype(np.float32), group=group)
    return encoded, activations(draw.normal(size=(2, k)).astype(np.float32), act_form)


@pytest.mark.parametrize(
    ("name", "form", "group", "message"),
    [
        (
            "lut-4x4",
            "int4",
            6,
            "weights.group = 6: must be a multiple of 4, which the tile takes at once, or at least the reduction of 16",
        ),
        (
            "outlier-victim-4x4",
            "ovp4",
            6,
            "weights.group = 6: must be a multiple of 4, which the tile takes at once, or at least the reduction of 16",
        ),
    ],
)
def test_groups_that_end_within_a_step(name: str, form: str, group: int, message: str) -> None:
    encoded, acts = operands(form, "int8" if name.startswith("lut") else form, group=group)
    with pytest.raises(ConfigError) as caught:
        lower(encoded, acts, limits(machine.load(name)))
    assert str(caught.value) == message


def test_activations_wider_than_the_weights_pairs() -> None:
    encoded, acts = operands("ovp4", "ovp4")
    values = acts.values.copy()
    values[1, 6:8] = 8, 3
    with pytest.raises(FormatError) as caught:
        lower(encoded, dataclasses.replace(acts, values=values), limits(machine.load("outlier-victim-4x4")))
    assert str(caught.value) == (
        "acts[1, 6..7] = 8, 3: are no pair of 4-bit values, which outlier-victim takes with ovp4 weights (encode the "
        "activations first)"
    )


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e9])
def test_activations_that_are_no_integers(value: float) -> None:
    encoded, acts = operands("ovp8", "ovp8", k=15)
    values = acts.values.copy()
    values[0, 14] = value
    with pytest.raises(FormatError, match=r"^acts\[0, 14\.\.15\] = .*, 0: are no pair of 8-bit values, which "):
        lower(encoded, dataclasses.replace(acts, values=values), limits(machine.load("outlier-victim-4x4")))


def test_integers_that_mark_victims() -> None:
    encoded, acts = operands("int4", "int4")
    codes = encoded.codes.copy()
    codes[2, 3] = 8
    with pytest.raises(FormatError) as caught:
        lower(dataclasses.replace(encoded, codes=codes), acts, limits(machine.load("outlier-victim-4x4")))
    assert str(caught.value) == (
        "weights[2, 3] = -8: marks the victim of a pair in outlier-victim (integers must be symmetric, -7..7)"
    )


def test_scales_that_cannot_be_doubled() -> None:
    encoded, acts = operands("bipolar_int2", "int8")
    assert encoded.scales is not None
    scales = np.full_like(encoded.scales, 40000)
    lim = limits(machine.load("lut-4x4"), formats=["bipolar_int2"])
    with pytest.raises(FormatError) as caught:
        lower(dataclasses.replace(encoded, scales=scales), acts, lim)
    assert str(caught.value) == "weights.scales = 40000: the par channel holds 2 times it, beyond float16"


def test_every_pair_of_values_has_its_code() -> None:
    """Activations of all codes, decoded and found again, are the same values to the PE."""
    from bitwright.arch.pe.pair_codes import narrow_pairs, wide_values
    from bitwright.workloads.tile_codes import pair_elements

    for normal, name in (("int4", "ovp4"), ("flint4", "ovp4_flint")):
        tile = broadcast.family(pe.stream("outlier-victim", normal=normal))
        assert isinstance(tile, broadcast.PairFamily)
        values = narrow_pairs(normal).value
        found = pair_elements(tile, name, values.astype(np.float32)).view(np.uint8)
        np.testing.assert_array_equal(values[found[:, 0]], values)
        values = wide_values()
        split = pair_elements(tile, "ovp8", values.astype(np.float32)).view(np.uint8).astype(np.int64)
        np.testing.assert_array_equal(values[split[:, 0] | split[:, 1] << 8], values)
