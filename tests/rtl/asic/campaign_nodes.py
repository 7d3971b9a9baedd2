"""`make campaign-nodes`: static timing on the Liberty files that LIBERTY names (plain, .gz, .xz; separated by blanks),
against OpenSTA; and the netlist of bit-serial under energy measurement, whose simulation takes a minute.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.rtl.asic import bit_serial_work, cells, stream_stimulus
from bitwright.rtl.asic.activity import NetlistSimulator
from bitwright.rtl.asic.choice import surroundings, wired_library
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import Netlist
from bitwright.rtl.asic.stimulus import ACTIVE, IDLE, PASS
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.asic.timing import Conditions, analyse
from bitwright.rtl.pe import streaming

FILES = [Path(name) for name in os.environ.get("LIBERTY", "").split()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("pe", ["shift-add", "int8-mac", "opt1", "fp16-mac"])
def test_period_is_within_5_percent_of_opensta(
    pe: str, path: Path, opensta_period_ns: Callable[[Netlist, Library, Conditions], float]
) -> None:
    if shutil.which("sta") is None:
        pytest.skip("OpenSTA is not installed (apt-get install opensta)")
    library = wired_library(path)
    conditions = replace(surroundings(library)[1], input_cell="")
    spec = cells.stream_spec(pe)
    made = synthesize_verilog(streaming.verilog(spec), spec.module_stem, path, period_ps=4000)
    ours = analyse(made.netlist, library, conditions).min_period_ns
    theirs = opensta_period_ns(made.netlist, library, conditions)
    print(f"{path.name} {pe}: {ours:.4f} ns, OpenSTA {theirs:.4f} ns, {100 * (ours / theirs - 1):+.2f} %")
    assert ours == pytest.approx(theirs, rel=0.05)


def test_bit_serial_makes_its_sums_then_stands_still(liberty: Path, nangate45: Library) -> None:
    """Every lane: channels that are taken, then some whose sums wait; a slice of two terms every two cycles."""
    spec = cells.stream_spec("bit-serial")
    assert isinstance(spec, BitSerial)
    work = bit_serial_work.bit_serial_work(spec, random=False)
    made = synthesize_verilog(streaming.verilog(spec), spec.module_stem, liberty, period_ps=4000)
    outputs = ["slice__ready", "column__valid", "column__payload"]
    ports = work.stimulus.ports
    run = NetlistSimulator(made.netlist, nangate45).run(ports, bins=work.stimulus.bins, record=outputs)
    ready = ports["column__ready"] == 1
    shown = (run.outputs["column__valid"] == 1) & ready
    golden = bit_serial_work.lane_channels(spec, random=False).golden(spec).reshape(stream_stimulus.LANES, -1)
    for lane in range(stream_stimulus.LANES):
        found = run.outputs["column__payload"][shown[:, lane], lane]
        assert found[:4].tolist() == golden[lane].tolist(), lane
    bins = np.array(work.stimulus.bins)
    taken = (run.outputs["slice__ready"] == 1) & (ports["slice__valid"] == 1)
    assert taken[bins == ACTIVE].mean() == 0.5
    assert work.macs_per_cycle == 2
    assert not taken[bins == PASS].any()
    assert (run.outputs["column__valid"][bins == PASS] == 1).all()
    assert not run.outputs["column__valid"][bins == IDLE].any()


def test_bit_serial_is_done_before_a_neighbours_slices_pass(liberty: Path, nangate45: Library) -> None:
    """Every slice on offer is taken in its last cycle; the first sum waits, then both are shown, golden."""
    spec = cells.stream_spec("bit-serial")
    assert isinstance(spec, BitSerial)
    stimulus = bit_serial_work.moving_stimulus(spec)
    text = cells.stream_verilog(spec, operand_isolation=True)
    made = synthesize_verilog(text, spec.module_stem, liberty, period_ps=4000)
    outputs = ["slice__ready", "column__valid", "column__payload"]
    run = NetlistSimulator(made.netlist, nangate45).run(stimulus.ports, bins=stimulus.bins, record=outputs)
    bins, offered = np.array(stimulus.bins), stimulus.ports["slice__valid"][:, 0] == 1
    taken = (run.outputs["slice__ready"] == 1)[offered]
    assert not taken[::2].any()
    assert taken[1::2].all()
    assert (run.outputs["column__valid"][bins == PASS] == 1).all()
    assert not run.outputs["column__valid"][bins == IDLE].any()
    golden = bit_serial_work.lane_channels(spec, random=False).golden(spec).reshape(stream_stimulus.LANES, -1)
    shown = (run.outputs["column__valid"] == 1) & (stimulus.ports["column__ready"] == 1)
    for lane in range(stream_stimulus.LANES):
        assert run.outputs["column__payload"][shown[:, lane], lane].tolist() == golden[lane, :2].tolist(), lane
