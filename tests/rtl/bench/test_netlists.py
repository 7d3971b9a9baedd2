"""Netlists of library cells: the cells' Verilog, and the bench on a mapped PE, sound and damaged."""

from __future__ import annotations

import re

import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.rtl.asic.boolean import compile_expression
from bitwright.rtl.asic.liberty import library_path, read_library
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.bench.stream import bulk, netlists, stimulus
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.pe import streaming


@pytest.mark.parametrize(
    ("liberty", "verilog"),
    [("!((A1 & A2) | B)", "~((A1 & A2) | B)"), ("(A ^ B)", "(A ^ B)"), ("A * B + !C", "A & B | ~C"), ("1", "1")],
)
def test_functions_carry_over(liberty: str, verilog: str) -> None:
    assert netlists.expression(compile_expression(liberty)) == verilog


@pytest.mark.parametrize("liberty", ["A'", "A B", "A & B ^ C"])
def test_functions_that_verilog_reads_otherwise_are_refused(liberty: str) -> None:
    with pytest.raises(ConfigError) as caught:
        netlists.expression(compile_expression(liberty))
    assert str(caught.value) == (
        f"liberty expression = {liberty!r}: must use ! & | ^ and brackets only, so that it can be Verilog"
    )


def test_a_flip_flop_is_a_clocked_register() -> None:
    library = read_library(library_path("nangate45"))
    text = netlists.cell_model(library.cell("DFF_X1"))
    assert re.search(r"always @\(posedge CK\) IQ <= D;", text)
    assert re.search(r"assign QN = IQN;", text)
    with pytest.raises(ConfigError) as caught:
        netlists.cell_model(library.cell("DFFR_X1"))
    assert str(caught.value) == "cell DFFR_X1: must be combinational or a flip-flop without asynchronous reset"


def test_a_mapped_pe_passes_the_bench_with_and_without_stalls() -> None:
    found = netlists.examine(pe.stream("int8-mac", psum_bits=16), steps=2000, cycles=2000, real=False)
    assert found.registers < found.cells
    assert found.area_um2 > 100
    assert found.steps > 4000
    assert found.stalled_cycles == 2002


def test_one_wrong_cell_is_seen() -> None:
    spec = pe.stream("int8-mac", psum_bits=16)
    library = library_path("nangate45")
    mapped = synthesize_verilog(streaming.verilog(spec), spec.module_stem, library, period_ps=netlists.PERIOD_PS)
    text = netlists.with_models(mapped, read_library(library))
    assert "  XOR2_X1 " in text
    wrong = text.replace("  XOR2_X1 ", "  DAMAGED ", 1)
    wrong += "module DAMAGED(A, B, Z); input A; input B; output Z; assign Z = ~(A ^ B); endmodule\n"
    with pytest.raises(MismatchError):
        bulk.check(spec, stimulus.extreme_steps(spec, 20), design=Compiled(wrong, spec.module_stem))
