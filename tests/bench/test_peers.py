"""What of the comparison with peers needs no peer: inputs written, outputs read, limits, refusals, the table.

The samples of outputs are written by hand after the headers that the peers' sources print: scalesim 3.0.0 simulator.py
(COMPUTE_REPORT.csv), MAESTRO 4eb08d1 (its csv writer, whose header has more commas than its rows).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_peers
import pytest
from bench_peers import Bench, Case, program
from hypothesis import given
from hypothesis import strategies as st
from peers import maestro, plan, runs, scalesim_driver, table, whole_model, zigzag_driver
from peers.runs import Limits, Run, Runner, Status, measure
from peers.table import Row

LIMITS = Limits(60, 4)
JOB: dict[str, Any] = Case(100, 300, 50, 32, "ws").job("calc", 1640.0)

COMPUTE_REPORT = """\
LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, Mapping Efficiency %,
0, 900.0, 791, 12, 50.0, 60.0,
"""
MAESTRO_CSV = """\
Neural Network Name, Layer Number, NumPEs, Runtime (Cycles), Activity count-based Energy (nJ), Delay (Min), Delay (Max),
gemm,gemm,16384,1310720,289473, 1
"""


def test_scalesim_report_is_read_by_its_header() -> None:
    assert scalesim_driver.report(COMPUTE_REPORT) == {"cycles": 791, "stall_cycles": 12, "cycles_with_prefetch": 900}


def test_scalesim_report_of_two_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^COMPUTE_REPORT\.csv has 2 rows, not 1$"):
        scalesim_driver.report(COMPUTE_REPORT + "1, 1, 1, 1, 1, 1,\n")


def test_scalesim_inputs_name_m_n_k_and_keep_operands_apart(tmp_path: Path) -> None:
    scalesim_driver.write_inputs(JOB, tmp_path)
    assert (tmp_path / "gemm.csv").read_text() == "Layer, M, N, K,\ngemm, 100, 50, 300,\n"
    config = (tmp_path / "run.cfg").read_text().splitlines()
    assert {"FilterOffset = 30000", "OfmapOffset = 45000", "InterfaceBandwidth = CALC"} < set(config)
    scalesim_driver.write_inputs(JOB | {"mode": "user"}, tmp_path)
    assert "InterfaceBandwidth = USER" in (tmp_path / "run.cfg").read_text()


def test_maestro_table_is_read_by_its_first_columns() -> None:
    assert maestro.report(MAESTRO_CSV) == {"cycles": 1_310_720}


def test_maestro_table_without_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^gemm\.csv has 1 lines, not 2$"):
        maestro.report(MAESTRO_CSV.splitlines()[0])


@given(*(st.integers(1, 5000) for _ in range(3)), st.sampled_from((8, 32, 128)), st.integers(16, 1024))
def test_maestro_tiles_fit_twice_in_our_buffers(m: int, k: int, n: int, array: int, kib: int) -> None:
    text = maestro.mapping(Case(m, k, n, array, "ws").job("ideal", 1640.0) | {"buffers_kib": [kib] * 3})
    m_tile, k_tile = (int(text.split(f") {dim};")[0].rsplit(",", 1)[1]) for dim in "MK")
    assert 1 <= m_tile <= m
    assert k_tile == min(k, array)
    assert m_tile == 1 or 2 * m_tile * array * max(1, maestro.OUT_BYTES) <= kib * 1024


def test_maestro_modes_differ_in_bandwidth_alone() -> None:
    ideal, offchip, edges = (maestro.options(JOB | {"mode": mode}) for mode in ("ideal", "offchip", "edges"))
    assert [a for a, b in zip(ideal, offchip, strict=True) if a != b] == ["--offchip_bw_cstr=1073741824"]
    assert [b for a, b in zip(offchip, edges, strict=True) if a != b] == ["--noc_bw_cstr=64"]


def test_zigzag_machine_has_our_buffers_and_bandwidth() -> None:
    made = zigzag_driver.accelerator(JOB | {"mode": "systolic"})
    assert list(made["memories"]) == ["wgt_reg", "sum_reg", "act_sram", "wgt_sram", "out_sram", "dram"]  # inner first
    assert made["memories"]["act_sram"]["size"] == 512 * 1024 * 8
    assert [port["bandwidth_max"] for port in made["memories"]["dram"]["ports"]] == [1640 * 8]
    assert made["operational_array"]["systolic_dimensions"] == ["D1", "D2"]
    assert zigzag_driver.accelerator(JOB | {"mode": "broadcast"})["operational_array"]["systolic_dimensions"] == []


def _python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_run_answers_its_last_line_and_is_measured() -> None:
    run = measure(_python("import json, sys; print('talk'); print(open(sys.argv[1]).read())"), JOB, LIMITS)
    assert (run.status, run.answer) == (Status.DONE, JOB)
    assert run.processor_s is not None
    assert run.processor_s > 0


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        ("raise SystemExit('no such layer')", Status.FAILED, "exit code 1: no such layer"),
        ("print('talk')", Status.FAILED, "its output is not as expected: Expecting value: line 1 column 1 (char 0)"),
        ("pass", Status.FAILED, "its output is not as expected: list index out of range"),
        ("bytearray(2**40)", Status.CAPPED, "needs more than 4 GiB"),
        ("while True: pass", Status.CAPPED, "unfinished after 1 s of processor time"),
    ],
)
def test_a_run_that_gives_nothing_says_why(text: str, status: Status, why: str) -> None:
    run = measure(_python(text), JOB, Limits(1, 4))
    assert (run.status, run.answer, run.why) == (status, {}, why)


def test_a_program_that_is_not_there_is_told() -> None:
    run = program(None)
    assert isinstance(run, Run)
    assert (run.status, run.why) == (
        Status.MISSING,
        "no --maestro PROGRAM, built from a checkout of maestro-project/maestro",
    )
    nowhere = program("/nowhere/maestro")
    assert isinstance(nowhere, Run)
    assert nowhere.why == "--maestro /nowhere/maestro: no program there"


def test_an_environment_that_pip_cannot_make_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "talk\nERROR: no network\n")

    monkeypatch.setattr(runs.subprocess, "run", fail)
    made = runs.environment("scalesim", tmp_path)
    assert isinstance(made, Run)
    assert (made.status, made.why) == (Status.MISSING, "its environment could not be made: ERROR: no network")
    assert not (tmp_path / "scalesim/pins.txt").exists()


def test_pins_are_exact() -> None:
    for name, peer in (("scalesim", "scalesim==3.0.0"), ("zigzag", "zigzag-dse==3.9.1"), ("genz", "genz_llm==0.0.16")):
        pins = (runs.HERE / f"{name}.txt").read_text().split()
        assert peer in pins
        assert all(pin.count("==") == 1 for pin in pins)


def test_missing_peers_have_rows_and_ours_still_runs() -> None:
    """A whole case on this machine without a single peer."""
    gone = Run(Status.MISSING, why="not here")
    bench = Bench(dict.fromkeys(("scalesim", "zigzag", "genz"), gone), gone, Runner(LIMITS))
    bench.case(Case(100, 300, 50, 128, "ws"), 1640.0)
    told = [table.cells(row) for row in bench.rows]
    assert [cells[2] for cells in told] == [
        "bitwright fast",
        "bitwright simpy",
        "bitwright array alone",
        "SCALE-Sim's closed form",
        *(mode.label for mode in plan.MODES if mode.name == "compute" or mode.peer),
    ]
    assert [cells[-1] for cells in told[4:]] == ["missing; not here"] * len(plan.MODES)
    assert table.same_cycles(bench.equal) == []
    assert len(bench.equal) == 1


def test_counts_that_differ_are_named() -> None:
    assert table.same_cycles([("a", 5, 5), ("b", 4, 1000)]) == ["b: 4 of the peer, 1,000 of ours"]


def test_an_estimate_names_the_run_that_it_comes_from() -> None:
    bench = Bench({}, Run(Status.MISSING), Runner(LIMITS))
    mode, case = plan.MODES[1], Case(1, 4096, 4096, 128, "ws")
    assert bench.estimate(case, mode, 392_191) == (None, "")
    bench.rates["calc", 128, "ws"] = 1000.0, Case(512, 512, 512, 128, "ws")
    assert bench.estimate(case, mode, 392_191) == (
        392.191,
        "estimate 392 s: 392,191 cycles at 1,000 a second, of 512,512,512",
    )
    assert bench.estimate(case, mode, 36_000_000)[1].startswith("estimate 10.0 h: ")


def test_the_table_prints_ratios_to_ours_and_a_work_once() -> None:
    done = Run(Status.DONE, processor_s=30.0, wall_s=31.0, peak_mib=200.4)
    capped = Run(Status.CAPPED, why="unfinished after 60 s of processor time", processor_s=60.0, wall_s=61.0)
    rows = [
        Row("1,2,3", 8, "ws", "one", done, 3000, 1000, 1.5),
        Row("1,2,3", 8, "ws", "two", capped, None, 1000, 1.5, "estimate 400 s"),
    ]
    assert table.markdown(table.HEADER, [table.cells(row) for row in rows]).splitlines()[2:] == [
        "| 1,2,3 | 8 ws | one | 3,000 | 3.000 | 30.00 | 20 | 31.00 | 200 |  |",
        "|  |  | two | - | - | 60.00 | - | 61.00 | - | "
        "capped; unfinished after 60 s of processor time; estimate 400 s |",
    ]


def test_layers_of_genz_count_as_often_as_they_repeat() -> None:
    def operator(name: str, kind: str, latency_ms: float, dimension: str = "") -> dict[str, Any]:
        return {"name": name, "kind": kind, "dimension": dimension, "latency_ms": latency_ms}

    told = [
        operator("embeddings", "GEMM", 7),
        operator("Repeat", "Repeat", 0, "32"),
        operator("QKV", "GEMM", 2),
        operator("down", "GEMM", 1),
        operator("End Repeat", "EndRepeat", 0),
        operator("classifier", "GEMM", 5),
    ]
    assert whole_model.split(told) == {"layers": 96, "embeddings": 7, "classifier": 5}


def test_the_command_refuses_without_a_folder(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_peers.py"])
    with pytest.raises(SystemExit) as error:
        bench_peers.options()
    assert error.value.code == 2
    assert "--folder" in capsys.readouterr().err


def test_a_run_that_is_kept_is_not_run_again(tmp_path: Path) -> None:
    kept, script = tmp_path / "kept", tmp_path / "driver.py"
    text = "import json, time; print(json.dumps({'at': time.time_ns()}))"
    script.write_text(text)
    command = [sys.executable, str(script)]

    first = Runner(LIMITS, kept)(command, JOB)
    assert first.status is Status.DONE
    assert Runner(LIMITS, kept)(command, JOB) == first
    assert Runner(LIMITS, kept)(command, JOB | {"m": 1}) != first
    assert Runner(Limits(61, 4), kept)(command, JOB) != first
    script.write_text(text + "  # another driver")
    assert Runner(LIMITS, kept)(command, JOB) != first
