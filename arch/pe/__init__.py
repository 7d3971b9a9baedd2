"""Processing elements: their operands, golden arithmetic and timing contract."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any, Literal, get_origin, get_type_hints

from bitwright.arch.errors import ConfigError, suggest
from bitwright.arch.pe.base import Acceptance, Dataflow, Evidence, OperandType, PESpec, Timing
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.block_dot import BLOCK_DOTS, BlockDot
from bitwright.arch.pe.fp16_mac import Fp16Mac
from bitwright.arch.pe.int8_mac import Int8Mac
from bitwright.arch.pe.shift_add import ShiftAdd
from bitwright.arch.pe.stream import StreamSpec

__all__ = [
    "Acceptance",
    "BitSerial",
    "BlockDot",
    "Dataflow",
    "Evidence",
    "Fp16Mac",
    "Int8Mac",
    "OperandType",
    "PESpec",
    "ShiftAdd",
    "StreamSpec",
    "Timing",
    "all_names",
    "get",
    "names",
    "parse_name",
    "stream",
    "stream_names",
]

_ALL: tuple[type[PESpec], ...] = (BitSerial, *BLOCK_DOTS, Fp16Mac, Int8Mac, ShiftAdd)
_SPECS = {cls.name: cls for cls in _ALL}


def names(template: str | None = "systolic") -> list[str]:
    """The names of the processing elements that fit an array template, sorted; of all with None.

    The default is the template of the machines, the cost tables and the simulator.
    """
    return sorted(name for name, cls in _SPECS.items() if template is None or template in cls.templates)


def get(name: str, **params: Any) -> PESpec:
    """The spec of PE `name`, of any template; `params` are its fields (int8-mac: psum_bits, shift-add: group).

    Raises ConfigError for an unknown PE or parameter, naming the closest known one.
    """
    if name not in _SPECS:
        raise ConfigError(f"pe = {name!r}: no such processing element ({suggest(name, names(None))})")
    cls = _SPECS[name]
    _require_known(cls, name, params)
    return cls(**params)


# Where the spec of each streaming PE is, as module:class below this package; imported when asked for.
_STREAMS = {
    "fp16-mac": "fp16_stream:Fp16Stream",
    "int8-mac": "int8_stream:Int8Stream",
    "w4a16-dequant": "w4a16_dequant:W4A16Dequant",
    "int8-int4-mac": "int8_int4_mac:Int8Int4Mac",
    "shift-add": "shift_add_stream:ShiftAddStream",
    "shift-add-a16": "shift_add_a16:ShiftAddA16",
    "outlier-victim": "outlier_victim:OutlierVictim",
    "flint": "flint_mac:FlintMac",
    "lut": "lut:Lut",
    "opt1": "opt:Opt1",
    "opt2": "opt:Opt2",
    "opt3": "opt_sparse:Opt3",
    "opt4c": "opt_sparse:Opt4c",
    "mxfp8-dot": "block_dot:MxFp8Dot",
    "mxint8-dot": "block_dot:MxInt8Dot",
    "mxfp4-dot": "block_dot:MxFp4Dot",
    "nvfp4-dot": "block_dot:NvFp4Dot",
    "nvint4-dot": "block_dot:NvInt4Dot",
}


def stream_names() -> list[str]:
    """The names of the PEs that exist behind a stream of steps (`StreamSpec`), sorted."""
    return sorted(_STREAMS)


def stream(name: str, **params: Any) -> StreamSpec:
    """The spec of streaming PE `name`; `params` are its fields.

    Raises ConfigError for an unknown PE or parameter, naming the closest known one.
    """
    if name not in _STREAMS:
        raise ConfigError(f"pe = {name!r}: no such streaming processing element ({suggest(name, stream_names())})")
    module, _, cls_name = _STREAMS[name].partition(":")
    cls = getattr(import_module(f"bitwright.arch.pe.{module}"), cls_name)
    _require_known(cls, name, params)
    _require_typed(cls, name, params)
    spec: StreamSpec = cls(**params)
    return spec


def _require_known(cls: type[PESpec], name: str, params: dict[str, Any]) -> None:
    known = [item.name for item in fields(cls)]
    for param in params:
        if param not in known:
            hint = suggest(param, known) if known else "it has none"
            raise ConfigError(f"{name}.{param}: no such parameter ({hint})")


def _require_typed(cls: type[PESpec], name: str, params: dict[str, Any]) -> None:
    """Raise ConfigError for a value that is not of its parameter's type; numpy integers are not ints here."""
    wanted = get_type_hints(cls)
    for param, value in params.items():
        kind = str if get_origin(wanted[param]) is Literal else wanted[param]
        if type(value) is not kind:
            raise ConfigError(f"{name}.{param} = {value!r}: must be of type {kind.__name__}")


def parse_name(text: str) -> tuple[str, dict[str, Any]]:
    """A PE's name with parameters, "lut:m=1,precompute=true", as (name, params of its spec's fields).

    The streaming form's fields count where a PE has one. Raises ConfigError for an unknown PE or parameter, and for a
    value that is not of the parameter's type.
    """
    name, colon, rest = text.partition(":")
    if name not in names(None) and name not in _STREAMS:
        raise ConfigError(f"pe = {name!r}: no such processing element ({suggest(name, all_names())})")
    if not colon:
        return name, {}
    cls = type(stream(name)) if name in _STREAMS else _SPECS[name]
    types = get_type_hints(cls)
    params: dict[str, Any] = {}
    for item in rest.split(","):
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"pe = {text!r}: {item!r} must be parameter=value (such as pipeline=1)")
        _require_known(cls, name, {key: value})
        if key in params:
            raise ConfigError(f"pe = {text!r}: {key} is given twice")
        params[key] = _parsed(f"{name}.{key}", value, types[key])
    return name, params


def all_names() -> list[str]:
    """The names of all processing elements, of systolic cells and of streams, sorted."""
    return sorted({*names(None), *_STREAMS})


def _parsed(where: str, value: str, wanted: Any) -> Any:
    if wanted is bool:
        if value not in ("true", "false"):
            raise ConfigError(f"{where} = {value!r}: must be true or false")
        return value == "true"
    if wanted is int:
        try:
            return int(value)
        except ValueError:
            raise ConfigError(f"{where} = {value!r}: must be an integer") from None
    return value
