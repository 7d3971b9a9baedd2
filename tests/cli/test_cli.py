"""The front door: exit codes, one message, stdout for results and stderr for talk."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest


def bitwright(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bitwright.cli", *arguments], capture_output=True, text=True, cwd=cwd, timeout=300
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['bitwright', '--help']\n"
        "from bitwright.cli.main import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'amaranth', 'plotly', 'pandas', 'simpy', 'pydantic', 'yaml', 'rich'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_version_is_printed() -> None:
    done = bitwright("--version")
    assert (done.returncode, done.stdout.strip()) == (0, metadata.version("bitwright"))


COMMANDS = [
    "doctor", "list", "quantize", "simulate", "sweep", "report", "generate", "verify", "synthesize", "reproduce",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples(command: str) -> None:
    done = bitwright(command, "--help")
    assert done.returncode == 0
    assert done.stdout.count("bitwright " + command) >= 2


@pytest.mark.parametrize("what", ["formats", "pes", "machines", "models", "nodes", "drams", "papers"])
def test_lists_are_arrays_of_named_objects(what: str) -> None:
    done = bitwright("list", what, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows
    assert all(row["name"] for row in rows)
    assert bitwright("list", what).stdout.splitlines()[0].startswith("name")


def test_the_formats_of_a_listed_pe_are_those_of_the_parameters_beside_them() -> None:
    rows = {row["name"]: row for row in json.loads(bitwright("list", "pes", "--json").stdout)}
    row = rows["shift-add"]
    assert "zero_points=False" in row["params"]
    assert sorted({*row["cell_formats"]} - {*row["formats"]}) == ["int2_asym", "int3_asym", "int4_asym"]
    assert (row["templates"], row["dataflows"]) == (["stream", "systolic"], ["ws", "os"])
    assert rows["bit-serial"]["cell_formats"] == []


def test_simulate_prints_a_row_whose_parts_sum() -> None:
    done = bitwright("simulate", "int8-32x32", "smollm2-135m", "--prompt-tokens", "8", "--output-tokens", "2", "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    for key in (
        "cycles", "latency_ms", "ttft_ms", "tpot_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "energy_uj",
        "energy_uj_per_token", "area_mm2", "peak_memory_bytes", "schema_version",
    ):  # fmt: skip
        assert row[key] > 0, key
    causes = [row[key] for key in row if key.startswith("cycles_") and not key.startswith("cycles_op_")]
    kinds = [row[key] for key in row if key.startswith("cycles_op_")]
    assert sum(causes) == sum(kinds) == row["cycles"] == row["prefill_cycles"] + row["decode_cycles"]
    totals = ("energy_uj", "energy_uj_per_token")
    energies = [row[key] for key in row if key.startswith("energy_") and key not in totals]
    assert sum(energies) == pytest.approx(row["energy_uj"], rel=1e-12)
    areas = [row[key] for key in row if key.startswith("area_") and key != "area_mm2"]
    assert sum(areas) == pytest.approx(row["area_mm2"], rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("simulate", "int8-0x8", "smollm2-135m"),
            "array.rows = 0: must be greater than or equal to 1; machine 'int8-0x8'",
        ),
        (
            ("simulate", "int8-8x8", "smollm2-135m", "--weights", "fp16"),
            "policy.weights = 'fp16': refused by int8-mac: fp16 has no values that are int8 times a scale",
        ),
        (
            ("simulate", "int8-8x8", "smollm2-135m", "--prompt-tokens", "0"),
            "prompt_tokens = 0: must be a whole number of at least 1; the workload",
        ),
        (
            ("simulate", "int8-8x8", "smollm2-135m", "--clock-mhz", "9999"),
            None,
        ),
        (
            ("simulate", "int8-8x8", "smollm2-135m", "--buffers-kib", "1,1"),
            "buffers-kib = 1,1: must be three numbers act,wgt,out such as 32,32,32; the command line",
        ),
        (
            ("simulate", "int8-8x8", "smollm2-135m", "--perplexity-tokens", "1"),
            "perplexity_tokens = 1: must be greater than or equal to 2; the command line",
        ),
        (
            ("report", "nowhere"),
            "store = nowhere: is not a result store; run `bitwright sweep` into it first",
        ),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], message: str | None
) -> None:
    done = bitwright(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("bitwright: ")
    if message is not None:
        assert lines[0] == f"bitwright: {message}"
    assert "Traceback" not in done.stderr


def test_clock_above_fmax_names_both() -> None:
    done = bitwright("simulate", "int8-8x8", "smollm2-135m", "--clock-mhz", "9999")
    assert "clock_mhz = 9999: the group-dequantiser of int8-mac reaches " in done.stderr


def test_truncated_model_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00")
    done = bitwright("simulate", "int8-8x8", str(path))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(path) in done.stderr


SPACE = """\
name: one
model: opt-1.3b
workload: {prompt_tokens: 4, output_tokens: 0}
machines: {array: [[32, 32]], buffers_kib: [512]}
designs: [{pe: int8-mac, formats: [{weights: int8, acts: int8, kv: int8}]}]
"""


def test_one_point_without_weights_or_decode_goes_all_the_way(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(SPACE)
    swept = bitwright("sweep", "one.yaml", "--store", "store", "--json", cwd=tmp_path)
    assert swept.returncode == 0, swept.stderr
    assert json.loads(swept.stdout) == {"schema_version": 1, "points": 1, "done": 1, "failed": 0}
    assert "no weights of opt-1.3b are here: perplexity is not measured" in swept.stderr.splitlines()
    for arguments in (("report", "store", "-o", "r.html"), ("sweep", "export", "store", "-o", "t.csv")):
        done = bitwright(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.html").stat().st_size > 1_000_000
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("output", ["one.yaml/r.html", "missing/r.html"])
def test_unwritable_report_is_refused(tmp_path: Path, output: str) -> None:
    (tmp_path / "one.yaml").write_text(SPACE)
    assert bitwright("sweep", "one.yaml", "--store", "store", cwd=tmp_path).returncode == 0
    done = bitwright("report", "store", "-o", output, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert output.split("/")[0] in done.stderr
