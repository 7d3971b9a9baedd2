"""simulate: an option that a way to simulate would drop is refused, and so is what no program or mapping can be."""

from __future__ import annotations

from pathlib import Path

import pytest
from bitwright.arch import machine
from bitwright.arch.errors import ConfigError
from bitwright.cli.catalogue import Catalogue
from bitwright.cli.main import app
from bitwright.rtl import generate, synthesize
from typer.testing import CliRunner

MODEL = ["simulate", "int8-4x4", "smollm2-135m"]
GEMM = ["simulate", "int8-4x4", "--gemm", "4,4,4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*MODEL, "--engine", "fast", "--head", "int4"], "--head = int4: not an option of --engine"),
        ([*MODEL, "--engine", "fast", "--dram", "hbm2"], "--dram = hbm2: not an option of --engine"),
        ([*MODEL, "--engine", "fast", "--timeline", "run.json"], "--timeline = run.json: not an option of --engine"),
        ([*GEMM, "--acts", "fp16"], "--acts = fp16: not an option of --gemm"),
        ([*GEMM, "--prompt-tokens", "128"], "--prompt-tokens = 128: not an option of --gemm"),
        ([*MODEL, "--memory-latency", "5"], "--memory-latency = 5: not an option of MODEL without --engine"),
    ],
)
def test_an_option_that_would_be_dropped_is_refused(arguments: list[str], message: str) -> None:
    ran = CliRunner().invoke(app, arguments)
    assert str(ran.exception) == f"{message}; leave it out; the command line"
    assert isinstance(ran.exception, ConfigError)


def test_a_product_longer_than_any_program_is_refused_at_once() -> None:
    ran = CliRunner().invoke(app, ["simulate", "int8-4x4", "--gemm", "100000000000,4,4"])
    assert str(ran.exception).startswith("100000000000 x 4 x 4: at least 195312500 instructions, and a program has")


@pytest.mark.parametrize("clock_mhz", [float("nan"), float("inf"), 1e-300, 0, -1])
def test_a_clock_that_no_mapping_has_is_refused(clock_mhz: float) -> None:
    with pytest.raises(ConfigError) as caught:
        synthesize("int8-mac", clock_mhz=clock_mhz)
    assert str(caught.value) == f"clock_mhz = {clock_mhz:g}: must be 1..10000; the command line"


def test_a_node_and_a_library_are_not_both_taken() -> None:
    ran = CliRunner().invoke(app, ["synthesize", "int8-mac", "--node", "nangate45", "--liberty", "mine.lib"])
    assert str(ran.exception) == "--node = nangate45, --liberty = mine.lib: choose one; the command line"


def test_a_pe_of_arrays_is_taken_as_its_cell_or_behind_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitwright.rtl.asic import cells

    monkeypatch.setattr(cells, "synthesize", lambda name, dataflow, *_, **__: {"cell": f"{name} {dataflow}"})
    monkeypatch.setattr(cells, "synthesize_stream", lambda name, *_, **__: {"stream": name})
    assert synthesize("int8-mac")["cell"] == "int8-mac ws"
    assert synthesize("int8-mac", dataflow="os")["cell"] == "int8-mac os"
    assert synthesize("int8-mac", dataflow="stream") == {"stream": "int8-mac", "effort": "high"}
    assert synthesize("bit-serial", dataflow="stream") == synthesize("bit-serial")


def test_effort_is_high_or_low() -> None:
    ran = CliRunner().invoke(app, ["synthesize", "int8-mac", "--effort", "medium"])
    assert str(ran.exception) == "effort = medium: must be high or low; the command line"


def test_a_machines_own_file_is_not_written_over(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(text := "name: mine\npe: int8-mac\narray: {rows: 2, cols: 2}\n")
    with pytest.raises(ConfigError) as caught:
        generate(str(own), own)
    assert str(caught.value) == f"output = {own}: would be written over the machine's file {own}; choose another name"
    assert own.read_text() == text


@pytest.mark.parametrize("formats", ["[]", "[int4, int4]"])
def test_a_machine_has_formats_and_each_once(formats: str, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(f"name: mine\npe: int8-mac\narray: {{rows: 2, cols: 2}}\nformats: {formats}\n")
    with pytest.raises(ConfigError, match=r"^formats: .*mine\.yaml, line 4$"):
        machine.load(str(own))


HEAD = "name: m\npe: int8-mac\n"
ARRAY = "array: {rows: 2, cols: 2}\n"


@pytest.mark.parametrize(("text", "message"), [
    (HEAD + "array: {rows: true, cols: 2}\n", "array.rows = True: must be a number, not true; {}, line 3"),
    (f"{HEAD}{ARRAY}clock_mhz: .nan\n", "clock_mhz = nan: must be a finite number; {}, line 4"),
    (HEAD + "array: 4\n", "array = 4: must be a mapping of keys; {}, line 3"),
    (f"{HEAD}{ARRAY}formats: int4\n", "formats = 'int4': must be a list; {}, line 4"),
])  # fmt: skip
def test_a_machines_file_is_told_in_the_words_of_yaml(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        machine.load(str(path))
    assert str(caught.value) == message.format(path.name)


def test_what_is_no_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.md").write_text("")
    for name, message in (
        ("mine.md", "is a file whose name does not end in .yaml or .yml (rename it)"),
        ("lut:weight_bits=9", "is a PE; a machine has rows and columns too (such as int8-16x16, or with `pe:` and "),
    ):
        with pytest.raises(ConfigError) as caught:
            machine.load(name)
        assert str(caught.value).startswith(f"machine '{name}': {message}")


@pytest.mark.parametrize(("arguments", "message"), [
    (["list", "zz"], f"what = 'zz': cannot be listed; known: {', '.join(sorted(Catalogue))}"),
    ([*MODEL, "--perplexity-tokens", "-1"], "perplexity_tokens = -1: must be greater than or equal to 2"),
])  # fmt: skip
def test_options_are_called_as_the_command_line_calls_them(arguments: list[str], message: str) -> None:
    caught = CliRunner().invoke(app, arguments).exception
    assert isinstance(caught, ConfigError)
    assert str(caught) == f"{message}; the command line"
