"""The interpreter's numbers: worked by hand, against `workloads.linear`, and against the PEs' golden steps."""

from __future__ import annotations

import dataclasses
import struct
import time
from collections.abc import Callable
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats, machine, pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.assembly import assemble
from bitwright.arch.isa.instructions import Buffer, End, Execute, Instruction, Load, Store, Vector
from bitwright.arch.isa.interpreter import run
from bitwright.arch.isa.limits import Limits, limits, tile_format
from bitwright.arch.pe.units import Fp32Accumulator, WeightDequantiser
from bitwright.workloads import linear
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
FORMATS = {
    "int8-mac": ("int8", "int4", "int3", "int6", "int4_asym", "int7_asym", "fp4_e2m1", "fp3_e2m0"),
    "shift-add": ("int4", "int4_asym", "int3_asym", "int2"),
    "fp16-mac": ("fp16", "bf16", "int4", "int4_asym", "fp4_e2m1"),
}


def small(pe_name: str, rows: int, cols: int, stationary: Any = "ws", port_bytes: int = 8, **params: int) -> Limits:
    spec = pe.get(pe_name, **params)
    names = tuple(tile_format(spec, name, "test") for name in FORMATS[pe_name])
    return Limits(rows, cols, stationary, spec, port_bytes, names, 2048, 2048, 2048, 2048, 256, 2048)


def region(data: bytes, port_bytes: int) -> Bytes:
    return np.frombuffer(data + bytes(-len(data) % port_bytes), np.uint8).copy()


