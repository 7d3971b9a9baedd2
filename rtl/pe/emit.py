"""Amaranth to Verilog: one named module, deterministic text, plain names on request."""

from __future__ import annotations

import re
from typing import Any

_ESCAPED = re.compile(r"\\(\S+) ")
_WORD = re.compile(r"[A-Za-z_]\w*")
_TEMPORARY = re.compile(r"\$(\d+)")


def emit(component: Any, name: str) -> str:
    """Verilog text of `component` as the single module `name`, without source-location attributes."""
    from amaranth.back import verilog

    text: str = verilog.convert(component, name=name, emit_src=False)
    modules = re.findall(r"^module (\S+?)\(", text, flags=re.MULTILINE)
    assert modules == [name], f"expected the one module {name}, got {modules}"
    return text


def plain(text: str) -> str:
    """The same Verilog without escaped names: every tool and every reader of Verilog-2001 takes it.

    `\\step__payload.act[3] ` becomes `step__payload_act_3`, `\\$12 ` becomes `n12`, an escaped keyword gets a trailing
    underscore; a name that is taken gets one more underscore.
    """
    taken = set(_WORD.findall(text))
    names: dict[str, str] = {}
    for escaped in dict.fromkeys(_ESCAPED.findall(text)):
        temporary = _TEMPORARY.fullmatch(escaped)
        if temporary:
            name = f"n{temporary[1]}"
        elif "verilog_backend" in escaped:
            name = "never"  # Yosys' constant 0 that makes combinational processes run once at the start
        else:
            name = re.sub(r"\W+", "_", escaped).strip("_")
            name = f"{name}_" if name == escaped else name
        while name in taken:
            name += "_"
        taken.add(name)
        names[escaped] = name
    return _ESCAPED.sub(lambda found: names[found[1]] + " ", text)
