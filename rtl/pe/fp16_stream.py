"""fp16-mac behind a stream: the product is made exact in front of the loop; the loop is one addition and its rounding.

The fp32 loop is rtl.pe.fp32_loop; the fp16 one, with subnormals and overflow, is here.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from bitwright.arch.pe.fp16_mac import Fp16Mac
from bitwright.arch.pe.fp16_stream import Fp16Stream
from bitwright.rtl.pe.floats import (
    effective_exponent,
    leading_zeros,
    round_fields,
    shift_right_sticky,
    unpack,
)
from bitwright.rtl.pe.fp16_mac import mac
from bitwright.rtl.pe.fp32_loop import Addend, add_fp32, plus_one
from bitwright.rtl.pe.stream import Flow, StreamPE

Parts = dict[str, Value]
_PRODUCT = 22  # bits of an exact product of two significands
_GUARD = 3  # guard, round and sticky bits below an aligned significand
_BIAS = {"fp32": 97, "fp16": -15}  # e_a - 15 + e_w - 15 in the accumulator's bias


class Fp16StreamPE(StreamPE):
    """The hardware of arch.pe.fp16_stream.Fp16Stream; members, timing and arithmetic as its docstring says."""

    spec: Fp16Stream

    def elaborate(self, platform: object) -> Module:
        m, spec, payload = Module(), self.spec, self.step.payload
        flow = Flow(m, self)
        acc = flow.register(spec.psum.bits, "acc")
        if spec.pipeline == 0 and spec.acc_format == "fp32":
            started = Signal(32, name="started")
            m.d.comb += started.eq(Mux(flow.first, 0, acc))
            total = mac(m, Fp16Mac(), started, payload.act, payload.wgt)
        else:
            total = multiply_accumulate(m, flow, acc, payload.act, payload.wgt, spec.acc_format, spec.pipeline)
        with m.If(flow.advance & flow.valid):
            m.d.sync += acc.eq(total)
        m.d.comb += self.sum.payload.psum.eq(acc)
        flow.offer()
        return m


def multiply_accumulate(
    m: Module, flow: Flow, acc: Value, act: Value, wgt: Value, acc_format: str, pipeline: int
) -> Value:
    """acc + act * wgt with registers after the product (pipeline >= 1) and after the multiplier (>= 2)."""
    parts = staged(flow, pipeline >= 2, multiplied(m, act, wgt, acc_format))
    if acc_format == "fp32":
        product = product_as_fp32(m, parts)
        exponent = product["bits"][-9:-1] if pipeline >= 2 else None
        product = staged(flow, pipeline >= 1, product)
        return add_fp32(m, flow, acc, Addend(product["bits"], product["special"]), exponent)
    parts = staged(flow, pipeline >= 1, product_for_fp16(m, parts))
    return add_fp16(m, acc, parts, flow.first)


def staged(flow: Flow, wanted: bool, parts: Parts) -> Parts:
    """The parts after a pipeline register, if wanted, by the same names."""
    return dict(zip(parts, flow.cut(wanted, **parts), strict=True))


def _named(m: Module, prefix: str, widths: dict[str, int]) -> dict[str, Signal]:
    return {name: Signal(bits, name=f"{prefix}_{name}") for name, bits in widths.items()}


def multiplied(m: Module, act: Value, wgt: Value, acc_format: str) -> Parts:
    """The significands' product, 22 bits in units of 2**-20, and what the operands say of it.

    places : left shift that gives a product of subnormals its bit 20 or 21. exponent : of the units place before that
    shift, signed, in the accumulator's bias. zero, nan, inf : of the product.
    """
    a, w = unpack(m, act, 5, "act"), unpack(m, wgt, 5, "wgt")
    parts = _named(m, "raw", {"product": _PRODUCT, "places": 5, "sign": 1, "zero": 1, "nan": 1, "inf": 1})
    exponent = Signal(8, name="raw_exponent")
    m.d.comb += [
        parts["product"].eq(a.significand * w.significand),
        parts["places"].eq(leading_zeros(m, a.significand, "act_zeros") + leading_zeros(m, w.significand, "wgt_zeros")),
        exponent.eq(effective_exponent(a) + effective_exponent(w) + _BIAS[acc_format]),
        parts["sign"].eq(a.sign ^ w.sign),
        parts["zero"].eq(a.zero | w.zero),
        parts["nan"].eq(a.nan | w.nan | (a.inf & w.zero) | (w.inf & a.zero)),
        parts["inf"].eq(a.inf | w.inf),
    ]
    return {**parts, "exponent": exponent}


# fp32 accumulator


def product_as_fp32(m: Module, raw: Parts) -> Parts:
    """The product as an fp32 number, which holds it exactly and normalised; +0 for a zero, the canonical NaN.

    Its two lowest fraction bits are 0 and not stored: `bits` has 30. special : infinite or NaN.
    """
    shifted, top = Signal(_PRODUCT, name="product_shifted"), Signal(name="product_top")
    exponent, fraction = Signal(8, name="product_exponent"), Signal(_PRODUCT - 1, name="product_fraction")
    parts = _named(m, "product", {"bits": 1 + 8 + _PRODUCT - 1, "special": 1})
    m.d.comb += [
        shifted.eq((raw["product"] << raw["places"])[:_PRODUCT]),
        top.eq(shifted[-1]),
        fraction.eq(Mux(top, shifted[:-1], Cat(Const(0, 1), shifted[:-2]))),
        exponent.eq(raw["exponent"] - raw["places"] + top),
        parts["special"].eq(raw["nan"] | raw["inf"]),
        parts["bits"].eq(Cat(fraction, exponent, raw["sign"])),
    ]
    with m.If(parts["special"]):
        m.d.comb += parts["bits"].eq(Cat(Const(0, _PRODUCT - 2), raw["nan"], Const(0xFF, 8), raw["sign"] & ~raw["nan"]))
    with m.Elif(raw["zero"]):
        m.d.comb += parts["bits"].eq(0)
    return dict(parts)


# fp16 accumulator


def product_for_fp16(m: Module, raw: Parts) -> Parts:
    """The product as 1.f, or 0.f at exponent 1, in fp16's bias: significand of 22 bits whose last is sticky.

    What lies below 2**-35 decides no rounding to multiples of 2**-24 but by being there, so it is ORed into the last
    bit. huge : 2**17 or more, which overflows whatever is added. exponent is 1 .. 31 unless huge.
    """
    left, places = Signal(_PRODUCT, name="product_left"), Signal(6, name="product_places")
    tiny, more = Signal(name="product_tiny"), Signal(name="product_more")
    exponent, right_places = Signal(7, name="product_top_exponent"), Signal(5, name="product_right_places")
    signed_exponent = raw["exponent"].as_signed()
    parts = _named(m, "product", {"significand": _PRODUCT, "exponent": 5, "sign": 1, "huge": 1, "nan": 1, "inf": 1})
    room = Mux(tiny, 0, raw["exponent"][:6])
    m.d.comb += [
        tiny.eq(signed_exponent < 0),
        right_places.eq(Mux(tiny, -raw["exponent"], 0)),
        places.eq(Mux(raw["places"] > room, room, raw["places"])),
        left.eq((raw["product"] << places)[:_PRODUCT]),
        more.eq(~left[-1] & (room > raw["places"])),
        exponent.eq(Mux(tiny, 1, raw["exponent"][:6] + 1 - places - more)),
    ]
    right = shift_right_sticky(m, raw["product"], right_places, "product")
    m.d.comb += [
        parts["significand"].eq(Mux(tiny, right, Mux(more, Cat(Const(0, 1), left[:-1]), left))),
        parts["exponent"].eq(exponent),
        parts["huge"].eq((exponent >= 32) & ~raw["zero"]),
        parts["sign"].eq(raw["sign"]),
        parts["nan"].eq(raw["nan"]),
        parts["inf"].eq(raw["inf"]),
    ]
    return dict(parts)


def add_fp16(m: Module, acc: Value, product: Parts, first: Value) -> Value:
    """The fp16 sum acc + product, or 0 + product if `first`; rounded once, all of IEEE 754."""
    started = Signal(16, name="started")
    m.d.comb += started.eq(acc & ~first.replicate(16))
    c = unpack(m, started, 5, "acc")
    subtract, product_big, distance = Signal(name="subtract"), Signal(name="product_big"), Signal(5, name="distance")
    width = _PRODUCT + _GUARD
    apart, exponent = Signal(signed(6), name="apart"), Signal(5, name="big_exponent")
    big, small = Signal(_PRODUCT, name="big"), Signal(width, name="small")
    c_exponent, c_wide = effective_exponent(c), Cat(Const(0, _PRODUCT - 11), c.significand)
    m.d.comb += [
        subtract.eq(product["sign"] ^ c.sign),
        apart.eq(product["exponent"] - c_exponent),
        product_big.eq(~apart[-1]),
        distance.eq(apart[:-1] ^ apart[-1].replicate(5)),
        exponent.eq(Mux(product_big, product["exponent"], c_exponent)),
        big.eq(Mux(product_big, product["significand"], c_wide)),
        # As in _far: a negative distance's complement is one too small, and the addend one place down already.
        small.eq(Mux(product_big, Cat(Const(0, _GUARD), c_wide), Cat(Const(0, _GUARD - 1), product["significand"]))),
    ]
    aligned = shift_right_sticky(m, small, distance, "small")
    wide_big, addition = Cat(Const(0, _GUARD), big), aligned ^ subtract.replicate(width)
    less, exact = Signal(width + 1, name="total"), Signal(width + 1, name="next_total")
    magnitude, limit = Signal(width + 1, name="magnitude"), Signal(width + 1, name="limit")
    m.d.comb += [
        less.eq(wide_big + addition),
        exact.eq(plus_one(wide_big, addition)),
        magnitude.eq(Mux(subtract, Mux(exact[-1], Cat(exact[:-1], Const(0, 1)), Cat(~less[:-1], Const(0, 1))), less)),
        # A mark where the exponent would be 1 ends the leading zeros there: no shift into subnormals, at no delay.
        limit.eq((Const(1 << width, width + 1) >> exponent)[: width + 1]),
    ]
    zeros = leading_zeros(m, magnitude | limit, "sum_zeros")
    shifted, lowered = Signal(width + 1, name="sum_shifted"), Signal(6, name="sum_exponent")
    m.d.comb += [shifted.eq((magnitude << zeros)[: width + 1]), lowered.eq(exponent + 1 - zeros)]
    rounded = round_fields(m, shifted, lowered, 5, 10, "sum")
    # Only an exact zero has no 1 in `magnitude`: a difference then, whose zero is +0, or two zeros of one sign.
    c_side = Mux(product_big ^ ~exact[-1], product["sign"], c.sign)
    sign = Mux(subtract, c_side & magnitude.any(), c.sign)
    return _fp16_specials(m, c, product, subtract, Cat(rounded, sign))


def _fp16_specials(m: Module, c: Value, product: Parts, subtract: Value, finite: Value) -> Value:
    """`finite`, or the infinity or the canonical NaN that the operands ask for."""
    result, nan = Signal(16, name="result"), Signal(name="nan")
    m.d.comb += [nan.eq(product["nan"] | c.nan | (product["inf"] & c.inf & subtract)), result.eq(finite)]
    with m.If(product["huge"] | product["inf"] | product["nan"] | c.special):
        sign = Mux(c.special, c.sign, product["sign"]) & ~nan
        m.d.comb += result.eq(Cat(Const(0, 9), nan, Const(0x1F, 5), sign))
    return result
