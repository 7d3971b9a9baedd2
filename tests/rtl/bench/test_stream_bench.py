"""The one bench of the streaming PEs: it passes PEs that keep the contract and catches every kind of broken one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import MismatchError
from bitwright.arch.pe.stream import FIRST, LAST
from bitwright.rtl.bench import user_verilog
from bitwright.rtl.bench.cocotb_runner import FailedTestsError, run_cocotb
from bitwright.rtl.bench.stream import bulk
from bitwright.rtl.bench.stream.model import Offer, StreamModel
from bitwright.rtl.bench.stream.monitors import HandshakeMonitor, Scoreboard, shown, steps_of_sum
from bitwright.rtl.bench.stream.script import cut_to, dropping_steps, longest_steps, mixed_steps, script, shuffled
from bitwright.rtl.bench.stream.stimulus import random_steps
from bitwright.rtl.bench.verification import Options, verify_pe
from bitwright.rtl.pe import streaming

DATA = Path(__file__).parent / "data"
ELASTIC = DATA / "elastic_mac.v"
BENCH = "bitwright.rtl.bench.cocotb_stream"
TESTS = [
    "without_back_pressure_every_cycle_is_the_contracts",
    "extreme_codes",
    "real_tensors_of_smollm2",
    "a_first_in_mid_sum_drops_it",
    "a_sum_on_offer_holds_until_it_is_taken",
    "a_reset_in_any_cycle_drops_steps_and_sums",
    "ready_does_not_depend_on_valid_nor_the_sum_on_inputs",
    "every_mix_of_idle_and_back_pressure_with_drops_and_resets",
]
ICARUS = pytest.param(
    "icarus", marks=pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
)


@pytest.mark.parametrize("simulator", ["verilator", ICARUS])
@pytest.mark.parametrize("params", [{}, {"lanes": 4, "psum_bits": 20, "pipeline": 1}])
def test_the_bench_passes_our_pe_in_every_cycle(params: dict[str, int], simulator: str) -> None:
    spec = pe.stream("int8-mac", **params)
    plusargs = {"pe": spec.name, "params": json.dumps(params), "seed": 3}
    ran = run_cocotb(
        streaming.verilog(spec), spec.module_stem, BENCH, plusargs=plusargs, seed=3, simulator=simulator,
        unknown_state=True,
    )  # fmt: skip
    assert ran == TESTS


def test_the_bench_passes_a_hand_written_pe_of_another_latency() -> None:
    verdicts = list(verify_pe("int8-mac", Options(rtl=ELASTIC, latency_cycles=3, seed=2)))
    assert verdicts[0] == ("elastic_mac_bench", TESTS)
    assert verdicts[1][0] == "elastic_mac_bench"
    assert [verdict.kind for verdict in verdicts] == ["cocotb", "bulk"]
    counts = {name: int(count.removesuffix(" steps")) for name, count in (test.split(": ") for test in verdicts[1][1])}
    longest = pe.stream("int8-mac").longest_sum
    assert longest is not None
    assert counts.pop("random_and_corner_codes") > 1_000_000
    assert counts == {
        "sums_of_extreme_codes": 36 * 8,
        "the_longest_sum_and_one_step_more": 4 * (longest + 1),
        "real_tensors_of_smollm2": 64 * 256,
        "every_pair_of_codes": 1 << 16,
    }


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
def test_a_hand_written_pe_passes_on_icarus_too() -> None:
    options = Options(rtl=ELASTIC, latency_cycles=3, simulator="icarus", seed=2)
    assert next(verify_pe("int8-mac", options)) == ("elastic_mac_bench", TESTS)


def test_our_own_pe_may_have_no_elastic_stage() -> None:
    """With strict=1 the same hand-written PE fails, on a step that it takes while a sum waits."""
    spec = pe.stream("int8-mac")
    wanted = user_verilog.wanted_ports(streaming.verilog(spec), spec.module_stem)
    text, top = user_verilog.load(ELASTIC, spec.module_stem, wanted)
    plusargs: dict[str, str | int] = {"pe": "int8-mac", "latency": 3, "strict": 1}
    with pytest.raises(MismatchError) as error:
        run_cocotb(text, top, BENCH, plusargs=plusargs, replay="again")
    assert re.match(rf"{top}: \d of 8 tests of {re.escape(BENCH)} failed: \w+: cycle ", str(error.value))
    assert str(error.value).endswith("; replay: again")
    assert "try --latency" not in str(error.value)
    assert "step.ready = 1: must be 0 in cycle 1 of a step of 1, sum.valid = 1, sum.ready = 0" in str(error.value)


RESET = "    if (rst) begin"
# What is replaced by what, the latency given, and how the first complaint reads.
BROKEN = {
    "payload_changes_while_waiting": (
        RESET, "    if (acc_done) sum__payload <= acc;\n" + RESET, 3,
        r"sum\.payload changed from 0x[0-9a-f]+ to 0x[0-9a-f]+ while it waited for sum\.ready: must hold still",
    ),
    "valid_drops": (
        RESET, "    if (sum__valid && !sum__ready) sum__valid <= 1'b0;\n" + RESET, 3,
        r"sum\.valid fell before sum\.ready: must hold until the payload is taken",
    ),
    "ready_depends_on_valid": (
        "step__ready = ", "step__ready = step__valid && ", 3,
        r"step\.ready = 0 with step\.valid low, 1 with it high in the same cycle: must not depend on step\.valid "
        r"\(sum\.ready = [01]\)",
    ),
    "latency_of_2": (
        RESET, RESET, 2,
        r"sum\.valid = 0: must be 1, with a latency of 2 from the cycle in which a step marked last was taken; it came "
        r"1 cycle later: try --latency 3\n",
    ),
    "initiation_interval_of_2": (
        "assign step__ready = !product_valid ||", "assign step__ready = !product_valid &&", 3,
        r"step\.ready = 0: must be 1 in cycle 1 of a step of 1, sum\.valid = [01], sum\.ready = 1",
    ),
    "first_is_lost_after_a_last": (
        "product_first ? 0", "product_first && !acc_done ? 0", 3,
        r"sum\.payload = 0x[0-9a-f]{8} \(psum -?\d+\): must be 0x[0-9a-f]{8} \(psum -?\d+\); its step \d+: "
        r"act = -?\d+, wgt = -?\d+\n",
    ),
    "valid_has_no_reset": (
        "      sum__valid <= 1'b0;\n", "", 3, r"sum\.valid = 1: must be 0, (every sum was taken|with a latency)",
    ),
    "a_stage_has_no_reset": (
        "      product_valid <= 1'b0;\n", "", 3, r"sum\.valid = 1: must be 0, |sums after a reset",
    ),
    "steps_are_lost_behind_a_waiting_sum": (
        "step__ready = !product_valid || acc_free", "step__ready = 1'b1", 3,
        r"sum\.payload = .*(its steps? \d+: act = -?\d+, wgt = -?\d+|of its \d+ steps, \d+: act = )",
    ),
    "a_product_of_corners_is_wrong": (
        "product <= act * wgt", "product <= step__payload[15:0] == 16'h8080 ? 16'sh3fff : act * wgt", 3,
        r"  extreme_codes: .* must be 0x00008000 \(psum 32768\); its steps \d+: act = -128, wgt = -128; \d+: "
        r"act = -128, wgt = -128\n",
    ),
    "a_product_of_any_codes_is_wrong": (
        "product <= act * wgt", "product <= step__payload[15:0] == 16'h4dcb ? 16'sh0 : act * wgt", 3,
        r"^elastic_mac_bench, every_pair_of_codes, seed 1: sum 19405, psum = 0x00000000 \(0\): must be 0xfffff00f "
        r"\(-4081\); its step 19405: act = -53, wgt = 77; 1 of 65536 sums differ\nreplay: ",
    ),
    "the_accumulator_is_a_bit_short": (
        "reg signed [SUM_BITS-1:0] acc;", "reg signed [SUM_BITS-2:0] acc;", 3,
        r"the_longest_sum_and_one_step_more, seed 1: sum 0, psum = 0x00000000 \(0\): must be 0x80000000 "
        r"\(-2147483648\); of its 131072 steps, 0: act = -128, wgt = -128; 1: act = -128, wgt = -128; 131071: "
        r"act = -128, wgt = -128; ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_the_bench_catches(how: str, tmp_path: Path) -> None:
    old, new, latency, complaint = BROKEN[how]
    text = ELASTIC.read_text()
    assert text.count(old) == 1, old
    (tmp_path / "widths.vh").write_text((DATA / "widths.vh").read_text())
    path = tmp_path / "broken.v"
    path.write_text(text.replace(old, new))
    with pytest.raises(MismatchError) as error:
        list(verify_pe("int8-mac", Options(rtl=path, latency_cycles=latency)))
    message = str(error.value)
    assert re.search(complaint, message), message
    replay = f"replay: bitwright verify int8-mac --rtl {path} --latency {latency} --seed 1"
    assert message.endswith(f"\n{replay}"), message
    assert message.count(replay) == 1, message
    assert "AssertionError" not in message
    assert error.value.exit_code == 1


LEAKY = """
module int8_mac_l1_p32_s0(input clk, input rst, input step__valid, input [17:0] step__payload, output step__ready,
                          output sum__valid, output [31:0] sum__payload, input sum__ready);
  wire [31:0] held;
  elastic_mac inner(.clk(clk), .rst(rst), .step__valid(step__valid), .step__payload(step__payload),
    .step__ready(step__ready), .sum__valid(sum__valid), .sum__payload(held), .sum__ready(sum__ready));
  assign sum__payload = held WRONG;
