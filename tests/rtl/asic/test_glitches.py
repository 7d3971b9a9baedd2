"""Toggles with cell delays: pulses counted by hand, swallowed when too short, and the registers of a whole PE."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch.errors import MismatchError
from bitwright.rtl.asic import cells, glitches
from bitwright.rtl.asic.choice import surroundings
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import Instance, Netlist, Port
from bitwright.rtl.asic.stimulus import ACTIVE, UNCOUNTED
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.pe import streaming

pytestmark = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")

HAZARD = Netlist(
    "hazard",
    {
        "clk": Port("clk", False, (2,)),
        "a": Port("a", False, (3,)),
        "z": Port("z", True, (6,)),
        "q": Port("q", True, (7,)),
    },
    (
        Instance("one", "INV_X1", {"A": 3, "ZN": 4}),
        Instance("two", "INV_X1", {"A": 4, "ZN": 5}),
        Instance("both", "XOR2_X1", {"A": 3, "B": 5, "Z": 6}),
        Instance("register", "DFF_X1", {"CK": 2, "D": 3, "Q": 7, "QN": 8}),
    ),
    9,
)
BINS = (UNCOUNTED, ACTIVE, ACTIVE, ACTIVE, ACTIVE, ACTIVE)


@pytest.mark.parametrize(("xor_ps", "pulses"), [(5, 4), (19, 4), (21, 0)])
def test_a_hazard_makes_a_pulse_unless_it_is_too_short(xor_ps: int, pulses: int, nangate45: Library) -> None:
    """a XOR (a, 20 ps later): one pulse a change of a, if the XOR is quicker than that. a changes 4 times."""
    ports = {"a": np.array([[0], [1], [1], [0], [1], [0]])}
    delays = {4: (10, 10), 5: (10, 10), 6: (xor_ps, xor_ps), 7: (3, 3), 8: (3, 3)}
    rises, falls = glitches.simulate(HAZARD, nangate45, delays, ports, BINS, period_ps=1000, input_ps=10)
    assert (rises[3], falls[3]) == (rises[5], falls[5]) == (falls[4], rises[4]) == (2, 2)
    assert (rises[6], falls[6]) == (pulses, pulses)
    assert (rises[7], falls[7]) == (2, 1)  # a cycle later: the last change is not taken any more
    assert (falls[8], rises[8]) == (2, 1)


def test_a_whole_pe_moves_more_with_delays_and_its_registers_the_same(liberty: Path, nangate45: Library) -> None:
    spec = cells.stream_spec("shift-add")
    netlist = synthesize_verilog(streaming.verilog(spec), spec.module_stem, liberty, period_ps=4000).netlist
    stimulus = cells.stream_works(spec)[0].stimulus
    conditions = surroundings(nangate45)[1]
    found = glitches.measure(netlist, nangate45, conditions, stimulus, period_ps=4000, lanes=1)
    assert 1.2 < found.total_ratio < found.energy_ratio < found.toggle_ratio
    with pytest.raises(
        MismatchError, match=r"^net n\d+ of \w+, lane 0: \d+ rises with delays, \d+ without \(is it slower"
    ):
        glitches.measure(netlist, nangate45, conditions, stimulus, period_ps=600, lanes=1)
