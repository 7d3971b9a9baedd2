"""Lowered programs: legal on any machine, results equal to `workloads.linear` bit for bit, on real layers too."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats, machine, pe
from bitwright.arch.formats.base import Encoded
from bitwright.arch.isa.encoding import from_bytes, to_bytes
from bitwright.arch.isa.instructions import Execute, Load, NumberType, Store, Vector
from bitwright.arch.isa.interpreter import region_beats, run
from bitwright.arch.isa.limits import Limits, limits, tile_format
from bitwright.arch.isa.network import validate
from bitwright.workloads import linear, texts
from bitwright.workloads.attention import AttentionRule
from bitwright.workloads.checkpoint import Checkpoint
from bitwright.workloads.layout import Job
from bitwright.workloads.linear import Operand
from bitwright.workloads.lowering import Lowered, lower
from bitwright.workloads.pe_order import sequential_product
from bitwright.workloads.tiling import Tiling
from bitwright.workloads.transformer import DecoderLayer
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

FORMATS = {
    "int8-mac": ("int8", "int4", "int3", "int6", "int4_asym", "int7_asym", "fp4_e2m1"),
    "shift-add": ("int4", "int4_asym", "int3_asym", "int2"),
    "fp16-mac": ("fp16", "bf16", "int4", "int4_asym", "fp4_e2m1"),
}


# --- References ---------------------------------------------------------------------------------------------------


def in_pe_order(acts: Operand, weights: Operand, group: int, depth: int | None) -> NDArray[np.float32]:
    """fp16-mac's sums: `pe_order`'s within a slice, then slice after slice."""
    total = np.zeros((len(acts.values), len(weights.values)), np.float32)
    for part, _ in linear.cut(acts.values.shape[1], group, depth):
        total += sequential_product(acts.values[:, part], weights.values[:, part])
    return total


def expected(acts: Operand, encoded: Encoded, depth: int | None) -> NDArray[np.float32]:
    """`linear`'s product of the operands, with slices no longer than `depth`."""
    width = acts.values.shape[1]
    if acts.scales is not None:
        rule = linear.IntegerRule(encoded.format, None, pass_depth=depth)
        weights, _ = rule.encode_weights(np.zeros(encoded.shape, np.float32), "test", codes=encoded)
        return rule.multiply(acts, weights)
    plain = linear.Fp16Rule(encoded.format, None)
    weights, _ = plain.encode_weights(np.zeros(encoded.shape, np.float32), "test", codes=encoded)
    group = min(encoded.group, width) if isinstance(encoded.group, int) else width
    return in_pe_order(acts, weights, group, depth)


