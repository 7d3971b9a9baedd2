"""Synthesis: the same netlist every time, areas that add up, provenance, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError, ToolError
from bitwright.rtl.asic import synthesis
from bitwright.rtl.asic.activity import NetlistSimulator
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.synthesis import EFFORTS, GENERIC, MAPPING, SCRIPT, sha256_text, synthesize_verilog


def test_the_same_text_gives_the_same_netlist(liberty: Path, nangate45: Library, mac_verilog: str) -> None:
    first, second = (synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000) for _ in range(2))
    assert first.netlist == second.netlist
    area = first.area
    assert area.sequential_cells == 8 + 8 + 8 + 32
    assert area.total_um2 == area.combinational_um2 + area.sequential_um2
    by_hand = sum(nangate45.cell(instance.cell).area_um2 for instance in first.netlist.instances)
    assert area.total_um2 == pytest.approx(by_hand)


def test_provenance_names_everything(liberty: Path, nangate45: Library, mac_verilog: str) -> None:
    found = synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000).provenance
    assert found.rtl_sha256 == sha256_text(mac_verilog)
    assert (found.library_sha256, found.period_ps) == (nangate45.sha256, 4000)
    assert len(found.script) == len(SCRIPT) + len(GENERIC) + len(MAPPING)
    assert "synth -noabc -flatten -booth -top mac" in found.script
    assert "upsize -D 3000" in found.script
    assert found.tool.startswith("pyosys 0.70 (0.70")


def test_verilog_errors_reach_the_caller(liberty: Path) -> None:
    with pytest.raises(ToolError) as caught:
        synthesize_verilog("module m(input a); assign b = ; endmodule", "m", liberty, period_ps=4000)
    assert str(caught.value) == "yosys: module m: status 1: rtl.v:1: ERROR: syntax error, unexpected ';'"


def test_latches_and_asynchronous_resets_are_refused(liberty: Path) -> None:
    latch = "module m(input en, input d, output reg q); always @* if (en) q = d; endmodule"
    with pytest.raises(ConfigError, match=r"^cell \S+ = DLH_X1: latches are not modelled; module m$"):
        synthesize_verilog(latch, "m", liberty, period_ps=4000)
    reset = "module m(input c, input r, input d, output reg q);"
    reset += " always @(posedge c, posedge r) if (r) q <= 0; else q <= d; endmodule"
    with pytest.raises(ConfigError, match=r"^cell \S+ = DFFR_X1: asynchronous reset is not modelled; module m$"):
        synthesize_verilog(reset, "m", liberty, period_ps=4000)


def test_low_effort_leaves_the_generic_pass_out_and_computes_the_same(
    liberty: Path, nangate45: Library, mac_verilog: str
) -> None:
    high, low = (synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000, effort=each) for each in EFFORTS)
    more = ["abc -script generic.abc", "opt -fast", *GENERIC]
    assert sorted(high.provenance.script) == sorted([*low.provenance.script, *more])
    assert low.netlist != high.netlist
    rng = np.random.default_rng(1)
    inputs = {name for name, port in high.netlist.ports.items() if not port.is_output} - {"clk"}
    stimulus = {name: rng.integers(0, 256, (64, 64)) for name in inputs}
    outputs = [name for name, port in high.netlist.ports.items() if port.is_output]
    runs = [
        NetlistSimulator(each.netlist, nangate45).run(stimulus, bins=[-1] * 64, record=outputs) for each in (high, low)
    ]
    for name in outputs:
        assert (runs[0].outputs[name] == runs[1].outputs[name]).all()
        assert runs[0].outputs[name].any()


def test_bad_arguments_are_refused(liberty: Path, tmp_path: Path, mac_verilog: str) -> None:
    with pytest.raises(ConfigError) as caught:
        synthesize_verilog(mac_verilog, "mac", liberty, period_ps=0)
    assert str(caught.value) == "period_ps = 0: must be positive"
    with pytest.raises(ConfigError) as missing:
        synthesize_verilog(mac_verilog, "mac", tmp_path / "no.lib", period_ps=4000)
    assert str(missing.value) == "library file = no.lib: there is no such file (give the path of a Liberty file)"
    with pytest.raises(ToolError) as late:
        synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000, timeout_s=0.01)
    assert str(late.value) == "yosys: module mac took longer than 0.01 s (raise timeout_s)"


def test_missing_pyosys_says_how_to_install_it(
    liberty: Path, mac_verilog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise synthesis.PackageNotFoundError(name)

    monkeypatch.setattr(synthesis, "version", missing)
    with pytest.raises(ToolError) as caught:
        synthesize_verilog(mac_verilog, "mac", liberty, period_ps=4000)
    assert str(caught.value) == "yosys: pyosys is not installed (python -m pip install pyosys==0.70)"
