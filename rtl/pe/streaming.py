"""PEs that stand alone behind valid/ready streams, not in a systolic cell: which component builds which spec."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bitwright.arch.pe.base import PESpec
from bitwright.rtl.pe.emit import emit, plain
from bitwright.rtl.pe.stream import HeldSum

# Spec class -> module:class below this package; imported when asked for.
_COMPONENTS = {
    "BitSerial": "bit_serial:BitSerial",
    "BlockDot": "block_dot:BlockDot",
    "Fp16Stream": "fp16_stream:Fp16StreamPE",
    "Int8Stream": "int8_stream:Int8StreamPE",
    "W4A16Dequant": "w4a16_dequant:W4A16DequantPE",
    "Int8Int4Mac": "int8_int4_mac:Int8Int4MacPE",
    "ShiftAddStream": "shift_add_stream:ShiftAddStreamPE",
    "ShiftAddA16": "shift_add_a16:ShiftAddA16PE",
    "OutlierVictim": "outlier_victim:OutlierVictimPE",
    "FlintMac": "flint_mac:FlintMacPE",
    "Lut": "lut:LutPE",
    "Opt1": "opt:Opt1PE",
    "Opt2": "opt:Opt2PE",
    "Opt3": "opt_sparse:Opt3PE",
    "Opt4c": "opt_sparse:Opt4cPE",
}


def component(spec: PESpec) -> Any:
    """The Amaranth component of a streaming PE's spec."""
    place = next(_COMPONENTS[cls.__name__] for cls in type(spec).__mro__ if cls.__name__ in _COMPONENTS)
    module, _, name = place.partition(":")
    return getattr(import_module(f"bitwright.rtl.pe.{module}"), name)(spec)


def held_sums(spec: PESpec) -> tuple[HeldSum, ...]:
    """What the component of a spec says of its registers; none if it is not a `StreamPE`."""
    made = component(spec)
    emit(made, spec.module_stem)
    return tuple(getattr(made, "held_sums", ()))


def verilog(spec: PESpec) -> str:
    """Verilog-2001 of a streaming PE: one module called `spec.module_stem`, plain names, the same text in every run."""
    return plain(emit(component(spec), spec.module_stem))
