"""AMD boards: what is written for Vivado, the clock manager's settings, and the estimate's counting."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from bitwright import fpga
from bitwright.arch import machine as machines
from bitwright.arch.errors import ConfigError, ToolError
from bitwright.fpga import boards, vivado
from bitwright.fpga.pll import amd_mmcm
from bitwright.fpga.wrapping import TOP

AMD = [name for name in boards.names() if boards.get(name).amd]


@pytest.fixture(scope="module")
def arty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("amd")
    return fpga.build(machines.load("int8-2x2"), "arty-a7-100t", folder, array=True)


def test_every_cell_of_an_ultrascale_part_is_known(tmp_path: Path) -> None:
    """Yosys gives it the 7-series' CARRY4, and DSP48E2."""
    row = fpga.build(machines.load("int8-2x2"), "zcu104", tmp_path, array=True)
    assert row["utilisation"]["DSP"] == {"used": 4, "available": 1728}


def test_there_are_two() -> None:
    assert AMD == ["arty-a7-100t", "zcu104"]


@pytest.mark.parametrize("name", AMD)
@pytest.mark.parametrize("array", [True, False])
def test_pins_are_those_of_the_top_and_scripts_name_what_is_there(name: str, array: bool) -> None:
    board = boards.get(name)
    files = vivado._files(machines.load("int8-2x2"), board, array)
    header = re.search(rf"module {TOP}\((.*?)\);", files["design.v"], re.S)
    assert header is not None
    ports = set(re.findall(r"(pad_\w+)", header[1]))
    constrained = {
        port.partition("[")[0] for port in re.findall(r"PACKAGE_PIN.*get_ports \{(.*?)\}", files["board.xdc"])
    }
    assert constrained == ports
    clock = {"arty-a7-100t": "create_clock -period 10.000 [get_ports {pad_clk}]"}
    assert clock.get(name, "create_clock -period 8.000 [get_ports {pad_clk_p}]") in files["board.xdc"].splitlines()
    scripts = [file for file in files if file.endswith(".tcl")]
    assert scripts == (["build.tcl"] if array else ["build.tcl", "package_ip.tcl"])
    for script in scripts:
        assert set(re.findall(r"^read_\w+ (\S+)$", files[script], re.M)) <= set(files)
        assert board.part[0] in files[script]
        assert files[script].count("{") == files[script].count("}")
        assert files[script].count("[") == files[script].count("]")
    if not array:
        (module,) = re.findall(r"set_property top (\S+) ", files["package_ip.tcl"])
        assert f"module {module}(" in files["accelerator.v"]
        assert {"m_axi_araddr", "s_axil_araddr"} <= set(re.findall(r"\w+", files["accelerator.v"]))


def test_yosys_takes_the_design_with_every_primitive_and_counts_it(arty: dict[str, object]) -> None:
    used = {kind: both["used"] for kind, both in arty["utilisation"].items()}  # type: ignore[attr-defined]
    assert used["DSP"] == 4  # of 2 x 2 int8 products
    assert 100 < used["LUT"] < 2000
    assert 100 < used["FF"] < 2000
    assert (arty["bitstream"], arty["fmax_mhz"]) == (None, None)
    assert arty["utilisation_of"] == vivado.ESTIMATE
    script = Path(str(arty["script"]))
    assert {path.name for path in script.parent.iterdir()} >= {"design.v", "board.xdc", "build.tcl", "build.json"}
    assert str(arty["next"]).endswith(f"-source {script}")


def test_the_same_design_is_not_made_again(arty: dict[str, object]) -> None:
    folder = Path(str(arty["script"])).parent
    before = (folder / "build.json").stat().st_mtime_ns
    again = fpga.build(machines.load("int8-2x2"), "arty-a7-100t", folder.parent, array=True)
    assert again == arty
    assert (folder / "build.json").stat().st_mtime_ns == before


def test_too_large_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = boards.get("arty-a7-100t")
    monkeypatch.setitem(board.capacity, "DSP", 3)
    with pytest.raises(ConfigError) as caught:
        vivado.export(machines.load("int8-2x2"), board, tmp_path, array=True)
    assert str(caught.value) == (
        "machine int8-2x2 on arty-a7-100t: needs 4 DSP of 3; take a larger board, a smaller array"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_cell_that_is_not_known_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = {"a": {"type": "LUT6"}, "b": {"type": "GTXE2_CHANNEL"}}

    def yosys(work: Path, design: object) -> None:
        (work / "design.json").write_text(json.dumps({"modules": {TOP: {"cells": cells}}}))

    monkeypatch.setattr(vivado, "yosys", yosys)
    with pytest.raises(ToolError) as caught:
        vivado.export(machines.load("int8-2x2"), boards.get("arty-a7-100t"), tmp_path, array=True)
    assert str(caught.value) == (
        "yosys: 1 cells GTXE2_CHANNEL of family xc7: not known what they take (fpga/cell_counts.py)"
    )
    assert list(tmp_path.iterdir()) == []


def test_another_yosys_and_other_rules_are_another_estimate(
    arty: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vivado, "_estimated", lambda *_: {})
    monkeypatch.setattr(vivado, "_files", lambda *_: {"design.v": ""})

    def key() -> object:
        return vivado.export(machines.load("int8-2x2"), boards.get("arty-a7-100t"), tmp_path, array=True)["script"]

    first = key()
    assert key() == first
    with monkeypatch.context() as patch:
        patch.setattr(vivado, "rules", lambda family: {})
        assert key() != first
    monkeypatch.setattr(vivado.tools, "versioned", lambda package: f"{package} 99")
    assert key() != first


@pytest.mark.parametrize(("family", "input_mhz"), [("xc7", 100), ("xcup", 125), ("xcup", 300)])
@pytest.mark.parametrize("mhz", [25, 50, 100])
def test_the_clock_manager_gives_the_clock_within_its_range(family: str, input_mhz: int, mhz: int) -> None:
    settings = amd_mmcm(family, input_mhz * 10**6, mhz * 10**6)
    assert settings.vco_hz == input_mhz * 10**6 * settings.multiply == mhz * 10**6 * settings.divider
    least, most = (600, 1200) if family == "xc7" else (800, 1600)
    assert least * 10**6 <= settings.vco_hz <= most * 10**6


def test_a_clock_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        amd_mmcm("xc7", 100_000_000, 7_000_001)
    assert str(caught.value) == "clock_hz = 7000001: the clock manager cannot make it exactly of 100000000 Hz"


def test_the_estimate_is_stored_beside_the_scripts(arty: dict[str, object]) -> None:
    stored = json.loads((Path(str(arty["script"])).parent / "build.json").read_text())
    assert stored["utilisation"] == arty["utilisation"]