endmodule
"""


@pytest.mark.parametrize("wrong", ["", "^ {31'b0, step__valid & step__payload[16]}"])
def test_a_sum_may_not_follow_an_input_within_the_cycle(wrong: str, tmp_path: Path) -> None:
    """The PE is the module of our PE's name, around another of the same file."""
    (tmp_path / "widths.vh").write_text((DATA / "widths.vh").read_text())
    path = tmp_path / "leaky.v"
    path.write_text(ELASTIC.read_text() + LEAKY.replace("WRONG", wrong))
    verdicts = verify_pe("int8-mac", Options(rtl=path, latency_cycles=3))
    if not wrong:
        assert next(verdicts) == ("int8_mac_l1_p32_s0_bench", TESTS)
        return
    with pytest.raises(MismatchError, match=r"in the same cycle: must not depend on the step stream or on sum\.ready"):
        next(verdicts)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
def test_x_on_valid_after_a_reset_is_a_failure(tmp_path: Path) -> None:
    """On Icarus a register that no reset sets stays x, where Verilator's random state may hide it."""
    (tmp_path / "widths.vh").write_text((DATA / "widths.vh").read_text())
    path = tmp_path / "unset.v"
    path.write_text(ELASTIC.read_text().replace("      sum__valid <= 1'b0;\n", ""))
    with pytest.raises(MismatchError, match=r"_contracts: cycle \d+: sum\.valid = x: must be "):
        list(verify_pe("int8-mac", Options(rtl=path, latency_cycles=3, simulator="icarus")))


