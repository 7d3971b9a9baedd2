"""What tests of proofs about mutants share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bitwright.rtl.bench.stream import mutants
from bitwright.rtl.bench.stream.equivalence import run_yosys

Tidied = Callable[[str, str], str]


@pytest.fixture(scope="session")
def tidied(tmp_path_factory: pytest.TempPathFactory) -> Tidied:
    """The netlist that mutants are made of, RTLIL, of a Verilog text and its top module."""

    def make(verilog: str, top: str) -> str:
        folder = tmp_path_factory.mktemp(top)
        (folder / "rtl.v").write_text(verilog)
        run_yosys(folder, [*(line.format(top=top) for line in mutants.TIDY), "write_rtlil tidy.il"])
        return (folder / "tidy.il").read_text()

    return make
