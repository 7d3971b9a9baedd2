"""Cycle models of the two array cells, for protocol tests: the cells' rules in Python over the golden arithmetic."""

from __future__ import annotations

import abc
from collections.abc import Mapping

from bitwright.arch.pe import PESpec
from bitwright.rtl.bench.cell_bench import from_bits, to_bits

State = dict[str, int | None]


class CellModel(abc.ABC):
    """One cell, stepped a cycle at a time; all values are bit patterns, and None is an unknown one.

    `state` holds what the cell's outputs show in this cycle, and its inner registers.
    """

    control: tuple[str, ...]
    data: tuple[str, ...]

    def __init__(self, spec: PESpec) -> None:
        self.spec = spec
        self.state: State = dict.fromkeys((*self.control, *self.data))

    def outputs(self) -> State:
        """What the output ports show now; None where it cannot be known."""
        return {name: value for name, value in self.state.items() if name.endswith("_out")}

    def step(self, inputs: Mapping[str, int]) -> None:
        """The rising clock edge after a cycle with these inputs."""
        self.state = {**self.next_state(inputs), **(dict.fromkeys(self.control, 0) if inputs["rst"] else {})}

    @abc.abstractmethod
    def next_state(self, inputs: Mapping[str, int]) -> State:
        """All registers after the edge, reset not considered."""

    def mac(self, acc: int | None, act: int, wgt: int | None, inputs: Mapping[str, int]) -> int | None:
        """The golden sum of bit patterns; unknown when an operand is."""
        if acc is None or wgt is None:
            return None
        mode = {"wgt_unsigned": inputs["wgt_unsigned"]} if "wgt_unsigned" in inputs else {}
        spec = self.spec
        operands = from_bits(spec.psum, acc), from_bits(spec.act, act), from_bits(spec.wgt, wgt)
        return int(to_bits(spec.psum, spec.accumulate(*operands, **mode)))


class WeightStationaryModel(CellModel):
    """The rules in the docstring of rtl.pe.cells.WeightStationaryCell."""

    control = ("act_valid_out", "act_swap_out", "wgt_load_out")
    data = ("act_out", "psum_out", "shadow", "active")

    def next_state(self, inputs: Mapping[str, int]) -> State:
        weight = self.state["shadow"] if inputs["act_swap"] else self.state["active"]
        psum: int | None = inputs["psum_in"]
        if inputs["act_valid"]:
            psum = self.mac(psum, inputs["act"], weight, inputs)
        return {
            "act_valid_out": inputs["act_valid"],
            "act_swap_out": inputs["act_swap"],
            "wgt_load_out": inputs["wgt_load"],
            "act_out": inputs["act"],
            "psum_out": psum,
            "shadow": inputs["wgt"] if inputs["wgt_load"] else self.state["shadow"],
            "active": weight,
        }


class OutputStationaryModel(CellModel):
    """The rules in the docstring of rtl.pe.cells.OutputStationaryCell."""

    control = ("act_valid_out", "act_first_out", "act_last_out", "drain_shift_out")
    data = ("act_out", "wgt_out", "drain_out", "acc")

    def next_state(self, inputs: Mapping[str, int]) -> State:
        acc, drain = self.state["acc"], self.state["drain_out"]
        if inputs["act_valid"]:
            start = int(to_bits(self.spec.psum, self.spec.zero())) if inputs["act_first"] else acc
            acc = self.mac(start, inputs["act"], inputs["wgt"], inputs)
        if inputs["act_valid"] and inputs["act_last"]:
            drain = acc
        elif inputs["drain_shift"]:
            drain = inputs["drain_in"]
        return {
            "act_valid_out": inputs["act_valid"],
            "act_first_out": inputs["act_first"],
            "act_last_out": inputs["act_last"],
            "drain_shift_out": inputs["drain_shift"],
            "act_out": inputs["act"],
            "wgt_out": inputs["wgt"],
            "drain_out": drain,
            "acc": acc,
        }


def cell_model(spec: PESpec, dataflow: str) -> CellModel:
    """The cycle model of the spec's cell for a dataflow."""
    return WeightStationaryModel(spec) if dataflow == "ws" else OutputStationaryModel(spec)
