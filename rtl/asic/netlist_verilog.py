"""A mapped netlist as Verilog text with plain names: instance i is u<i>, net n is n<n>.

`cells` instantiates the library's cells (for OpenSTA). `delayed` is a model that simulates by itself: one expression
with a rise and a fall delay for each output, one register for each flip-flop (for Icarus).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bitwright.rtl.asic.boolean import Expression
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import CONSTANT_NETS, Netlist


def _net(number: int) -> str:
    return f"n{number}" if number >= CONSTANT_NETS else f"1'b{number}"


def _frame(netlist: Netlist, body: list[str]) -> str:
    lines = [f"module {netlist.name}({', '.join(netlist.ports)});"]
    for port in netlist.ports.values():
        width = f"[{len(port.nets) - 1}:0] " if len(port.nets) > 1 else ""
        lines.append(f"  {'output' if port.is_output else 'input'} {width}{port.name};")
    used = {net for instance in netlist.instances for net in instance.pins.values()}
    used |= netlist.input_nets | netlist.output_nets
    lines += [f"  wire n{net};" for net in sorted(used) if net >= CONSTANT_NETS]
    for port in netlist.ports.values():
        for i, net in enumerate(port.nets):
            bit = f"{port.name}[{i}]" if len(port.nets) > 1 else port.name
            lines.append(f"  assign {bit} = {_net(net)};" if port.is_output else f"  assign {_net(net)} = {bit};")
    return "\n".join([*lines, *body, "endmodule", ""])


def cells(netlist: Netlist) -> str:
    """Instances of the library's cells; a net of an output port has the port's name, for OpenSTA gives its load to
    no alias."""
    body = [
        f"  {instance.cell} u{i} ({', '.join(f'.{pin}({_net(net)})' for pin, net in instance.pins.items())});"
        for i, instance in enumerate(netlist.instances)
    ]
    text = _frame(netlist, body)
    for port in netlist.ports.values():
        for i, net in enumerate(port.nets):
            bit = f"{port.name}[{i}]" if len(port.nets) > 1 else port.name
            if port.is_output and net not in netlist.input_nets and f"  wire n{net};\n" in text:
                text = text.replace(f"  wire n{net};\n", "").replace(f"  assign {bit} = n{net};\n", "")
                text = re.sub(rf"\bn{net}\b", bit, text)
    return text


def delayed(netlist: Netlist, library: Library, delays_ps: Mapping[int, tuple[int, int]], *, clock: str = "clk") -> str:
    """A model of its own. delays_ps : (rise, fall) of each net that a cell drives; inertial, 1 ps steps.

    Flip-flops take their data at the rising edge of `clock` and begin at 0; asynchronous inputs are taken as tied off.
    """
    return "`timescale 1ps/1ps\n" + _frame(netlist, list(_model(netlist, library, delays_ps, clock)))


def _model(netlist: Netlist, library: Library, delays_ps: Mapping[int, tuple[int, int]], clock: str) -> Iterator[str]:
    for i, instance in enumerate(netlist.instances):
        cell = library.cell(instance.cell)
        pins = {name: _net(net) for name, net in instance.pins.items()}
        if cell.ff is not None:
            pins |= {cell.ff.state: f"q{i}", cell.ff.inverted: f"(~q{i})"}
            yield f"  reg q{i} = 1'b0;"
            yield f"  always @(posedge {clock}) q{i} <= {_expression(cell.ff.next_state, pins)};"
        for pin in cell.outputs:
            if pin.name in instance.pins and pin.function is not None:
                rise, fall = delays_ps[instance.pins[pin.name]]
                yield f"  assign #({rise},{fall}) {pins[pin.name]} = {_expression(pin.function, pins)};"


def _expression(expression: Expression, pins: Mapping[str, str]) -> str:
    return expression.verilog({name: pins.get(name, "1'b0") for name in expression.inputs})
