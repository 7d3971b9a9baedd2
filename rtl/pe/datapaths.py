"""Which datapath builds which PE spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bitwright.arch.pe.base import PESpec
from bitwright.rtl.pe import fp16_mac, int8_mac, shift_add

_DATAPATHS: dict[str, Callable[..., Any]] = {
    "fp16-mac": fp16_mac.mac,
    "int8-mac": int8_mac.mac,
    "shift-add": shift_add.mac,
}


def datapath(spec: PESpec) -> Callable[..., Any]:
    """The function mac(m, spec, acc, act, wgt, **mode) -> Value that adds this PE's arithmetic to a module."""
    return _DATAPATHS[spec.name]


def has_unsigned_mode(spec: PESpec) -> bool:
    """Whether the PE's weights are codes whose signedness is an input of the cell."""
    return spec.wgt.kind == "code"