def test_the_handshake_monitor_names_the_rule_that_is_broken() -> None:
    monitor = HandshakeMonitor("sum")
    assert monitor.sample(1, 0, 7) is None
    assert monitor.sample(1, 1, 7) is None
    assert monitor.sample(0, 1, None) is None
    assert monitor.sample(1, 0, 8) is None
    assert monitor.sample(0, 0, None) == "sum.valid fell before sum.ready: must hold until the payload is taken"
    assert monitor.sample(1, 1, "1x") == (
        "sum.payload changed from 0x8 to 0b1x while it waited for sum.ready: must hold still"
    )
    monitor.reset()
    assert monitor.sample(0, 1, None) is None
    assert monitor.sample(None, 1, None) == "sum.valid = x: must be 0 or 1 after a reset"
    assert monitor.sample(1, None, 1) == "sum.ready = x: must be 0 or 1 after a reset"
    assert (monitor.transfers, monitor.held) == (1, 2)


def test_the_scoreboard_owes_each_sum_once_and_in_order() -> None:
    spec = pe.stream("int8-mac", psum_bits=16)
    board = Scoreboard(spec.step_fields, spec.sum_fields)
    assert board.offered(0) == "sum.valid = 1: must be 0, every sum was taken (or lost in a reset)"
    board.took(4, first=False, last=True, sum_bits=3)  # goes back to before the reset: of any value
    board.took(5, first=True, last=False, sum_bits=None, payload=0x1_01_FF)
    board.took(6, first=False, last=True, sum_bits=0xFFFE, payload=0x2_01_FF)
    board.took(7, first=True, last=True, sum_bits=0, payload=0x3_00_00)
    assert board.offered("xxxx") is None
    board.owed.popleft()
    assert board.offered(0xFFFE) is None
    steps = "its steps 5: act = -1, wgt = 1; 6: act = -1, wgt = 1"
    assert board.offered(2) == f"sum.payload = 0x0002 (psum 2): must be 0xfffe (psum -2); {steps}"
    assert board.offered("1x") == f"sum.payload = 0b1x: must be 0xfffe (psum -2); {steps}"
    board.owed.popleft()
    assert board.offered(1) == "sum.payload = 0x0001 (psum 1): must be 0x0000 (psum 0); its step 7: act = 0, wgt = 0"
    board.took(8, first=True, last=True, sum_bits=1)
    board.took(9, first=True, last=False, sum_bits=None)
    board.clear(on_offer=True)  # what is in flight goes, the sum that waits stays
    assert (board.owed.popleft().number, len(board.owed), board.steps) == (7, 0, None)
    board.took(10, first=True, last=True, sum_bits=1)
    board.reset()
    assert not board.owed
    lanes = pe.stream("int8-mac", lanes=2).step_fields
    assert shown(0x01_02_FF_04, lanes) == "0x0102ff04 (act [4, -1], wgt [2, 1])"


