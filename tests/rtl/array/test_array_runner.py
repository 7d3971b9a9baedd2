"""The runner refuses what does not fit, and notices an array that answers wrongly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.rtl import array
from bitwright.rtl.bench import array_runner
from bitwright.rtl.bench.array_runner import run_passes
from bitwright.rtl.bench.verilator import Compiled

WGT, ACT = np.ones((2, 2), dtype=np.int64), np.ones((1, 2), dtype=np.int64)


@pytest.mark.parametrize(
    ("passes", "wgt", "act", "message"),
    [
        ([], [], [], "passes, wgt, act = 0, 0, 0 tiles: must be equal and not 0"),
        ([(1, 2)], [WGT], [ACT, ACT], "passes, wgt, act = 1, 1, 2 tiles: must be equal and not 0"),
        ([(1, 3)], [WGT], [ACT], "passes[0] = (m 1, k 3): ws needs m in 1..65535, k in 1..2"),
        ([(0, 2)], [WGT], [ACT], "passes[0] = (m 0, k 2): ws needs m in 1..65535, k in 1..2"),
        ([(2, 2)], [WGT], [ACT], "passes[0] operands: wgt (2, 2), act (1, 2): must be (2, 2), (2, 2)"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(passes: Any, wgt: Any, act: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run_passes("int8-mac", 2, 2, "ws", passes, wgt, act)
    assert str(refused.value) == message


def test_a_mode_that_the_pe_lacks_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        run_passes("int8-mac", 2, 2, "ws", [(1, 2)], [WGT], [ACT], wgt_unsigned=True)
    assert str(refused.value) == "wgt_unsigned: int8_mac_ws_2x2 has no such mode (only PEs whose weights are codes do)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("assign psum_valid = ", "assign psum_valid = 1'h0 & "),
            r"int8_mac_ws_2x2: 0 result vectors in \d+ cycles, expected 3; passes \[\(2, 2\), \(1, 2\)\]",
        ),
        (
            ("assign psum_valid = ", "assign psum_valid = ~"),
            r"int8_mac_ws_2x2: \d+ result vectors in \d+ cycles, expected 3; passes \[\(2, 2\), \(1, 2\)\]",
        ),
        (
            ("assign psum_last = ", "assign psum_last = ~"),
            "int8_mac_ws_2x2: psum_last = 1 on result vector 0, expected 0",
        ),
    ],
)
def test_missing_extra_and_unmarked_results_are_noticed(
    change: tuple[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = array.verilog("int8-mac", 2, 2, "ws")
    assert text.count(change[0]) == 1
    broken = Compiled(text.replace(*change), "int8_mac_ws_2x2", optimise="-O0")
    monkeypatch.setattr(array_runner, "compiled_array", lambda *_: broken)
    with pytest.raises(MismatchError, match=f"^{message}$"):
        run_passes("int8-mac", 2, 2, "ws", [(2, 2), (1, 2)], [WGT, WGT], [np.ones((2, 2)), ACT])
