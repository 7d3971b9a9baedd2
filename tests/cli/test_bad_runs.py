"""Runs that cannot be: the command line's exact messages, and the same from Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bitwright.arch import machine as machines
from bitwright.arch.errors import BitwrightError, ConfigError
from bitwright.cli.main import app
from bitwright.sim import simulate
from typer.testing import CliRunner


def refusal(*arguments: str) -> str:
    ran = CliRunner().invoke(app, ["simulate", *arguments])
    assert isinstance(ran.exception, BitwrightError), ran.output
    assert ran.exception.exit_code == 2
    return str(ran.exception)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gemms.csv", "", "column 'm' is missing; its first line must name m, k, n"),
        ("gemms.csv", "m,k,n\n", "no rows below the header; must have at least one"),
    ],
)
def test_a_list_without_products_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert refusal("int8-8x8", str(file)) == f"{file}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "workload.yaml: is empty; it must hold a mapping of keys"),
        (
            "steps: []\n",
            "steps: unknown key; known: chunked, experts, latent_attention, requests, sparsity, speculative, static; "
            "workload.yaml, line 1",
        ),
    ],
)
def test_a_workload_without_steps_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "workload.yaml"
    file.write_text(text)
    assert refusal("int8-8x8", "llama-2-7b", "--workload", str(file)) == message


def test_requests_without_a_row_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "workload.yaml"
    file.write_text("requests: {file: requests.csv, sequences: 2}\n")
    (tmp_path / "requests.csv").write_text("arrival_s,prompt_tokens,output_tokens\n")
    assert refusal("int8-8x8", "llama-2-7b", "--workload", str(file)) == (
        f"{tmp_path / 'requests.csv'}: no rows below the header; must have at least one"
    )


def test_an_empty_trace_is_refused(tmp_path: Path) -> None:
    assert refusal("opt3-8x8", "smollm2-135m", "--trace", str(tmp_path)) == (
        f"{tmp_path}: an empty folder, no trace (bitwright trace MODEL -o {tmp_path}; it goes on where it stopped)"
    )


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--clock-mhz", "nan", "clock_mhz = nan: must be a finite number; the command line"),
        ("--clock-mhz", "-3", "clock_mhz = -3.0: must be greater than or equal to 0.001; the command line"),
        ("--clock-mhz", "1e-4", "clock_mhz = 0.0001: must be greater than or equal to 0.001; the command line"),
        ("--prompt-tokens", "0", "prompt_tokens = 0: must be a whole number of at least 1; the workload"),
    ],
)
def test_nan_negative_and_empty_sizes_are_refused(option: str, value: str, message: str) -> None:
    assert refusal("int8-8x8", "llama-2-7b", option, value) == message


def test_a_run_that_memory_does_not_hold_is_refused_alike_from_python() -> None:
    sizes = {"prompt_tokens": 4000, "output_tokens": 0, "batch": 64}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
    told = refusal("int8-128x128", "llama-2-7b", "--dram-timing", "banks", *options)
    machine = machines.with_changes(machines.load("int8-128x128"), dram_timing="banks")
    with pytest.raises(ConfigError) as error:
        simulate(machine, "llama-2-7b", **sizes)
    assert str(error.value) == told
    assert re.fullmatch(
        r"context = 4000 tokens, batch = 64: weights, KV cache and activations need \d+ bytes and dram [\w-]+ holds "
        r"\d+; shorten the context, make the batch smaller, or name a larger memory; machine int8-128x128",
        told,
    )


@pytest.mark.parametrize(("place", "reason"), [("none/x.out", "No such file or directory"), ("", "Is a directory")])
@pytest.mark.parametrize("option", ["--html", "--timeline"])
def test_a_file_that_cannot_be_written_is_told_before_the_run(
    option: str, place: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitwright.sim.inference.simulate", None)  # a run would raise TypeError
    path = tmp_path / place
    assert refusal("int8-8x8", "llama-2-7b", option, str(path)) == (
        f"{option} = {path}: must be a writable file in an existing folder ({reason}); the command line"
    )


def test_no_name_is_not_the_folder_that_one_is_in() -> None:
    assert refusal("int8-8x8", "").startswith("model = '': no such shape; known: ")
