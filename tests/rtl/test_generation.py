"""`bitwright generate`: plain Verilog-2001 for every reader, a header, and the same facts as JSON."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bitwright import rtl
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.registers import c_header
from bitwright.rtl import generation
from bitwright.rtl.bench.stream.stimulus import random_steps
from bitwright.rtl.bench.verilator import lint
from bitwright.rtl.generation import design_of, packing
from bitwright.rtl.pe.emit import plain

DESIGNS = [*pe.all_names(), "int8-mac:lanes=4,pipeline=1"]
CELLS = [(name, dataflow) for name in pe.names() for dataflow in pe.get(name).dataflows]


def require_plain(text: str) -> None:
    """No escaped name anywhere, and no `$` but the two functions that Verilog-2001 has for signs."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("//"))
    assert "\\" not in code
    assert set(re.findall(r"\$\w*", code)) <= {"$signed", "$unsigned"}


def read_by_yosys(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"from pyosys import libyosys as y; y.Design().run_pass('read_verilog {path.name}')"],
        cwd=path.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


# Interface


@pytest.mark.parametrize("name", DESIGNS)
def test_verilog_of_a_pe_is_plain_lint_clean_and_read_without_sv(name: str, tmp_path: Path) -> None:
    path = rtl.generate(name, tmp_path / "x.v")
    text, facts = path.read_text(), json.loads((tmp_path / "x.json").read_text())
    require_plain(text)
    assert lint(text, facts["module"], waivers=()) == []
    assert facts["description"].splitlines()[0] in text
    assert read_by_yosys(path) == ""
    if shutil.which("iverilog"):
        done = subprocess.run(
            ["iverilog", "-g2001", "-t", "null", str(path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert rtl.generate(name, tmp_path / "y.v").read_text() == text


@pytest.mark.parametrize(("name", "dataflow"), CELLS)
def test_verilog_of_a_cell_is_plain_and_lint_clean(name: str, dataflow: str) -> None:
    design = design_of(name, dataflow=dataflow)
    require_plain(design.verilog)
    assert lint(design.verilog, design.module) == []


def test_every_parameter_is_in_the_module_name() -> None:
    """Two specs of a PE that differ in any parameter never share a module name."""
    for name in pe.stream_names():
        specs = [pe.stream(name, **params) for params in type(pe.stream(name)).variants]
        assert len({spec.module_stem for spec in specs}) == len(specs), name


def test_the_sidecar_tells_ports_fields_latency_and_reset(tmp_path: Path) -> None:
    rtl.generate("int8-mac:lanes=4,pipeline=1", tmp_path / "x.v")
    facts = json.loads((tmp_path / "x.json").read_text())
    assert facts["timing"] == {
        "latency_cycles": 2, "cycles_a_step": 1, "min_cycles_a_step": 1, "max_cycles_a_step": 1, "macs_a_step": 4,
    }  # fmt: skip
    ports = {row["name"]: row for row in facts["ports"]}
    assert ports["step__payload"] == {
        "name": "step__payload",
        "direction": "input",
        "bits": 66,
        "fields": [
            {"name": "act", "lsb": 0, "bits": 8, "lanes": 4, "signed": True},
            {"name": "wgt", "lsb": 32, "bits": 8, "lanes": 4, "signed": True},
            {"name": "first", "lsb": 64, "bits": 1, "lanes": 1, "signed": False},
            {"name": "last", "lsb": 65, "bits": 1, "lanes": 1, "signed": False},
        ],
    }
    assert sorted(ports) == [
        "clk", "rst", "step__payload", "step__ready", "step__valid", "sum__payload", "sum__ready", "sum__valid",
    ]  # fmt: skip
    assert facts["reset"]["port"] == "rst"


@pytest.mark.parametrize(
    ("name", "cycles"),
    [("bit-serial", [2, 4]), ("lut:weight_bits=3", [1, 3]), ("outlier-victim", [1, 2]), ("opt3", [1, 4])],
)
def test_the_sidecar_tells_the_fewest_and_the_most_cycles_of_a_step(name: str, cycles: list[int]) -> None:
    timing = design_of(name).timing
    assert [timing["min_cycles_a_step"], timing["max_cycles_a_step"]] == cycles
    assert isinstance(timing["cycles_a_step"], str)


def test_the_cycles_of_random_steps_are_the_range_of_every_spec() -> None:
    for name in pe.stream_names():
        for params in type(pe.stream(name)).variants:
            spec = pe.stream(name, **params)
            steps = random_steps(spec, np.ones(4000, dtype=np.int64), seed=1, corner_share=0.3)
            cycles = spec.step_cycles(steps)
            assert (cycles.min(), cycles.max()) == spec.cycles_range, spec.module_stem


@pytest.mark.parametrize("name", DESIGNS)
def test_the_fields_fill_the_payload_ports(name: str) -> None:
    design = design_of(name)
    for port in design.sidecar()["ports"]:
        fields = port.get("fields")
        if fields:
            assert sum(part["bits"] * part["lanes"] for part in fields) == port["bits"]
    assert set(design.payloads) <= {port["name"] for port in design.sidecar()["ports"]}
    assert [part["name"] for part in packing(design.payloads[min(design.payloads)])]


def test_plain_names_never_meet() -> None:
    text = "wire n1;\nwire \\$1 ;\nwire \\$2 ;\nwire \\small ;\nwire \\a.b[3] ;\nwire a_b_3;\nassign \\$1 = \\small ;"
    assert plain(text) == (
        "wire n1;\nwire n1_ ;\nwire n2 ;\nwire small_ ;\nwire a_b_3_ ;\nwire a_b_3;\nassign n1_ = small_ ;"
    )


# Errors


@pytest.mark.parametrize(
    ("name", "dataflow", "message"),
    [
        ("int8-mac:lanes=0", None, "int8-mac lanes = 0: must be in 1..64"),
        ("int8-mac:lanes=x", None, "int8-mac.lanes = 'x': must be an integer"),
        ("int8-mac:4", None, "pe = 'int8-mac:4': '4' must be parameter=value (such as pipeline=1)"),
        (
            "int8-mac:lane=4",
            None,
            "int8-mac.lane: no such parameter (did you mean 'lanes'? (known: lanes, pipeline, psum_bits, weight_bits))",
        ),
        ("lut", "ws", "lut dataflow = 'ws': this PE has none, it takes streams (leave the option out)"),
        ("int8-8x8-os", "ws", "int8-8x8-os dataflow = 'ws': a machine has its own (leave the option out)"),
        ("int8-mac", "is", "int8-mac dataflow = 'is': no such cell (known: os, ws)"),
    ],
)
def test_wrong_names_get_one_message(name: str, dataflow: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        design_of(name, dataflow=dataflow)
    assert str(caught.value) == message


def test_an_unknown_design_is_looked_for_among_pes_and_machines() -> None:
    with pytest.raises(ConfigError, match=r"^design = 'int8-mak': no such PE or machine \(did you mean 'int8-mac'\?"):
        design_of("int8-mak")


@pytest.mark.parametrize(("suffix", "what"), [(".json", "the ports"), (".h", "the registers")])
def test_an_output_named_as_what_comes_beside_it_is_refused(tmp_path: Path, suffix: str, what: str) -> None:
    path = tmp_path / f"x{suffix}"
    with pytest.raises(ConfigError) as caught:
        rtl.generate("int8-mac", path)
    assert str(caught.value) == f"output = {path}: {suffix} is for {what} beside it; choose another suffix (.v)"


def test_an_output_that_can_be_no_file_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "design_of", None)
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none" / "x.v", "No such directory")):
        with pytest.raises(ConfigError) as caught:
            rtl.generate("int8-mac", path)
        assert str(caught.value) == f"output = {path}: cannot be written ({reason}); choose another path"


def test_a_file_of_somebody_else_beside_the_output_is_kept(tmp_path: Path) -> None:
    path, other = tmp_path / "x.v", tmp_path / "x.json"
    other.write_text('{"mine": 1}')
    with pytest.raises(ConfigError) as caught:
        rtl.generate("int8-mac", path)
    message = f"output = {path}: {other} beside it is not bitwright's; move it or choose another name"
    assert (str(caught.value), other.read_text(), path.exists()) == (message, '{"mine": 1}', False)
    other.unlink()
    for _ in range(2):  # its own files are written over
        rtl.generate("int8-mac", path)


def test_a_machine_comes_with_the_header_of_its_registers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = dataclasses.replace(design_of("int8-mac"), kind="accelerator")  # the same files, sooner
    monkeypatch.setattr(generation, "design_of", lambda *_, **__: design)
    rtl.generate("int8-4x4", tmp_path / "x.v")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.h", "x.json", "x.v"]
    assert (tmp_path / "x.h").read_text() == c_header()
