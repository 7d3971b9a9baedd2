"""`bitwright reproduce`: the keys scripts rely on, and every refusal."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def reproduce(arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitwright.cli", "reproduce", *arguments.split()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_scale_sim_row() -> None:
    done = reproduce(
        "scale-sim --gemm 1,4096,4096 --rows 128 --cols 128 --dataflow ws --json"
    )  # 392,191: peers.md, finding 3
    assert json.loads(done.stdout)["cycles"] == 392191


def test_bitmod_row() -> None:
    done = reproduce("bitmod --model llama-2-7b --accelerator olive --task prefill --json")
    row = json.loads(done.stdout)
    # published-systems.md section 1.6
    assert (row["cycles"], round(row["energy_uj"])) == (1768062976, 6898215)
    assert {"compute_cycles", "dram_cycles", "ours", "differences", "published_cycles", "notes"} <= set(row)


def test_mixpe_row() -> None:
    row = json.loads(reproduce("mixpe --model opt-6.7b --accelerator ant --json").stdout)
    assert row["compute_cycles"] == 207_618_048  # published-systems.md section 2.2
    assert {"cycles", "dram_cycles", "energy_uj", "ours", "differences", "notes"} <= set(row)


def test_text_shows_published_ours_and_every_difference() -> None:
    done = reproduce("bitmod --model llama-2-7b --accelerator olive --task prefill")
    assert "published_cycles 1768062976" in " ".join(done.stdout.split())
    for name in ("as published", "selector bits charged", "better tiling", "all of them"):
        assert f"  - {name}: " in done.stdout


def test_answers_without_heavy_imports() -> None:
    code = (
        "import sys\nfrom bitwright.cli.reproducing import reproduce\n"
        "reproduce('bitmod', model='llama-2-7b', accelerator='ant', task='decode', json=True)\n"
        "heavy = {'torch', 'amaranth', 'plotly', 'pandas', 'simpy'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


SCALE_SIM = "--gemm 1,4,4 --rows 8 --cols 8 --dataflow ws"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "bitmo",
            "paper = 'bitmo': no such paper; did you mean 'bitmod'? "
            "(known: accllm, bitmod, flightllm, lut-tensor-core, mixpe, scale-sim); "
            "the command line",
        ),
        (
            "scale-sim --gemm 1,4,4 --rows 8 --cols 8",
            "--dataflow: missing; scale-sim takes --gemm M,K,N --rows R --cols C --dataflow ws|os|is; the command line",
        ),
        (
            f"scale-sim {SCALE_SIM} --model phi-2",
            "--model = phi-2: not an option of scale-sim; leave it out; the command line",
        ),
        ("bitmod --rows 4", "--rows = 4: not an option of bitmod; leave it out; the command line"),
        (
            "bitmod --model phi-2 --task decode",
            "--accelerator: missing; bitmod takes --model NAME --accelerator NAME --task prefill|decode, or none of "
            "them for all that is published; the command line",
        ),
    ],
)  # fmt: skip
def test_refusals(arguments: str, message: str) -> None:
    done = reproduce(arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"bitwright: {message}\n")


def test_without_a_model_all_that_is_published() -> None:
    row = json.loads(reproduce("bitmod --json").stdout)
    assert len(row["rows"]) == 50 + 10
    assert {item["difference_cycles"] for item in row["rows"]} == {0}
    assert max(abs(item["energy_percent"]) for item in row["rows"]) < 1
    assert row["headline"]["lossless_over_fp16_prefill"] == pytest.approx(1.989, abs=5e-4)


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    done = reproduce("bitmod --model llama-2-8b --accelerator fp16 --task decode")
    assert done.returncode == 2
    assert done.stderr.startswith("bitwright: model = 'llama-2-8b': no such shape; did you mean 'llama-")
