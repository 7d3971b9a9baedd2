"""`bitwright generate MACHINE`: the accelerator's Verilog is plain, lint-clean, and has each part once."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from bitwright.arch import machine
from bitwright.arch.isa.limits import limits
from bitwright.rtl.accelerator.top import verilog
from bitwright.rtl.bench.verilator import lint
from bitwright.rtl.generation import design_of


def instances(text: str) -> Counter[str]:
    """How often each module is instantiated."""
    return Counter(re.findall(r"^  (\w+) \w+ \($", text, re.MULTILINE))


def modules(text: str) -> Counter[str]:
    return Counter(re.findall(r"^module (\w+)\(", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["int8-4x4", "shift-add-3x4-os", "fp16-4x3", "bit-serial-3x4"])
def test_verilog_is_plain_lint_clean_and_read_without_sv(name: str, tmp_path: Path) -> None:
    design = design_of(name)
    assert lint(design.text(), design.module, waivers=()) == []
    code = "\n".join(line for line in design.text().splitlines() if not line.startswith("//"))
    assert "\\" not in code
    assert set(re.findall(r"\$\w*", code)) <= {"$signed", "$unsigned"}
    ports = {port["name"] for port in design.sidecar()["ports"]}
    assert {"clk", "rst", "irq", "running", "m_axi_arvalid", "m_axi_wstrb", "s_axil_awaddr", "s_axil_rdata"} <= ports
    if shutil.which("iverilog"):
        path = tmp_path / "x.v"
        path.write_text(design.text())
        done = subprocess.run(["iverilog", "-g2001", "-t", "null", str(path)], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
    assert verilog(limits(machine.load(name)))[1] == design.verilog


def test_every_distinct_part_is_emitted_once() -> None:
    lim = limits(machine.load("int8-5x6"))
    _, text = verilog(lim)
    assert set(modules(text).values()) == {1}
    used = instances(text)
    assert used["int8_mac_ws"] == 30
    assert used["vector_lane"] == 4
    assert [used[name] for name in used if name.startswith("column_decoder_int8_mac")][:1] == [6]
    assert used["group_dequantiser_p32"] == 6
    assert set(used) <= set(modules(text))


def test_large_memories_are_modules_of_their_own() -> None:
    """What synthesis replaces by a macro: a write port and a read port with enables."""
    lim = limits(machine.load("int8-4x4"))
    _, text = verilog(lim)
    sizes = {tuple(map(int, size)) for size in re.findall(r"^module memory_(\d+)x(\d+)\(", text, re.MULTILINE)}
    assert (lim.acc_rows, 32 * lim.cols) in sizes
    assert (lim.out_beats, 8 * lim.port_bytes) in sizes
