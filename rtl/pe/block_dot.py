"""Block-scaled dot products: lanes, fixed-point sum, two block scales, fp32 accumulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from bitwright.arch.pe import block_dot as specs
from bitwright.arch.pe.elements import E4M3_SCALE, Element
from bitwright.rtl.pe.floats import fp32_add, normalise, round_fields, shift_right_sticky
from bitwright.rtl.pe.stream import Flow, StreamPE

_SCALE_BITS = 8
_FP32_BIAS = 127


@dataclass(frozen=True)
class _Number:
    """One code: its sign, unsigned significand (integers: the whole signed code), shift, and what it is."""

    sign: Value
    significand: Value
    shift: Value
    zero: Value
    nan: Value
    inf: Value


@dataclass(frozen=True)
class _Lane:
    """One product: `product` shifted left by `shift`, negated if `sign` (integers: signed, no shift)."""

    sign: Value
    product: Value
    shift: Value
    nan: Value
    inf: Value


class BlockDot(StreamPE):
    """acc <- (first ? 0 : acc) + act_scale * wgt_scale * (sum over the lanes of act * wgt), for each block taken.

    Parameters
        spec : arch.pe.block_dot.BlockDot   K = lanes, E = bits of an element, P = pipeline below.
    Members
        step : In(stream of the spec's step_fields)   One block: `act` and `wgt`, K codes of E bits of the spec's
            element format, lane 0 lowest; `act_scale` and `wgt_scale`, 8 bits; `first` starts a new sum (an
            unfinished one is dropped: the way to clear), `last` puts it on offer; both for a sum of one block.
        sum : Out(stream of 32)  fp32 sum of the blocks from `first` to `last`. One that is not taken stops the whole
            PE. The payload is the accumulator register, so without `valid` it shows sums that are not finished.
    Timing       latency 1 + P cycles from a block to its sum; one block a cycle while sums are taken. `step.ready`
                 depends on `sum.ready` in the same cycle, never on `step.valid`; `sum.valid` depends on neither.
    Arithmetic   the spec's `accumulate`, bit-exact: exact fixed-point sum (or its aligner), two roundings to fp32.
    Reset        synchronous; clears the valid bits: blocks in flight and a sum on offer are lost. Data registers, the
                 accumulator among them, power up unknown; the first block of a sum replaces it.
    Model        arch.pe.block_dot.BlockDot.accumulate.
    Source       OCP MX v1.0, section 6.2; INT v.s. FP, arXiv 2510.25602, appendix C; deviation: see the spec's module.
    """

    spec: specs.BlockDot

    def elaborate(self, platform: object) -> Module:
        m, spec, payload = Module(), self.spec, self.step.payload
        flow = Flow(m, self)
        operands = [[codes[index] for index in range(spec.lanes)] for codes in (payload.act, payload.wgt)]
        lanes = [_lane(m, spec, act, wgt, index) for index, (act, wgt) in enumerate(zip(*operands, strict=True))]
        scales = self._scales(m)

        lane_values = {
            f"lane_{index}_{field}": getattr(lane, field) for index, lane in enumerate(lanes) for field in _LANE_FIELDS
        }
        held = flow.cut(spec.pipeline >= 3, **lane_values, **scales)
        width = len(_LANE_FIELDS)
        lanes = [_Lane(*held[at : at + width]) for at in range(0, spec.lanes * width, width)]
        scales = dict(zip(scales, held[spec.lanes * width :], strict=True))
        total, top = _aligned_sum(m, spec, lanes) if spec.kept_bits else (_exact_sum(m, spec, lanes), Const(0, 1))
        nan, inf, inf_sign = _specials(m, spec, lanes)

        special = {"lane_nan": nan, "lane_inf": inf, "lane_inf_sign": inf_sign}
        total, top, nan, inf, inf_sign, *held = flow.cut(
            spec.pipeline >= 1, total=total, top_shift=top, **special, **scales
        )
        block = self._block(m, total.as_signed(), top, held, (nan, inf, inf_sign))

        (block,) = flow.cut(spec.pipeline >= 2, block=block)
        acc, start = flow.register(32, "acc"), Signal(32, name="start")
        m.d.comb += [start.eq(Mux(flow.first, 0, acc)), self.sum.payload.fp32.eq(acc)]
        added = fp32_add(m, start, block, "add")
        flow.offer()
        with m.If(flow.advance & flow.valid):
            m.d.sync += acc.eq(added)
        return m

    def _scales(self, m: Module) -> dict[str, Value]:
        """Sign, significand, exponent and NaN of the product of the scales; its unit is in `_block`."""
        nan = Signal(name="either_scale_nan")
        if self.spec.scale_format == "e8m0":
            exponent = Signal(_SCALE_BITS + 1, name="scale_exponent")
            m.d.comb += [
                exponent.eq(self.step.payload.act_scale + self.step.payload.wgt_scale),
                nan.eq(self.step.payload.act_scale.all() | self.step.payload.wgt_scale.all()),
            ]
            return dict(zip(_SCALE_FIELDS, (Const(0, 1), Const(1, 1), exponent, nan), strict=True))
        read = E4M3_SCALE
        act, wgt = (
            _number(m, read, code, name)
            for code, name in ((self.step.payload.act_scale, "act_scale"), (self.step.payload.wgt_scale, "wgt_scale"))
        )
        factor, exponent = Signal(8, name="scale_factor"), Signal(5, name="scale_exponent")
        m.d.comb += [
            factor.eq(act.significand * wgt.significand),
            exponent.eq(act.shift + wgt.shift),
            nan.eq(act.nan | wgt.nan),
        ]
        return dict(zip(_SCALE_FIELDS, (act.sign ^ wgt.sign, factor, exponent, nan), strict=True))

    def _block(
        self, m: Module, total: Value, top: Value, scales: Sequence[Value], special: tuple[Value, Value, Value]
    ) -> Signal:
        """fp32 of total * 2**top * the scales, rounded once, or the infinity or NaN that the operands ask for."""
        spec = self.spec
        scale_sign, factor, scale_exponent, scale_nan = scales
        lane_nan, lane_inf, inf_sign = special
        magnitude = Signal(len(total) - 1, name="magnitude")
        m.d.comb += magnitude.eq(abs(total))
        scaled, unit = magnitude, 2 * spec.element.least_exponent
        if spec.scale_format == "e8m0":
            unit -= 2 * 127
        else:
            unit += 2 * E4M3_SCALE.least_exponent
            scaled = Signal(len(magnitude) + len(factor), name="scaled")
            m.d.comb += scaled.eq(magnitude * factor)
        if spec.kept_bits:
            unit -= spec.kept_bits - spec.product_bits
        shifted, count = normalise(m, scaled, "block")
        exponent = Signal(signed(11), name="block_exponent")
        m.d.comb += exponent.eq(scale_exponent + top - count + (unit + len(scaled) - 1 + _FP32_BIAS))
        sign = Signal(name="block_sign")
        m.d.comb += sign.eq(total[-1] if spec.scale_format == "e8m0" else (total[-1] ^ scale_sign) & scaled.any())
        if spec.scale_format == "e4m3":
            # Exponents 107..154 of a nonzero block, at most 20 bits: neither rounding nor an end of fp32's range.
            assert len(scaled) <= 24, f"{spec.name}: {len(scaled)} bits would have to be rounded"
            field = exponent[:8] & shifted[-1].replicate(8)
            finite: Value = Cat(Const(0, 24 - len(scaled)), shifted[:-1], field)
        else:
            finite = _round(m, shifted, exponent)
        result, nan = Signal(32, name="block_fp32"), Signal(name="block_nan")
        m.d.comb += [nan.eq(lane_nan | scale_nan), result.eq(Cat(finite, sign))]
        with m.If(nan | lane_inf):
            m.d.comb += result.eq(Cat(Const(0, 22), nan, Const(0xFF, 8), inf_sign & ~nan))
        return result


_LANE_FIELDS = ("sign", "product", "shift", "nan", "inf")
_SCALE_FIELDS = ("scale_sign", "scale_factor", "scale_exponent", "scale_nan")


def _number(m: Module, element: Element, code: Value, name: str) -> _Number:
    """Read a minifloat's code."""
    mantissa = element.mantissa_bits
    fraction, field = code[:mantissa], code[mantissa:-1]
    normal, shift = Signal(name=f"{name}_normal"), Signal(element.exponent_bits, name=f"{name}_shift")
    m.d.comb += [normal.eq(field.any()), shift.eq(field - normal)]
    zero, nan, inf = ~code[:-1].any(), Const(0, 1), Const(0, 1)
    if element.specials == "nan":
        nan = code[:-1].all()
    elif element.specials == "ieee":
        nan, inf = field.all() & fraction.any(), field.all() & ~fraction.any()
    return _Number(code[-1], Cat(fraction, normal), shift, zero, nan, inf)


def _lane(m: Module, spec: specs.BlockDot, act: Value, wgt: Value, index: int) -> _Lane:
    """The product of one lane."""
    element, name = spec.element, f"lane_{index}"
    none = Const(0, 1)
    if element.integer:
        whole = Signal(signed(spec.product_bits), name=f"{name}_product")
        m.d.comb += whole.eq(act.as_signed() * wgt.as_signed())
        return _Lane(none, whole, none, none, none)
    a, w = _number(m, element, act, f"{name}_act"), _number(m, element, wgt, f"{name}_wgt")
    product, shift = Signal(spec.product_bits, name=f"{name}_product"), Signal(len(a.shift) + 1, name=f"{name}_shift")
    sign = Signal(name=f"{name}_sign")
    m.d.comb += [
        product.eq(a.significand * w.significand),
        shift.eq(a.shift + w.shift),
        sign.eq(a.sign ^ w.sign),
    ]
    if element.specials == "none":
        return _Lane(sign, product, shift, none, none)
    nan, inf = Signal(name=f"{name}_nan"), Signal(name=f"{name}_inf")
    m.d.comb += [
        nan.eq(a.nan | w.nan | (a.inf & w.zero) | (w.inf & a.zero)),
        inf.eq(a.inf | w.inf),
    ]
    return _Lane(sign, product, shift, nan, inf if element.specials == "ieee" else none)


def _tree(values: Sequence[Value], combine: Callable[[Value, Value], Value]) -> Value:
    """`combine` over all values, in a balanced tree."""
    level = list(values)
    while len(level) > 1:
        pairs = [combine(*pair) for pair in zip(level[::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def _signed_sum(m: Module, spec: specs.BlockDot, terms: Sequence[tuple[Value, Value]]) -> Signal:
    """The sum of (sign, magnitude): negative ones are inverted, and each sign bit is the missing 1 of its negation."""
    inverted = [Cat(magnitude ^ sign.replicate(len(magnitude)), sign).as_signed() for sign, magnitude in terms]
    total = Signal(signed(spec.sum_bits), name="sum_of_products")
    ones = _tree([sign for sign, _ in terms], lambda first, second: first + second)
    m.d.comb += total.eq(_tree(inverted, lambda first, second: first + second) + ones)
    return total


def _exact_sum(m: Module, spec: specs.BlockDot, lanes: Sequence[_Lane]) -> Signal:
    """The fixed-point sum of all products, `sum_bits` wide; garbage where a lane is not finite."""
    if spec.element.integer:
        total = Signal(signed(spec.sum_bits), name="sum_of_products")
        m.d.comb += total.eq(_tree([lane.product.as_signed() for lane in lanes], lambda first, second: first + second))
        return total
    width = spec.product_bits + 2 * spec.element.greatest_shift
    terms = []
    for index, lane in enumerate(lanes):
        term = Signal(width, name=f"lane_{index}_term")
        m.d.comb += term.eq((lane.product << lane.shift)[:width])
        terms.append((lane.sign, term))
    return _signed_sum(m, spec, terms)


def _aligned_sum(m: Module, spec: specs.BlockDot, lanes: Sequence[_Lane]) -> tuple[Signal, Value]:
    """(sum, shift of its unit): products aligned to the largest exponent, `kept_bits` of each, the rest cut off."""
    shifts = []
    for index, lane in enumerate(lanes):
        counted = Signal(len(lane.shift), name=f"lane_{index}_counted_shift")
        m.d.comb += counted.eq(lane.shift & lane.product.any().replicate(len(lane.shift)))
        shifts.append(counted)

    def larger(first: Value, second: Value) -> Value:
        return Mux(first >= second, first, second)

    top = Signal(len(shifts[0]), name="top_shift")
    m.d.comb += top.eq(_tree(shifts, larger))
    terms = []
    for index, (lane, counted) in enumerate(zip(lanes, shifts, strict=True)):
        term = Signal(spec.kept_bits, name=f"lane_{index}_term")
        distance = Signal(len(top), name=f"lane_{index}_distance")
        wide = Cat(Const(0, spec.kept_bits - spec.product_bits), lane.product)
        m.d.comb += [distance.eq(top - counted), term.eq(wide >> distance)]
        terms.append((lane.sign, term))
    return _signed_sum(m, spec, terms), top


def _specials(m: Module, spec: specs.BlockDot, lanes: Sequence[_Lane]) -> tuple[Value, Value, Value]:
    """(NaN, infinity, its sign) of the sum of products."""
    none = Const(0, 1)
    if spec.element.specials == "none":
        return none, none, none
    nan = Signal(name="any_nan")
    if spec.element.specials == "nan":
        m.d.comb += nan.eq(Cat(lane.nan for lane in lanes).any())
        return nan, none, none
    plus, minus = Signal(name="any_plus_inf"), Signal(name="any_minus_inf")
    m.d.comb += [
        plus.eq(Cat(lane.inf & ~lane.sign for lane in lanes).any()),
        minus.eq(Cat(lane.inf & lane.sign for lane in lanes).any()),
        nan.eq(Cat(lane.nan for lane in lanes).any() | (plus & minus)),
    ]
    return nan, plus | minus, minus


def _round(m: Module, shifted: Value, exponent: Value) -> Value:
    """Exponent and fraction fields of a normalised significand with any biased exponent: subnormals, overflow."""
    width = len(shifted)
    if width > 26:  # fraction with its hidden bit, guard, and everything below as one sticky bit
        significand: Value = Cat(shifted[: width - 25].any(), shifted[width - 25 :])
    else:
        significand = Cat(Const(0, 26 - width), shifted)
    below, places = Signal(name="block_subnormal"), Signal(11, name="block_places")
    field = Signal(10, name="block_field")
    m.d.comb += [
        below.eq(exponent < 1),
        places.eq(Mux(below, 1 - exponent, 0)),
        field.eq(Mux(below, 1, exponent)),
    ]
    value = shift_right_sticky(m, significand, places, "block_subnormal")
    return round_fields(m, value, field, 8, 23, "block")
