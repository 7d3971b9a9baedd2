"""The table of streaming PEs: what is made again, where rows go, errors of sampling, and what a stopped run leaves."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.rtl.asic import cells, stream_costs
from bitwright.rtl.asic.activity import Activity, NetlistSimulator
from bitwright.rtl.asic.liberty import Library, library_path, read_library
from bitwright.rtl.asic.power import Energy
from bitwright.rtl.asic.stimulus import ACTIVE
from bitwright.rtl.asic.stream_stimulus import stream_work
from bitwright.rtl.asic.synthesis import FLOW_SHA256, synthesize_verilog, yosys_version
from bitwright.rtl.pe import streaming

NAMES = ["shift-add", "int8-mac", "opt1"]


def rows(names: list[str], clock_mhz: float = 250, **switches: bool) -> list[stream_costs.Wanted]:
    return [stream_costs.Wanted(name, clock_mhz, **switches) for name in names]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, liberty: Path) -> list[tuple[str, float, str]]:
    """What was made, in order; "opt1" stops the first run at 250 MHz."""
    assert liberty.is_file()
    found: list[tuple[str, float, str]] = []

    def synthesize(
        name: str, node: str, clock_mhz: float, cache: Path, *, clock_gating: bool, operand_isolation: bool, effort: str
    ) -> dict[str, Any]:
        what = (name, clock_mhz, "gated" * clock_gating + "isolated" * operand_isolation + "low" * (effort == "low"))
        stopped = name == "opt1" and what not in found
        found.append(what)
        if stopped:
            raise KeyboardInterrupt
        origin = {"rtl_sha256": stream_costs.rtl_sha256(name, operand_isolation=operand_isolation)}
        origin |= {"stimuli_sha256": stream_costs.stimuli_sha256(name)}
        origin |= {"moving_stimulus_sha256": stream_costs.moving_sha256(name)}
        library = {"library_sha256": read_library(library_path(node)).sha256, "tool": yosys_version()}
        return {"clock_mhz": clock_mhz, "method": cells.STREAM_METHOD, "flow_sha256": FLOW_SHA256, **origin, **library}

    monkeypatch.setattr(cells, "synthesize_stream", synthesize)
    return found


def test_a_stopped_run_goes_on_and_each_clock_has_its_rows(made: list[tuple[str, float, str]], tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    with pytest.raises(KeyboardInterrupt):
        stream_costs.build(path, "nangate45", 250, rows(NAMES))
    assert set(json.loads(path.read_text())["rows"]) == {"shift-add", "int8-mac"}
    stream_costs.build(path, "nangate45", 250, rows(NAMES))
    stream_costs.build(path, "nangate45", 250, rows(NAMES[:1], clock_gating=True))
    stream_costs.build(path, "nangate45", 250, rows(NAMES[:1], 500))
    assert made == [
        ("shift-add", 250, ""), ("int8-mac", 250, ""), ("opt1", 250, ""), ("opt1", 250, ""),
        ("shift-add", 250, "gated"), ("shift-add", 500, ""),
    ]  # fmt: skip
    table = json.loads(path.read_text())
    assert set(table["rows"]) == set(NAMES)
    assert set(table["clock_gated"]) == set(table["clocks"]["500"]) == {"shift-add"}
    assert table["clocks"]["500"]["shift-add"]["clock_mhz"] == 500

    made.clear()
    stream_costs.build(path, "nangate45", 250, [stream_costs.Wanted("int8-mac", 250, own="low_effort")])
    assert made == [("int8-mac", 250, "low")]
    table = json.loads(path.read_text())
    assert set(table["low_effort"]) == {"int8-mac"}

    table["rows"]["int8-mac"]["rtl_sha256"] = "0" * 64
    table["rows"]["opt1"]["method"] -= 1
    table["clocks"]["500"]["shift-add"]["stimuli_sha256"] = "0" * 64
    path.write_text(json.dumps(table))
    made.clear()
    stream_costs.build(path, "nangate45", 250, rows(NAMES[:2]))
    stream_costs.build(path, "nangate45", 250, rows(NAMES[:1], 500))
    assert made == [("int8-mac", 250, ""), ("shift-add", 500, "")]


def test_isolated_rows_have_their_own_sections_and_are_stale_without_energies_of_moving_operands(
    made: list[tuple[str, float, str]], tmp_path: Path
) -> None:
    path, one = tmp_path / "table.json", NAMES[:1]
    for gating in (False, True):
        for _ in range(2):
            stream_costs.build(
                path, "nangate45", 250, rows(one, clock_gating=gating, operand_isolation=True, moving=True)
            )
    assert made == [("shift-add", 250, "isolated"), ("shift-add", 250, "gatedisolated")]
    table = json.loads(path.read_text())
    assert table["isolated"].keys() == table["isolated_clock_gated"].keys() == {"shift-add"}
    assert table["isolated"]["shift-add"]["rtl_sha256"] != stream_costs.rtl_sha256("shift-add")

    del table["isolated"]["shift-add"]["moving_stimulus_sha256"]
    table["isolated_clock_gated"]["shift-add"]["rtl_sha256"] = stream_costs.rtl_sha256("shift-add")
    path.write_text(json.dumps(table))
    made.clear()
    stream_costs.build(path, "nangate45", 250, rows(one, operand_isolation=True))
    assert made == []
    for gating in (False, True):
        stream_costs.build(path, "nangate45", 250, rows(one, clock_gating=gating, operand_isolation=True, moving=True))
    assert made == [("shift-add", 250, "isolated"), ("shift-add", 250, "gatedisolated")]


def test_batches_add_up_to_the_run(liberty: Path, nangate45: Library) -> None:
    spec = pe.stream("shift-add")
    netlist = synthesize_verilog(streaming.verilog(spec), spec.module_stem, liberty, period_ps=4000).netlist
    stimulus = stream_work(spec, random=False).stimulus
    simulator = NetlistSimulator(netlist, nangate45)
    whole = simulator.run(stimulus.ports, bins=stimulus.bins)
    parts = simulator.run(stimulus.ports, bins=cells._in_batches(stimulus.bins))
    cycles = parts.lane_cycles[list(cells._BATCHES)]
    assert cycles.tolist() == [whole.lane_cycles[ACTIVE] // 8] * 8
    pooled = parts.pooled(cells._BATCHES)
    for name in ("rises", "falls", "lane_cycles", "enabled"):
        assert np.array_equal(getattr(pooled, name)[0], getattr(whole, name)[ACTIVE]), name
    for one, other in zip(pooled.flip_flops, whole.flip_flops, strict=True):
        assert np.array_equal(one.hidden_rise[0], other.hidden_rise[ACTIVE])
        assert np.array_equal(one.hidden_fall[0], other.hidden_fall[ACTIVE])


def test_the_error_is_that_of_a_mean_of_batches() -> None:
    energies = [1.0, 1.5, 0.5, 2.0, 1.0, 1.25, 0.75, 1.0]

    class Model:
        def energy(self, _: Activity, chosen: int) -> Energy:
            return Energy(energies[chosen - 3] / 2, energies[chosen - 3] / 4, energies[chosen - 3] / 4, 0.25)

    none = np.zeros((11, 0), np.int64)
    activity = Activity(none, none, np.ones(11), (), none, {})
    tree = SimpleNamespace(energy_pj=0.125)  # adds the same to every batch
    error = cells._sampling_error_pj(Model(), activity, [tree])  # type: ignore[arg-type,list-item]
    assert error == pytest.approx(statistics.stdev(energies) / 8**0.5, rel=1e-12)
