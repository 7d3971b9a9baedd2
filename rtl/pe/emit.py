"""Amaranth to Verilog: one named module, deterministic text."""

from __future__ import annotations

import re
from typing import Any


def emit(component: Any, name: str) -> str:
    """Verilog text of `component` as the single module `name`, without source-location attributes."""
    from amaranth.back import verilog

    text: str = verilog.convert(component, name=name, emit_src=False)
    modules = re.findall(r"^module (\S+?)\(", text, flags=re.MULTILINE)
    assert modules == [name], f"expected the one module {name}, got {modules}"
    return text
