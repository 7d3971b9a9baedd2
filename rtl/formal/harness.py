"""The Verilog around a PE that states a proof: its environment, ghosts that remember what happened, and assertions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bitwright.arch.pe.stream import StreamSpec


@dataclass(frozen=True)
class Ports:
    """The streams of a PE as its Verilog names them, and where `first` and `last` are in a step's payload."""

    step_bits: int
    sum_bits: int
    first: int
    last: int
    step: str = "step"
    sum: str = "sum"

    @classmethod
    def of(cls, spec: StreamSpec) -> Ports:
        fields = sum(item.bits * item.lanes for item in spec.step_fields)
        return cls(fields + 2, sum(item.bits * item.lanes for item in spec.sum_fields), fields, fields + 1)

    def wire(self, name: str) -> str:
        """The Verilog name of `step_valid`, `sum_ready` and the like."""
        stream, _, member = name.partition("_")
        return f"{getattr(self, stream)}__{member}"


@dataclass
class Harness:
    """A harness being written: ghosts, assumptions and named assertions around the PE.

    Cycle 0 is a reset. The source keeps the stream's rule: a step on offer stays, unchanged, until it is taken.

    Fields
        exposed : mapping        Wires of the PE to look at, and their widths.
        driven : mapping         More inputs of the PE, one bit each, and what stands on them.
        stalls : bool            False: a sum on offer is taken at once, as allowed after `registers-hold`.
    """

    ports: Ports
    exposed: Mapping[str, int] = field(default_factory=dict)
    driven: Mapping[str, str] = field(default_factory=dict)
    stalls: bool = True
    lines: list[str] = field(default_factory=list)
    properties: list[str] = field(default_factory=list)

    def ghost(self, name: str, bits: int, following: str, *, enable: str = "1", is_signed: bool = False) -> None:
        """A register of the harness, 0 at first: loads `following` in cycles of `enable`, cleared by the reset."""
        self.lines.append(f"reg {'signed ' if is_signed else ''}[{bits - 1}:0] {name} = 0;")
        self.lines.append(f"always @(posedge clk) if (rst) {name} <= 0; else if ({enable}) {name} <= {following};")

    def past(self, name: str, of: str, bits: int) -> None:
        """A register of the harness that holds the last cycle's value, resets or not."""
        self.lines.append(f"reg [{bits - 1}:0] {name} = 0; always @(posedge clk) {name} <= {of};")

    def wire(self, name: str, bits: int, value: str, *, is_signed: bool = False) -> None:
        self.lines.append(f"wire {'signed ' if is_signed else ''}[{bits - 1}:0] {name} = {value};")

    def assume(self, condition: str) -> None:
        self.lines.append(f"always @* assume ({condition});")

    def claim(self, name: str, condition: str) -> None:
        """An assertion; several may make up the property `name`. Dashes stand for the underscores of its label."""
        if name not in self.properties:
            self.properties.append(name)
        count = sum(line.count(f" {label(name)}__") for line in self.lines)
        self.lines.append(f"always @* begin {label(name)}__{count}: assert ({condition}); end")

    def text(self) -> str:
        """The whole Verilog of module `harness`."""
        ports = self.ports
        head = [
            f"module harness(input clk, input rst, input step_valid, input [{ports.step_bits - 1}:0] step_payload,",
            "  input sum_ready);",
            *(f"wire [{bits - 1}:0] {name};" for name, bits in self._outputs().items()),
            "reg started = 0; always @(posedge clk) started <= 1;",
            "always @* assume (started || rst);",
            f"wire first = step_payload[{ports.first}], last = step_payload[{ports.last}];",
            "wire stall = sum_valid && !sum_ready;",
            "wire taken = step_valid && step_ready && !rst;",
            "reg waiting = 0; always @(posedge clk) waiting <= step_valid && !step_ready && !rst;",
            f"reg [{ports.step_bits - 1}:0] offered = 0; always @(posedge clk) offered <= step_payload;",
            "always @* assume (!waiting || rst || (step_valid && step_payload == offered));",
        ]
        if not self.stalls:
            head.append("always @* assume (rst || !stall);")
        return "\n".join([*head, *self.lines, self._instance(), "endmodule", ""])

    def _outputs(self) -> dict[str, int]:
        """Wires of the harness that the PE drives, and their widths."""
        ports = {"step_ready": 1, "sum_valid": 1, "sum_payload": self.ports.sum_bits}
        return {**ports, **{shown(name): bits for name, bits in self.exposed.items()}}

    def _instance(self) -> str:
        streams = ("step_valid", "step_ready", "step_payload", "sum_valid", "sum_ready", "sum_payload")
        ties = [f".{self.ports.wire(name)}({name})" for name in streams]
        ties += [f".\\{name} ({shown(name)})" for name in self.exposed]
        ties += [f".{name}({value})" for name, value in self.driven.items()]
        return f"dut pe (.clk(clk), .rst(rst), {', '.join(ties)});"


def shown(wire: str) -> str:
    """How the harness calls an exposed wire of the PE."""
    return "pe_" + "".join(letter if letter.isalnum() else "_" for letter in wire)


def label(name: str) -> str:
    return name.replace("-", "_")
