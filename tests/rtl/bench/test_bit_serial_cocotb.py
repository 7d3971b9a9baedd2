"""The bench of bit-serial passes a PE of another latency, catches every kind of broken one, and says what broke."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.rtl.bench import verification
from bitwright.rtl.bench.cocotb_runner import FailedTestsError, run_cocotb
from bitwright.rtl.bench.verification import Options, verify_pe
from bitwright.rtl.pe import streaming

FAULTS = Path(__file__).parent / "data" / "bit_serial_faults.v"
BENCH = "bitwright.rtl.bench.cocotb_bit_serial"
STEM = BitSerial().module_stem
LATER = 1  # the fault that is none: a register behind the sum, one cycle of latency more
NO_ICARUS = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")


def run(fault: int, latency: int = 15, simulator: str = "verilator", cycles: int = 300) -> list[str]:
    text = streaming.verilog(BitSerial()).replace(STEM, "inner_pe") + FAULTS.read_text()
    plusargs: dict[str, str | int] = {"fault": fault, "latency": latency, "strict": 0, "cycles": cycles, "seed": 1}
    return run_cocotb(text, "bit_serial_faults", BENCH, plusargs=plusargs, simulator=simulator, unknown_state=True)


@pytest.mark.parametrize("simulator", ["verilator", pytest.param("icarus", marks=NO_ICARUS)])
def test_a_pe_of_another_latency_passes(simulator: str) -> None:
    assert len(run(LATER, 16, simulator, cycles=2000)) == 9


# The number of the fault, the test that must catch it, and what that says.
SUM = r"column\.payload = 0x[0-9a-f]{8} \(column \d+\): must be 0x[0-9a-f]{8} \(column \d+\); (its|of its \d+) slices?"
BROKEN = {
    "a_cycle_of_latency_more_than_told": (
        1, "without_back_pressure",
        r"column\.valid = 0: must be 1, with a latency of 15 from the cycle in which a slice marked last was taken; it "
        r"came 1 cycle later: try --latency 16",
    ),
    "payload_changes_while_waiting": (
        2, "a_sum_on_offer", r"column\.payload changed from 0x\w+ to 0x\w+ while it waited for column\.ready: must hold"
    ),
    "no_clear": (3, "a_clear_drops", r"column\.valid = 1: must be 0, every sum was taken"),
    "a_clear_takes_back_the_sum_on_offer": (4, "a_clear_in_mid_group", r"column\.valid fell before column\.ready"),
    "no_reset_after_the_first": (5, "a_reset_in_any_cycle", r"column\.valid = 1: must be 0, every sum was taken"),
    "a_special_value_is_not_written": (6, "a_reset_in_any_cycle", SUM),
    "a_product_of_extreme_codes_is_wrong": (7, "extreme_codes", SUM),
    "ready_in_a_clear": (8, "a_clear_in_mid_group", r"slice\.ready = 1: must be 0 in a cycle with clear"),
    "ready_depends_on_valid": (
        9, "ready_does_not_depend", r"slice\.ready = 0 with slice\.valid low, 1 with it high in the same cycle"
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_the_bench_catches(how: str) -> None:
    fault, test, complaint = BROKEN[how]
    with pytest.raises(FailedTestsError) as error:
        run(fault)
    found = {failure.test: failure for failure in error.value.failures}
    assert not any(failure.of_the_bench for failure in found.values())
    messages = [failure.message for name, failure in found.items() if name.startswith(test)]
    assert len(messages) == 1, list(found)
    assert re.search(complaint, messages[0]), messages[0]


@NO_ICARUS
def test_x_on_valid_after_a_reset_is_a_failure(tmp_path: Path) -> None:
    """On Icarus a register that no reset sets stays x, where Verilator's random state may hide it."""
    path = tmp_path / "unset.v"
    text = streaming.verilog(BitSerial())
    valid = re.search(r"column__valid <= (n\d+) ;", text)
    assert valid is not None
    unset, count = re.subn(rf"if \(rst\) begin\s+{valid[1]}\s+= 1'h0;\s+end", "", text)
    assert count == 1
    path.write_text(unset)
    with pytest.raises(FailedTestsError, match=r"column\.valid = x: must be "):
        next(verify_pe("bit-serial", Options(rtl=path, simulator="icarus")))


def test_a_users_latency_is_that_of_the_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = []

    def ran(*_: object, plusargs: dict[str, object], unknown_state: bool, **__: object) -> list[str]:
        given.append((plusargs["latency"], plusargs["strict"], unknown_state))
        return []

    monkeypatch.setattr(verification, "run_cocotb", ran)
    path = tmp_path / "mine.v"
    path.write_text(streaming.verilog(BitSerial()))
    for options in (Options(), Options(rtl=path), Options(rtl=path, latency_cycles=17)):
        next(verify_pe("bit-serial", options))
    assert given == [(15, 1, True), (15, 0, True), (17, 0, True)]