def test_operands_of_a_message_are_few() -> None:
    """Of a sum of up to 4 steps all, of a longer one the first two and the last; of a step's lanes the first 8."""
    spec = pe.stream("int8-mac", lanes=9)
    lanes = sum((lane + 1) << 8 * lane for lane in range(9))
    step = f"act = [1, 2, 3, 4, 5, 6, 7, 8, ...], wgt = [-1{', 0' * 7}, ...]"
    payload = lanes | 0xFF << 72
    for numbers, text in (
        ([3], f"its step 3: {step}"),
        (range(3, 7), f"its steps 3: {step}; 4: {step}; 5: {step}; 6: {step}"),
        (range(3, 8), f"of its 5 steps, 3: {step}; 4: {step}; 7: {step}"),
    ):
        assert steps_of_sum(numbers, lambda _: payload, spec.step_fields) == text


def test_a_bulk_run_says_by_how_much_another_latency_is_off() -> None:
    """Without a latency of the user's there is none to try."""
    spec, wrong = pe.stream("int8-mac", pipeline=1), pe.stream("int8-mac")
    steps = random_steps(spec, np.asarray([1, 3, 2]), seed=1)
    design = bulk.compiled(spec)
    with pytest.raises(MismatchError) as error:
        bulk.check(spec, steps, design=design, latency_cycles=1, replay="again", run="these_steps")
    where = "int8_mac_l1_p32_s1"
    assert str(error.value) == (
        f"{where}, these_steps, seed 1: sum on offer 0 in cycle 2: must be 1; it came 1 cycle later: try --latency 2\n"
        f"replay: again"
    )
    with pytest.raises(MismatchError) as error:
        bulk.check(spec, steps, design=design, latency_cycles=4)
    assert str(error.value) == (
        f"{where}, seed 1: sum on offer 0 in cycle 2: must be 4; it came 2 cycles earlier: try --latency 2"
    )
    with pytest.raises(MismatchError) as error:
        bulk.check(wrong, steps, design=design)
    assert str(error.value) == f"{where}, seed 1: sum on offer 0 in cycle 2: must be 1"


