"""Operand isolation of a PE behind streams: a wrapper that holds a step's operands at 0 while none is on offer.

Every bit of the payload of the PE's input stream is ANDed with the stream's valid bit, so that logic stands still while
operands of others pass on the same wires. Nothing else changes: a payload counts only with its valid bit (of PEs whose
steps take several cycles ready may differ while nothing is on offer, when it says nothing). One rule for every PE;
mapping sees the AND gates and the PE as one design.
Isolation of a systolic cell, whose operands go on to its neighbours, is inside the cell (rtl.pe.cells).
Not modelled: isolation inside a PE between its stages; latches instead of AND gates (a payload that comes and goes
toggles to 0 and back).
"""

from __future__ import annotations

import re

_PORT = re.compile(r"^ *(input|output) *(?:\[(\d+):0\])? *(\w+) *;$", flags=re.MULTILINE)


def isolated(verilog: str, top: str, stream: str) -> str:
    """A text with plain names (rtl.pe.emit.plain) and its module `top` with an isolated input stream: two modules, the
    outer one with the name and the ports of the one that was given.

    stream   Name of the input stream: the ports are <stream>__payload and <stream>__valid.
    """
    core = f"{top}_core"
    inner = re.sub(rf"^module {top}\(", f"module {core}(", verilog, flags=re.MULTILINE)
    ports = {name: (direction, high) for direction, high, name in _PORT.findall(verilog)}
    payload, valid = f"{stream}__payload", f"{stream}__valid"
    assert inner != verilog, f"no module {top}"
    assert ports.keys() > {payload, valid}, f"{top}: no stream {stream}"
    width = int(ports[payload][1] or 0) + 1
    lines = [f"module {top}({', '.join(ports)});"]
    lines += [f"  {direction} {f'[{high}:0] ' if high else ''}{name};" for name, (direction, high) in ports.items()]
    lines.append(f"  wire [{width - 1}:0] operands = {payload} & {{{width}{{{valid}}}}};")
    wired = ", ".join(f".{name}({'operands' if name == payload else name})" for name in ports)
    return "\n".join([inner, *lines, f"  {core} core({wired});", "endmodule", ""])