def equal_bits(found: NDArray[Any], wanted: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


def executed(lowered: Lowered, lim: Limits, schedule: Random | None = None) -> NDArray[Any]:
    """The results; the program goes through its bytes, and the validator sees it first."""
    program = from_bytes(to_bytes(lowered.program))
    outcome = validate(program, lim, region_beats(lim, lowered.memory))
    assert outcome.legal, outcome
    assert run(program, lim, lowered.memory, schedule=schedule).legal
    return lowered.read()


# --- Random machines and shapes -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """A machine with small slots, and a product some times its array."""

    pe: str
    format: str
    stationary: Any
    rows: int
    cols: int
    port_bytes: int
    slots: tuple[int, int, int, int, int, int]
    m: int
    k: int
    n: int
    group: int | None
    bias: bool
    per_tensor: bool
    seed: int

    def limits(self) -> Limits:
        spec = pe.get(self.pe)
        names = tuple(tile_format(spec, name, "test") for name in FORMATS[self.pe])
        lim = Limits(self.rows, self.cols, self.stationary, spec, self.port_bytes, names, 1, 1, 1, 1, 1, 1)
        row, code_row = lim.beats(32 * self.cols), lim.beats(16 * self.rows * self.cols)
        least = (self.rows, code_row, lim.beats(24 * self.cols), 2 * row, 1, row)  # one tile, one token
        sizes = (one + more for one, more in zip(least, self.slots, strict=True))
        return Limits(self.rows, self.cols, self.stationary, spec, self.port_bytes, names, *sizes)

    def operands(self) -> tuple[Encoded, Operand, NDArray[np.float32] | None]:
        draw = np.random.default_rng(self.seed)
        acts = (draw.normal(size=(self.m, self.k)) * np.exp(draw.normal(size=(self.m, 1)))).astype(np.float32)
        weights = draw.normal(size=(self.n, self.k)).astype(np.float32)
        form = formats.get(self.format)
        encoded = form.encode(weights, group=self.group if form.default_scale_format else None)
        if self.pe == "fp16-mac":
            operand = linear.Fp16Rule("fp16", None).encode_acts(acts, 1, "test")
        else:
            operand = linear.encode_int8_acts(acts, 1 if self.per_tensor else None)
        bias = draw.normal(size=self.n).astype(np.float32) if self.bias else None
        return encoded, operand, bias


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    name = draw(st.sampled_from(sorted(FORMATS)))
    rows, cols = draw(st.integers(2, 16)), draw(st.integers(2, 16))
    times = st.integers(1, 3) if draw(st.booleans()) else st.integers(1, 8)
    k = max(1, rows * draw(times) + draw(st.integers(-2, 2)))
    return Case(
        pe=name,
        format=draw(st.sampled_from(FORMATS[name])),
        stationary=draw(st.sampled_from(["ws", "os"])),
        rows=rows,
        cols=cols,
        port_bytes=draw(st.sampled_from([8, 16, 32, 64])),
        slots=draw(st.tuples(*[st.one_of(st.integers(0, 8), st.integers(0, 200))] * 6)),
        m=draw(st.one_of(st.integers(1, 4), st.integers(1, 3 * rows))),
        k=k,
        n=max(1, cols * draw(times) + draw(st.integers(-2, 2))),
        group=draw(st.one_of(st.none(), st.integers(1, k + 4), st.sampled_from([4, 8, 16]))),
        bias=draw(st.booleans()),
        per_tensor=draw(st.booleans()),
        seed=draw(st.integers(0, 1 << 16)),
    )


def check(case: Case, tiling: Tiling | None) -> Lowered:
    lim, (encoded, acts, bias) = case.limits(), case.operands()
    lowered = lower(encoded, acts, lim, bias=bias, tiling=tiling)
    wanted = expected(acts, encoded, lowered.pass_depth)
    found = executed(lowered, lim, Random(case.seed))
    equal_bits(found, wanted if bias is None else wanted + bias)
    if case.stationary == "ws":
        assert lowered.pass_depth == lim.slice_steps, "the array's own slices"
    return lowered


@given(case=cases())
@settings(max_examples=250, deadline=None)
def test_any_product_on_any_machine_equals_linear(case: Case) -> None:
    layout = check(case, None).layout
    blocks = len(layout.m_spans), len(layout.k_spans), len(layout.n_spans)
    event(f"blocks along m, k, n: {', '.join('1' if count == 1 else 'more' for count in blocks)}")
    event("groups cut" if layout.tiling.k < layout.job.group else "groups whole")


@given(case=cases(), data=st.data())
@settings(max_examples=250, deadline=None)
def test_any_tiling_that_fits_equals_linear(case: Case, data: st.DataObject) -> None:
    """Also those that the prediction would not choose: both orders, any block of tokens."""
    job = check_job(case)
    k = data.draw(st.sampled_from(job.k_sizes()))
    n_sizes = [*range(case.limits().cols, case.n, case.limits().cols), case.n]
    tilings = [(m, n) for m in range(1, case.m + 1) for n in n_sizes if job.fits(m, k, n)]
    assume(tilings)
    m, n = data.draw(st.sampled_from(tilings))
    check(case, Tiling(m, k, n, data.draw(st.booleans())))


def check_job(case: Case) -> Job:
    encoded, acts, bias = case.operands()
    group = min(encoded.group, case.k) if isinstance(encoded.group, int) else case.k
    number = FORMATS[case.pe].index(case.format)
    return Job(case.limits(), case.m, case.k, case.n, number, group, acts.scales is not None, bias is not None)


@pytest.mark.parametrize("stationary", ["ws", "os"])
@pytest.mark.parametrize("to", [NumberType.FP16, NumberType.INT8])
def test_narrow_results_are_rounded_once(to: NumberType, stationary: str) -> None:
    slots = (40, 60, 8, 20, 40, 3)
    case = Case("int8-mac", "int4", stationary, 4, 5, 8, slots, 7, 22, 13, 6, True, False, 3)
    lim, (encoded, acts, bias) = case.limits(), case.operands()
    assert bias is not None
    lowered = lower(encoded, acts, lim, bias=bias, to=to)
    wanted = expected(acts, encoded, lowered.pass_depth) + bias
    narrow = wanted.astype(np.float16) if to is NumberType.FP16 else np.rint(wanted).clip(-127, 127).astype(np.int8)
    found = executed(lowered, lim)
    assert found.dtype == narrow.dtype
    np.testing.assert_array_equal(found, narrow)


# --- The program's form -------------------------------------------------------------------------------------------


def encoded_int8(n: int, k: int, seed: int = 1) -> Encoded:
    return formats.get("int8").encode(np.random.default_rng(seed).normal(size=(n, k)).astype(np.float32), group=None)


def int8_acts(m: int, k: int) -> Operand:
    return linear.encode_int8_acts(np.random.default_rng(2).normal(size=(m, k)).astype(np.float32), None)


def test_next_block_is_loaded_before_this_one_is_executed() -> None:
    """Two k blocks by two n blocks: after the first two blocks' loads, loads of block i + 1 come before execute i; the
    results of a block are stored among the executes of the next."""
    lim = limits(machine.load("int8-4x4"))
    lowered = lower(encoded_int8(16, 16), int8_acts(2, 16), lim, tiling=Tiling(2, 8, 8, True))
    names = {Load: "L", Execute: "E", Vector: "V", Store: "S"}
    letters = [
        item.buffer.name[0].lower() if isinstance(item, Load) else names[type(item)] for item in lowered.program[:-1]
    ]
    # vec ("v") is the same for both n blocks, par ("p") for both k blocks
    assert "".join(letters) == "pwa" + "wa" + "EE" + "v" + "pwa" + "EE" + "wa" + "EVSEVS" + "EE" + "VSVS"


def test_operands_in_a_slot_are_not_loaded_again() -> None:
    lim = limits(machine.load("int8-4x4"))
    lowered = lower(encoded_int8(16, 16), int8_acts(8, 16), lim, tiling=Tiling(4, 16, 8, True))
    buffers = [item.buffer.name for item in lowered.program if isinstance(item, Load)]
    assert [buffers.count(name) for name in ("WGT", "PAR", "ACT")] == [2, 2, 4]
    lowered = lower(encoded_int8(16, 16), int8_acts(8, 16), lim, tiling=Tiling(4, 16, 8, False))
    buffers = [item.buffer.name for item in lowered.program if isinstance(item, Load)]
    assert [buffers.count(name) for name in ("WGT", "PAR", "ACT")] == [4, 4, 2]


def test_store_leaves_bytes_beyond_the_last_output_alone() -> None:
    """13 outputs on 5 columns with beats of 16 bytes: rows of 20 bytes end 4 bytes into a beat, the last of 3 outputs
    12 bytes into the one before."""
    lim = dataclasses.replace(limits(machine.load("int8-4x4")), cols=5)
    lowered = lower(encoded_int8(13, 8), int8_acts(3, 8), lim)
    lowered.memory[3][:] = 0xEE
    executed(lowered, lim)
    rows = lowered.memory[3].reshape(3, 3, 32)
    assert (rows[:, :2, 20:] == 0xEE).all()
    assert (rows[:, :, :12] != 0xEE).any(axis=2).all()


def test_a_group_too_long_for_the_buffers_is_cut_where_slices_are() -> None:
    """One scale a row, 100 elements: blocks inside the group begin at the array's slices and share the scale."""
    lim = dataclasses.replace(limits(machine.load("int8-4x4")), wgt_beats=8)
    lowered = lower(encoded_int8(8, 100), int8_acts(2, 100), lim)
    assert len(lowered.layout.k_spans) > 3
    assert all(start % 4 == 0 for start, _ in lowered.layout.k_spans)
    assert lowered.pass_depth == lim.slice_steps == 4
    assert [item.buffer.name for item in lowered.program if isinstance(item, Load)].count("PAR") == 1


def test_output_stationary_arrays_say_where_they_cut_a_group() -> None:
    """The whole reduction is one slice if a tile of it fits; otherwise the longest that does, whatever m and n are."""
    lim = limits(machine.load("int8-4x4-os"))
    assert lower(encoded_int8(8, 100), int8_acts(2, 100), lim).pass_depth == lim.slice_steps == 131071
    small = dataclasses.replace(lim, wgt_beats=8)
    for m, n in ((1, 3), (9, 8)):
        lowered = lower(encoded_int8(n, 100), int8_acts(m, 100), small)
        assert (lowered.pass_depth, lowered.layout.tiling.k) == (25, 25)


# --- Real layers --------------------------------------------------------------------------------------------------

CONFIGURATIONS = [
    ("int8-16x16", "int8", None),
    ("shift-add-16x16", "int4_asym", 64),
    ("fp16-16x16", "fp16", None),
    ("int8-16x16-os", "int8", None),
    ("fp16-16x16-os", "fp16", None),
]


@pytest.fixture(scope="module")
def layer_0(smollm2: Checkpoint) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """q and down of layer 0, each with the inputs of 16 tokens in float16 arithmetic."""
    ids = smollm2.tokenizer.encode(texts.load("jargon").content[:400], add_special_tokens=False).ids[:16]
    seen: dict[str, NDArray[np.float32]] = {}
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


@pytest.mark.parametrize(("name", "form", "group"), CONFIGURATIONS)
def test_layers_of_smollm2(
    name: str,
    form: str,
    group: int | None,
    layer_0: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
    record_property: Callable[[str, object], None],
) -> None:
    lim = limits(machine.load(name))
    for matrix, (weights, inputs) in layer_0.items():
        encoded = formats.get(form).encode(weights, group=group)
        decoded = formats.get(form).decode(encoded).astype(np.float64)
        for tokens in (16, 1):
            x = inputs[-tokens:]
            acts = (
                linear.encode_int8_acts(x, None)
                if form != "fp16"
                else linear.Fp16Rule(form, None).encode_acts(x, 1, "")
            )
            start = time.perf_counter()
            lowered = lower(encoded, acts, lim)
            middle = time.perf_counter()
            found = executed(lowered, lim)
            seconds = middle - start, time.perf_counter() - middle
            equal_bits(found, expected(acts, encoded, lowered.pass_depth))
            if lim.stationary == "ws":
                assert lowered.pass_depth == 16
            values = acts.values.astype(np.float64) * (1 if acts.scales is None else acts.scales)
            exact = values @ decoded.T
            distance = np.abs(found - exact).max() / np.sqrt(np.mean(exact**2))
            tiling = lowered.layout.tiling
            assert distance < 1e-5
            record_property(
                "figure",
                f"{name} {matrix} {form} {tokens} tokens: {len(lowered.program)} instructions, "
                f"{len(to_bytes(lowered.program))} bytes; blocks {tiling.m} x {tiling.k} x {tiling.n}, slices of "
                f"{lowered.pass_depth}; memory {[len(region) for region in lowered.memory]} bytes; largest distance to "
                f"float64 {distance:.1e} of the outputs' rms; lowering {seconds[0]:.2f} s, run {seconds[1]:.2f} s",
            )