def test_a_crash_of_the_bench_is_not_a_failed_check_of_the_pe() -> None:
    spec = pe.stream("int8-mac")
    with pytest.raises(FailedTestsError) as error:
        run_cocotb(
            streaming.verilog(spec), spec.module_stem, BENCH, plusargs={"pe": "int8-mac", "cycles": "many"}, lines=True,
            replay="again",
        )  # fmt: skip
    crash = "the bench itself failed: ValueError: invalid literal for int() with base 10: 'many'"
    assert str(error.value).splitlines() == [
        f"{spec.module_stem}: 8 of 8 tests failed:", *(f"  {name}: {crash}" for name in TESTS[:3]), "  5 more",
        "replay: again",
    ]  # fmt: skip
    assert [failure.of_the_bench for failure in error.value.failures] == [True] * 8
    assert error.value.exit_code == 1


def test_the_cycle_model_counts_cycles_stalls_and_resets() -> None:
    model = StreamModel(latency_cycles=2)
    step = Offer(cycles=2, last=True)
    seen = []
    for sum_ready in (True, True, True, False, False, True, True, True):
        seen.append((model.ready(2, sum_ready), model.offered, model.step(step, sum_ready, rst=False)))
    # taken in cycle 1; its sum on offer in cycle 3 and held until cycle 5, while the second step stands in its phase 1
    assert seen == [
        (False, False, False), (True, False, True), (False, False, False), (False, True, False),
        (False, True, False), (True, True, True), (False, False, False), (True, True, True),
    ]  # fmt: skip
    assert not model.step(step, True, rst=True)
    assert (model.offered, model.phase, model.pipe) == (False, 0, [False])


def test_scripts_hold_drops_and_the_golden_sum_of_each_last() -> None:
    spec = pe.stream("int8-mac", lanes=2, psum_bits=16)
    steps = mixed_steps(spec, 300, seed=5)
    played = script(spec, steps)
    assert sum(played.first) - sum(played.last[at - 1] for at in range(1, len(played)) if played.first[at]) > 10
    assert any(last and not first for last, first in zip(played.last, played.first[1:], strict=False))
    total = 0
    for at in range(len(played)):  # the sums again, in Python integers
        act, wgt = np.asarray(steps["act"])[at].tolist(), np.asarray(steps["wgt"])[at].tolist()
        total = (0 if played.first[at] else total) + act[0] * wgt[0] + act[1] * wgt[1]
        assert played.sums[at] == (total % (1 << 16) if played.last[at] else None)
        codes = [code % 256 << place for code, place in zip((*act, *wgt), (0, 8, 16, 24), strict=True)]
        assert played.payloads[at] == sum(codes) | played.first[at] << 32 | played.last[at] << 33
    dropped = script(spec, dropping_steps(spec, 3, 2, seed=1))
    assert (dropped.first, dropped.last) == ([True, False, False, True, False], [False] * 4 + [True])
    longest = longest_steps(spec)
    assert longest is not None
    assert np.flatnonzero(longest[FIRST]).tolist() == [at * (spec.longest_sum + 1) for at in range(4)]
    assert longest_steps(pe.stream("int8-mac", lanes=1, psum_bits=32)) is not None
    whole = random_steps(spec, np.asarray([3, 4, 5]), seed=1)
    assert [len(cut_to(spec, whole, cycles)[LAST]) for cycles in (1, 3, 6, 7, 99)] == [3, 3, 3, 7, 12]
    moved = shuffled(whole, seed=3)
    assert sorted(np.diff(np.append(np.flatnonzero(moved[FIRST]), 12)).tolist()) == [3, 4, 5]
    assert sorted(moved["act"].ravel()) == sorted(whole["act"].ravel())
