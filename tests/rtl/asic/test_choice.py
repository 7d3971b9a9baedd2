"""Cells and conditions of a user's library: the rules on Nangate45 and on parts of it, packed files, refusals."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Collection
from pathlib import Path

import pytest
from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic.choice import (
    INV_X1_FF,
    INV_X1_FO4_NS,
    NAND2_X1_UM2,
    NANGATE45_WIRE,
    Boundary,
    chosen,
    fanout_of_four_ns,
    surroundings,
    wired_library,
)
from bitwright.rtl.asic.liberty import Library, Table, read_library
from bitwright.rtl.asic.synthesis import synthesize_verilog
from bitwright.rtl.asic.timing import Conditions, analyse
from typer.testing import CliRunner

COMBINATIONAL = ("INV_X1", "INV_X2", "BUF_X1", "BUF_X2", "NAND2_X1", "NOR2_X1", "XOR2_X1", "AOI21_X1", "OAI21_X1")


def part(liberty: Path, cells: Collection[str]) -> str:
    """The text of Nangate45 with some of its cells only."""
    head, *found = re.split(r"(?=\n[ \t]*cell \(\w+\) \{)", liberty.read_text())
    kept = [cell for cell in found if re.search(r"cell \((\w+)\)", cell).group(1) in cells]  # type: ignore[union-attr]
    assert len(kept) == len(cells)
    return head + "".join(cell.rstrip().removesuffix("}") if cell is found[-1] else cell for cell in kept) + "\n}\n"


def test_the_rules_find_what_nangate45_has_always_been_given(nangate45: Library) -> None:
    choice = chosen(nangate45)
    assert (choice.inverter, choice.nand, choice.clock_gate) == ("INV_X1", "NAND2_X1", "CLKGATE_X1")
    assert (choice.tie_high, choice.tie_low) == (("LOGIC1_X1", "Z"), ("LOGIC0_X1", "Z"))
    assert not choice.ties_flip_flops
    assert surroundings(nangate45) == (Boundary(), Conditions())


def test_the_constants_are_nangate45s(nangate45: Library) -> None:
    assert nangate45.cell("INV_X1").inputs[0].capacitance_ff == pytest.approx(INV_X1_FF, rel=1e-5)
    assert fanout_of_four_ns(nangate45, "INV_X1") == pytest.approx(INV_X1_FO4_NS, rel=1e-5)
    assert nangate45.cell("NAND2_X1").area_um2 == NAND2_X1_UM2
    for fanout in range(1, 15):
        assert nangate45.wire_load.capacitance_ff(fanout) == pytest.approx(NANGATE45_WIRE.capacitance_ff(fanout))


def test_a_library_without_wire_load_gets_one_by_its_cells_size(liberty: Path, tmp_path: Path) -> None:
    text = part(liberty, (*COMBINATIONAL, "DFF_X1"))
    (tmp_path / "bare.lib").write_text(
        re.sub(r"default_wire_load\s*:[^;]*;", "", text).replace(": 0.798000;", ": 3.192;")  # every side twice as long
    )
    wire = wired_library(tmp_path / "bare.lib").wire_load
    for fanout in (1, 4, 20):
        assert wire.capacitance_ff(fanout) == pytest.approx(2 * NANGATE45_WIRE.capacitance_ff(fanout))


@pytest.mark.parametrize(("name", "pack"), [("a.lib.gz", gzip.compress), ("a.lib.xz", lzma.compress)])
def test_packed_files_read_the_same(name: str, pack, liberty: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plain, packed = tmp_path / "a.lib", tmp_path / name
    plain.write_text(part(liberty, (*COMBINATIONAL, "DFF_X1")))
    packed.write_bytes(pack(plain.read_bytes()))
    assert read_library(packed).sha256 == read_library(plain).sha256
    assert chosen(read_library(packed)) == chosen(read_library(plain))
    packed.write_bytes(packed.read_bytes()[:1000])
    read_library.cache_clear()
    with pytest.raises(ConfigError, match=rf"^library file = {re.escape(name)}: cannot unpack it: "):
        read_library(packed)


def test_flip_flops_with_a_reset_only_have_it_tied_off(liberty: Path, mac_verilog: str, tmp_path: Path) -> None:
    path = tmp_path / "resets.lib"
    path.write_text(part(liberty, (*COMBINATIONAL, "DFFR_X1", "LOGIC0_X1", "LOGIC1_X1")))
    library = wired_library(path)
    assert chosen(library).ties_flip_flops
    made = synthesize_verilog(mac_verilog, "mac", path, period_ps=4000)
    high = [instance for instance in made.netlist.instances if instance.cell == "LOGIC1_X1"]
    registers = [instance for instance in made.netlist.instances if instance.cell == "DFFR_X1"]
    assert len(high) == 1
    assert len(registers) == made.area.sequential_cells == 56
    assert {instance.pins["RN"] for instance in registers} == {high[0].pins["Z"]}
    assert analyse(made.netlist, library, surroundings(library)[1]).min_period_ns > 0


def test_rails_are_added_and_states_are_not() -> None:
    """As ASAP7 states power: by supply rail, and leakage by rail and state; a continued line inside."""
    text = """library (two) { time_unit : "1ps"; voltage_unit : "1V"; leakage_power_unit : "1pW"; nom_voltage : 1;
      capacitive_load_unit (1, ff);
      power_lut_template (p) { variable_1 : input_transition_time; index_1 ("10, 20"); }
      cell (INV) { area : 1
        statetable ("A", "X") { \\
          table : "L : - : H"; }
        leakage_power () { value : 6; when : "A"; related_pg_pin : VDD; }
        leakage_power () { value : 1; when : "A"; related_pg_pin : VSS; }
        leakage_power () { value : 2; when : "!A"; related_pg_pin : VDD; }
        pin (A) { direction : input; capacitance : 1; }
        pin (Y) { direction : output; function : "!A";
          internal_power () { related_pin : "A"; related_pg_pin : VDD;
            rise_power (p) { values ("3, 5"); } fall_power (scalar) { values ("-1"); } }
          internal_power () { related_pin : "A"; related_pg_pin : VSS;
            rise_power (scalar) { values ("1"); } fall_power (p) { values ("2, 4"); } }
          internal_power () { related_pin : "A"; when : "A"; related_pg_pin : VDD;
            rise_power (scalar) { values ("9"); } fall_power (scalar) { values ("9"); } } } } }"""
    cell = Library(text, where="two.lib", sha256="").cell("INV")
    assert cell.leakage_nw == pytest.approx((7 + 2) / 2 / 1e3)
    both, other = cell.pins["Y"].power
    assert (both.rise.at(0.010), both.rise.at(0.020), both.fall.at(0.010), both.fall.at(0.020)) == (4, 6, 1, 3)
    assert other.rise.at(0.010) == 9


def test_tables_on_other_grids_add_exactly() -> None:
    one = Table((1.0, 3.0), (10.0, 30.0), ((0.0, 4.0), (2.0, 9.0)))
    two = Table((1.0, 2.0, 3.0), (20.0,), ((1.0,), (5.0,), (2.0,)))
    for slew in (1.0, 1.5, 2.0, 2.75, 3.0):
        for load in (10.0, 17.0, 30.0):
            assert one.plus(two).at(slew, load) == pytest.approx(one.at(slew, load) + two.at(slew, load))


UNITS = ("time_unit", "voltage_unit", "leakage_power_unit", "capacitive_load_unit", "nom_voltage")


@pytest.mark.parametrize("name", UNITS)
def test_a_library_without_units_is_refused_and_nothing_printed(name: str, liberty: Path, tmp_path: Path) -> None:
    from bitwright.cli.main import app

    path = tmp_path / "bad.lib"
    text = part(liberty, (*COMBINATIONAL, "DFF_X1"))
    path.write_text(re.sub(rf"\n\s*{name}\s*[:(][^;]*;", "", text, count=1))
    done = CliRunner().invoke(app, ["synthesize", "int8-mac", "--liberty", str(path), "--json"])
    assert done.stdout == ""
    message = f"bad.lib: the library group states no {name}: no figure can be read without it"
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == message


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("NAND2_X1",), "no inverter, no buffer, no flip-flop with a rising clock and one data input"),
        (("INV_X1", "BUF_X1", "AOI21_X1", "DFF_X1"), "no two-input NAND or NOR"),
        (("INV_X1", "BUF_X1", "NOR2_X1", "SDFF_X1"), "no flip-flop with a rising clock and one data input"),
        (
            ("INV_X1", "BUF_X1", "NOR2_X1", "DFFR_X1"),
            "no tie cells, and every flip-flop has an asynchronous input to tie off",
        ),
    ],
)
def test_a_library_without_the_cells_is_refused(
    cells: tuple[str, ...], message: str, liberty: Path, mac_verilog: str, tmp_path: Path
) -> None:
    path = tmp_path / "few.lib"
    path.write_text(part(liberty, cells))
    with pytest.raises(ConfigError) as caught:
        synthesize_verilog(mac_verilog, "mac", path, period_ps=4000)
    assert str(caught.value) == f"few.lib: {message}: synthesis needs them (give a whole library)"


@pytest.mark.parametrize(
    ("name", "other"), [("capacitive_load_unit", ("(1,ff)", "(1,uF)")), ("time_unit", ('"1ns"', '"1s"'))]
)
def test_a_unit_that_no_inverter_has_is_refused(
    name: str, other: tuple[str, str], liberty: Path, tmp_path: Path
) -> None:
    text = part(liberty, ("INV_X1", "BUF_X1", "BUF_X2", "NAND2_X1", "DFF_X1", "LOGIC0_X1", "LOGIC1_X1"))
    assert other[0] in text
    (tmp_path / "wrong.lib").write_text(text.replace(*other))
    with pytest.raises(ConfigError) as caught:
        surroundings(read_library(tmp_path / "wrong.lib"))
    assert str(caught.value) == (
        f"wrong.lib: {name}: input capacitance or delay of INV_X1 is 1e+09 times that of Nangate45's INV_X1: must be "
        "within a factor of 1000 (the file's unit is wrong)"
    )
