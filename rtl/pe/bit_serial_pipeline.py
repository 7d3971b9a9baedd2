"""The bit-serial PE from its terms to a group's sum: the registers between the parts of `bit_serial_stages`."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value, signed
from bitwright.arch.pe.bit_serial import BitSerial as Spec
from bitwright.rtl.pe import bit_serial_stages as stages
from bitwright.rtl.pe.bit_serial_stages import Float
from bitwright.rtl.pe.floats import unpack

NAN = 0x7FC00000


def exponents(m: Module, advance: Value, encoded: dict[str, Any]) -> dict[str, Any]:
    """Registers each lane's sign, significand and distance from the largest exponent, and that exponent.

    encoded : "terms" and "acts" of the lanes, "bsig", and whatever goes with them to the accumulator.
    """
    numbers = [unpack(m, act, 5, f"act_{index}") for index, act in enumerate(encoded["acts"])]
    terms = encoded["terms"]
    found = [
        stages.lane_exponent(m, number, term, f"lane_{i}") for i, (number, term) in enumerate(pairs(numbers, terms))
    ]
    low = stages.largest(m, found[0], found[1], "larger_of_0_1")
    high = stages.largest(m, found[2], found[3], "larger_of_2_3")
    top = stages.largest(m, low, high, "largest_exponent")
    lanes = []
    for index, (number, term) in enumerate(pairs(numbers, terms)):
        significand = number.significand & term.man.replicate(stages.SIGNIFICAND_BITS)
        fields = {
            "negative": number.sign ^ term.sign,
            "significand": significand,
            "places": stages.places(top, found[index]),
        }
        lanes.append(tuple(registers(m, fields, f"lane_{index}", advance).values()))
    passed = {name: value for name, value in encoded.items() if name not in ("terms", "acts")}
    passed |= {"top": top, "special": Cat(number.special for number in numbers).any()}
    return {"lanes": lanes, **registers(m, passed, "exponents", advance)}


def lanes_total(m: Module, spec: Spec, advance: Value, before: dict[str, Any]) -> dict[str, Any]:
    """Registers the sum of the lanes, then that sum as a normalised float."""
    if spec.pipeline:
        before = _aligned(m, advance, before)
    passed = {name: value for name, value in before.items() if name not in ("lanes", "top", "bsig")}
    position = {"top": before["top"], "bsig": before["bsig"]}
    summed = registers(m, {**passed, **position}, "summed", advance)
    total = Signal(signed(stages.SUM_BITS), name="summed_total", reset_less=True)
    parts = before["lanes"] if spec.pipeline else stages.aligned_lanes(m, before["lanes"])
    lanes_sum = stages.lanes_sum(m, parts)
    with m.If(advance):
        m.d.sync += total.eq(lanes_sum)
    value = stages.normalised_step(m, total, summed["top"], summed["bsig"])
    return registers(m, {**vars(value), **{name: summed[name] for name in passed}}, "step", advance)


def _aligned(m: Module, advance: Value, before: dict[str, Any]) -> dict[str, Any]:
    """Registers the aligned lanes, and passes on the rest."""
    parts = stages.aligned_lanes(m, before["lanes"])
    lanes = [Signal.like(part, name=f"aligned_lane_{i}", reset_less=True) for i, part in enumerate(parts)]
    with m.If(advance):
        m.d.sync += [lane.eq(part) for lane, part in zip(lanes, parts, strict=True)]
    passed = {name: value for name, value in before.items() if name != "lanes"}
    return {"lanes": lanes, **registers(m, passed, "aligned", advance)}


def accumulator(
    m: Module, spec: Spec, take: Value, fresh: Value, step: dict[str, Any], *also: Any
) -> tuple[Float, Value]:
    """A group's accumulator: its next value, and whether that is no number; loaded when `take`, from 0 when `fresh`.

    also : what else happens with `take`.
    """
    dirty = Signal(name="group_special", reset_less=True)
    fields = {"sign": 1, "exponent": 8, "significand": spec.acc_bits}
    held = {name: Signal(bits, name=f"acc_{name}", reset_less=True) for name, bits in fields.items()}
    start = {name: value & (~fresh).replicate(len(value)) for name, value in held.items()}
    addend = Float(step["sign"], step["exponent"], step["significand"])
    acc = stages.add_floats(m, Float(**start), addend, "acc")
    special = Signal(name="acc_special")
    m.d.comb += special.eq(step["special"] | (dirty & ~fresh))
    with m.If(take):
        m.d.sync += [*(held[name].eq(getattr(acc, name)) for name in held), dirty.eq(special), *also]
    return acc, special


def pairs(first: list[Any], second: list[Any]) -> Any:
    return zip(first, second, strict=True)


def register(m: Module, value: Value, name: str, enable: Value) -> Signal:
    """`value` as a data register without reset, loaded when `enable`."""
    register = Signal(len(Value.cast(value)), name=name, reset_less=True)
    with m.If(enable):
        m.d.sync += register.eq(value)
    return register


def registers(m: Module, values: dict[str, Value], name: str, enable: Value) -> dict[str, Any]:
    return {key: register(m, value, f"{name}_{key}", enable) for key, value in values.items()}