def dense(codes: list[int], bits: int) -> bytes:
    """Codes lowest first, by text: nothing shared with the implementation."""
    digits = "".join(format(code, f"0{bits}b") for code in reversed(codes))
    return int(digits, 2).to_bytes(-(-len(digits) // 8), "little")


# --- By hand -----------------------------------------------------------------------------------------------------

HAND = """
load act hand rows=2 beats=2 stride=3 # slice 0 of both tokens; a beat is left out; slice 1 of both
load wgt hand beats=1 offset=5
load par hand beats=1 offset=6
load vec hand beats=4 offset=7 # token scales, biases, two rows of residuals
execute first m=2 k=3 group=2 hand_acc free_act free_wgt free_par
vector m=2 {to} relu scale bias residual bias_at=1 residual_at=2 hand free_acc free_vec
store region=1 rows=2 beats=1 stride=1 tail_bytes={tail} free_out
end
"""
HAND_MEMORY = (
    struct.pack("<2b6x", 1, -2)  # token 0 is 1, -2, 3
    + struct.pack("<2b6x", 4, 5)  # token 1 is 4, 5, -6
    + b"\x77" * 8
    + struct.pack("<b7x", 3)
    + struct.pack("<b7x", -6)
    + struct.pack("<6b2x", 1, 2, 3, -4, 5, 6)  # weights, a row for each element of the reduction
    + struct.pack("<4e", 0.5, 0.25, 0.125, 2)  # scales, a row for each group
    + struct.pack("<2f", 2, 0.5)
    + struct.pack("<2f", 1, -0.5)
    + struct.pack("<4f", 1, 2, 3, -4)
)


# Sums -5 10 | 19 -12 and 15 18 | -30 -36; accumulators -0.625 38.5 | 5.75 -75; scaled -1.25 77 | 2.875 -37.5;
# biased -0.25 76.5 | 3.875 -38; rectified 0 76.5 | 3.875 0; with residuals 1 78.5 | 6.875 -4.
@pytest.mark.parametrize(
    ("to", "tail", "expected"),
    [
        ("fp32", 0, struct.pack("<4f", 1, 78.5, 6.875, -4)),
        ("fp16", 4, struct.pack("<2e4x2e4x", 1, 78.5, 6.875, -4)),
        ("int8", 2, struct.pack("<2b6x2b6x", 1, 78, 7, -4)),
    ],
)
def test_program_worked_by_hand(to: str, tail: int, expected: bytes) -> None:
    memory = [region(HAND_MEMORY, 8), np.zeros(16, np.uint8), *[np.zeros(0, np.uint8)] * 2]
    outcome = run(assemble(HAND.format(to=to, tail=tail)), small("int8-mac", 2, 2), memory)
    assert (outcome.fault, str(outcome)) == (None, "instruction 7: the program runs to its end")
    assert memory[1].tobytes() == expected


def test_store_leaves_bytes_after_the_tail_alone() -> None:
    memory = [region(HAND_MEMORY, 8), np.full(16, 0xEE, np.uint8), *[np.zeros(0, np.uint8)] * 2]
    assert run(assemble(HAND.format(to="int8", tail=1)), small("int8-mac", 2, 2), memory).legal
    assert memory[1].tobytes() == b"\x01" + b"\xee" * 7 + b"\x07" + b"\xee" * 7


def test_padding_of_a_result_is_zero_also_where_the_slot_was_used() -> None:
    memory = [region(HAND_MEMORY, 8), np.full(16, 0xEE, np.uint8), *[np.zeros(0, np.uint8)] * 2]
    text = HAND.format(to="int8", tail=0).replace("vector", "vector m=2 fp32\nvector")
    assert run(assemble(text), small("int8-mac", 2, 2), memory).legal
    assert memory[1].tobytes() == struct.pack("<2b6x2b6x", 1, 78, 7, -4)


def test_without_arithmetic_memory_stays() -> None:
    memory = [region(HAND_MEMORY, 8), np.full(16, 0xEE, np.uint8), *[np.zeros(0, np.uint8)] * 2]
    assert run(assemble(HAND.format(to="fp32", tail=0)), small("int8-mac", 2, 2), memory, arithmetic=False).legal
    assert memory[1].tobytes() == b"\xee" * 16


def fp32(exact: Fraction) -> Fraction:
    """The nearest normal fp32, ties to even, by whole numbers."""
    if exact == 0:
        return exact
    exponent = 0
    while abs(exact) / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    while abs(exact) / Fraction(2) ** exponent < 2**23:
        exponent -= 1
    return round(exact / Fraction(2) ** exponent) * Fraction(2) ** exponent


def test_each_slice_is_rounded_twice() -> None:
    """40 groups of int4_asym with scales that need rounding, in fractions."""
    draw = np.random.default_rng(3)
    acts, codes = draw.integers(-128, 128, (1, 40 * 3)), draw.integers(0, 16, (1, 40 * 3))
    scales, zeros = draw.uniform(0.001, 1, (1, 40)).astype(np.float16), draw.integers(0, 16, (1, 40))
    total = Fraction(0)
    for group in range(40):
        inputs = range(3 * group, 3 * group + 3)
        exact = sum(int(acts[0, i]) * (int(codes[0, i]) - int(zeros[0, group])) for i in inputs)
        total = fp32(total + fp32(exact * Fraction(float(scales[0, group]))))
    gemm = Gemm(small("shift-add", 4, 1), "int4_asym", 3, acts, codes, scales, zeros, None)
    assert Fraction(float(gemm.result()[0, 0])) == total


# --- A lowering, for tests only ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Gemm:
    """acts [M, K] by codes [N, K] as instructions and region 0's bytes; the result in region 1, a padded row apart."""

    limits: Limits
    format: str
    group: int
    acts: NDArray[Any]
    codes: NDArray[Any]
    scales: NDArray[np.float16] | None
    zeros: NDArray[Any] | None
    token_scales: NDArray[np.float32] | None
    k_chunk: int = 1 << 13
    m_chunk: int = 1 << 11

    def act_bytes(self, acts: NDArray[Any]) -> bytes:
        lim = self.limits
        length = lim.vector_beats * lim.port_bytes
        if lim.stationary == "os":
            vectors = [acts[:, e] for e in range(acts.shape[1])]
        else:
            cuts = [part for part, _ in linear.cut(acts.shape[1], self.group, lim.slice_steps)]
            vectors = [row for part in cuts for row in acts[:, part]]
        kind = "<f2" if lim.act_bits == 16 else "i1"
        return b"".join(vector.astype(kind).tobytes().ljust(length, b"\xa5") for vector in vectors)

    def lower(self) -> tuple[list[Instruction], bytes, list[tuple[slice, slice, int]]]:
        lim, data = self.limits, bytearray()
        number = [item.name for item in lim.formats].index(self.format)
        form = lim.formats[number]
        program: list[Instruction] = []
        places = []
        row = lim.beats(32 * lim.cols)

        def load(buffer: Buffer, content: bytes) -> None:
            offset, beats = len(data) // lim.port_bytes, -(-len(content) // lim.port_bytes)
            data.extend(content.ljust(beats * lim.port_bytes, b"\x5a"))
            program.append(Load(buffer=buffer, hand=True, beats=beats, offset=offset))

        (tokens, depth), outputs, out_at = self.acts.shape, len(self.codes), 0
        m_step = min(self.m_chunk, lim.rows) if lim.stationary == "os" else self.m_chunk
        for left in range(0, outputs, lim.cols):
            columns = np.minimum(np.arange(left, left + lim.cols), outputs - 1)  # beyond the last: any weights
            for top in range(0, tokens, m_step):
                m = min(m_step, tokens - top)
                for start in range(0, depth, self.k_chunk):
                    k = min(self.k_chunk, depth - start)
                    load(Buffer.ACT, self.act_bytes(self.acts[top : top + m, start : start + k]))
                    load(Buffer.WGT, dense(self.codes[columns, start : start + k].T.reshape(-1).tolist(), form.bits))
                    if self.scales is not None:
                        groups = slice(start // self.group, -(-(start + k) // self.group))
                        bits = self.scales[columns, groups].T.copy().view(np.uint16).astype(int).reshape(-1)
                        if self.zeros is not None:
                            bits += self.zeros[columns, groups].T.astype(int).reshape(-1) << 16
                        load(Buffer.PAR, dense(bits.tolist(), form.par_bits))
                    frees = {"free_act": True, "free_wgt": True, "free_par": form.scale}
                    last = start + k == depth
                    program.append(
                        Execute(format=number, first=start == 0, m=m, k=k, group=self.group, hand_acc=last, **frees)
                    )
                if self.token_scales is not None:
                    load(Buffer.VEC, self.token_scales[top : top + m].astype("<f4").tobytes())
                scaled = self.token_scales is not None
                program.append(Vector(m=m, scale=scaled, hand=True, free_acc=True, free_vec=scaled))
                program.append(Store(region=1, rows=m, beats=row, stride=row + 1, offset=out_at, free_out=True))
                places.append((slice(top, top + m), slice(left, min(left + lim.cols, outputs)), out_at))
                out_at += m * (row + 1)
        return [*program, End()], bytes(data), places

    def result(self) -> NDArray[np.float32]:
        program, data, places = self.lower()
        pitch = (self.limits.beats(32 * self.limits.cols) + 1) * self.limits.port_bytes
        end = sum((rows.stop - rows.start) * pitch for rows, _, _ in places)
        memory = [region(data, self.limits.port_bytes), np.zeros(end, np.uint8), *[np.zeros(0, np.uint8)] * 2]
        outcome = run(program, self.limits, memory, schedule=Random(1))
        assert outcome.legal, outcome
        result = np.empty((len(self.acts), len(self.codes)), np.float32)
        for rows, columns, at in places:
            start = at * self.limits.port_bytes
            block = memory[1][start : start + (rows.stop - rows.start) * pitch].view("<f4")
            result[rows, columns] = block.reshape(-1, pitch // 4)[:, : columns.stop - columns.start]
        return result


@dataclasses.dataclass(frozen=True)
class Case:
    """What a random GEMM is made of."""

    pe: str
    format: str
    stationary: str
    rows: int
    cols: int
    port_bytes: int
    m: int
    k: int
    n: int
    group: int
    k_groups: int
    m_chunk: int
    seed: int

    def limits(self) -> Limits:
        return small(self.pe, self.rows, self.cols, self.stationary, self.port_bytes)

    def operands(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        draw = np.random.default_rng(self.seed)
        spread = np.exp(draw.normal(size=(self.m, 1)))
        acts, weights = draw.normal(size=(self.m, self.k)) * spread, draw.normal(size=(self.n, self.k))
        return acts.astype(np.float32), weights.astype(np.float32)

    def gemm(self, acts: NDArray[Any], encoded: Any, token_scales: NDArray[np.float32] | None) -> Gemm:
        per_group = (self.n, -(-self.k // self.group))
        scales = None if encoded.scales is None else encoded.scales.astype(np.float16).reshape(per_group)
        zeros = None if encoded.zeros is None else encoded.zeros.reshape(per_group)
        chunks = self.k_groups * self.group, self.m_chunk
        codes = encoded.codes.reshape(self.n, self.k)
        return Gemm(self.limits(), self.format, self.group, acts, codes, scales, zeros, token_scales, *chunks)


def cases(*pes: str) -> st.SearchStrategy[Case]:
    pairs = [(name, form) for name in pes for form in FORMATS[name]]
    return st.builds(
        lambda pair, **rest: Case(*pair, **rest),
        st.sampled_from(pairs),
        stationary=st.sampled_from(["ws", "os"]),
        rows=st.integers(1, 9),
        cols=st.integers(1, 5),
        port_bytes=st.sampled_from([8, 16, 32, 64]),
        m=st.integers(1, 12),
        k=st.integers(1, 70),
        n=st.integers(1, 12),
        group=st.integers(1, 80),
        k_groups=st.integers(1, 3),
        m_chunk=st.integers(1, 12),
        seed=st.integers(0, 1 << 16),
    )


def equal_bits(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(found.view(np.uint32), expected.astype(np.float32).view(np.uint32))


@given(case=cases("int8-mac", "shift-add"))
@settings(max_examples=250, deadline=None)
def test_integer_pes_equal_the_matmul_behind_perplexity(case: Case) -> None:
    acts, weights = case.operands()
    encoded = formats.get(case.format).encode(weights, group=case.group)
    depth = case.limits().slice_steps
    rule = linear.IntegerRule(case.format, case.group, pass_depth=depth)
    operand, _ = rule.encode_weights(weights, "test", codes=encoded)
    quantised = rule.encode_acts(acts, 1, "test")
    assert quantised.scales is not None
    gemm = case.gemm(quantised.values, encoded, quantised.scales.reshape(-1))
    equal_bits(gemm.result(), rule.multiply(quantised, operand))


@given(case=cases("fp16-mac"))
@settings(max_examples=120, deadline=None)
def test_fp16_mac_equals_its_golden_step_by_step(case: Case) -> None:
    acts, weights = case.operands()
    form, lim = formats.get(case.format), case.limits()
    encoded = form.encode(weights, group=case.group if form.default_scale_format else None)
    if case.format == "fp16":
        seen = encoded.codes.view(np.float16)
    elif case.format == "bf16":
        seen = WeightDequantiser("bf16").dequantise(encoded.codes)
    else:
        seen = linear.decode_weights(weights, None, case.group, encoded).astype(np.float16)
    spec, out = pe.Fp16Mac(), np.zeros((case.m, case.n), np.float32)
    x = acts.astype(np.float16)
    if case.seed % 3 == 0:  # any bits: infinities, NaNs, subnormals
        x = np.random.default_rng(case.seed).integers(0, 1 << 16, x.shape, np.uint16).view(np.float16)
    for part, _ in linear.cut(case.k, case.group, lim.slice_steps):
        psum: Any = spec.zero()
        for e in range(part.start, part.stop):
            psum = spec.accumulate(psum, x[:, e, None], seen.reshape(case.n, case.k)[None, :, e])
        out = Fp32Accumulator().accumulate(out, psum)
    equal_bits(case.gemm(x, encoded, None).result(), out)


@pytest.mark.parametrize("stationary", ["ws", "os"])
def test_integer_slices_equal_the_golden_step_and_never_wrap(stationary: str) -> None:
    """Extreme operands in a group longer than the PE's longest exact sum: it is cut there."""
    lim = small("shift-add", 16, 2, stationary, group=8)
    acts, codes = np.full((1, 20), -128), np.full((2, 20), 15, np.uint8)
    scales = np.ones((2, 1), np.float16)
    assert lim.slice_steps == 8
    found = Gemm(lim, "int4_asym", 20, acts, codes, scales, np.zeros((2, 1), np.uint8), None).result()
    total = 0
    for steps in (8, 8, 4):
        psum: Any = lim.pe.zero()
        for _ in range(steps):
            psum = lim.pe.accumulate(psum, -128, 15, wgt_unsigned=True)
        total += int(psum)
    assert (total, found.tolist()) == (-128 * 15 * 20, [[total, total]])


def test_a_projection_of_smollm2_takes_about_a_second(record_property: Callable[[str, object], None]) -> None:
    """576 x 576, 16 tokens, int4 in groups of 64, on the machines that users name, in chunks of 256."""
    seconds = []
    for name, form in (("int8-8x8", "int4"), ("int8-8x8-os", "int4"), ("fp16-8x8", "fp16"), ("fp16-8x8-os", "fp16")):
        case = Case(name.split("-")[0] + "-mac", form, "ws", 8, 8, 16, 16, 576, 576, 64, 4, 16, 5)
        acts, weights = case.operands()
        encoded = formats.get(form).encode(weights, group=64 if form == "int4" else None)
        x = acts.astype(np.float16) if form == "fp16" else np.rint(acts * 20).clip(-128, 127)
        gemm = dataclasses.replace(case.gemm(x, encoded, None), limits=limits(machine.load(name)))
        start = time.perf_counter()
        found = gemm.result()
        seconds.append(f"{name} {time.perf_counter() - start:.2f} s")
        exact = x.astype(np.float64) @ formats.get(form).decode(encoded).astype(np.float64).T
        assert np.abs(found - exact).max() < 1e-5 * np.abs(exact).max()
    record_property("figure", f"interpreter, 16 x 576 x 576 with lowering: {', '.join(seconds)}")


# --- Errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ([np.zeros(8, np.uint8)] * 3, "memory: 3 regions, must be 4 (an unused one is empty)"),
        (
            [np.zeros(8, np.int8)] * 4,
            "memory[0] = int8 of shape (8,): must be uint8, 1-dimensional, contiguous",
        ),
        ([np.zeros(12, np.uint8)] * 4, "memory[0] = 12 bytes: must be a multiple of the beat's 8 bytes"),
    ],
)
def test_refused_memory(memory: list[Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run([End()], small("int8-mac", 2, 2), memory)
    assert str(caught.value) == message
