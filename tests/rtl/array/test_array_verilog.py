# amaranth: UnusedElaboratable=no
"""The array as Verilog text: modules, instances, ports, names, lint, determinism, errors."""

from __future__ import annotations

import functools
import re
import subprocess
import sys

import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.rtl import array
from bitwright.rtl.bench.verilator import lint

PES = ("int8-mac", "shift-add", "fp16-mac")
verilog = functools.cache(array.verilog)
CASES = [(name, *shape, dataflow) for name in PES for shape in ((1, 1), (3, 5)) for dataflow in ("ws", "os")]


def top_ports(text: str, top: str) -> dict[str, tuple[str, int]]:
    """name -> (direction, bits) of the module `top`."""
    body = re.search(rf"^module {top}\(.*?^endmodule", text, re.MULTILINE | re.DOTALL)
    assert body is not None
    found = re.findall(r"^  (input|output)\s+(?:\[(\d+):0\] )?(\S+);", body.group(), re.MULTILINE)
    return {name: (direction, int(high or 0) + 1) for direction, high, name in found}


@pytest.mark.parametrize(("name", "rows", "cols", "dataflow"), CASES)
def test_ports_are_the_contract(name: str, rows: int, cols: int, dataflow: str) -> None:
    spec = pe.get(name)
    text = verilog(name, rows, cols, dataflow)
    want = {
        "clk": ("input", 1),
        "rst": ("input", 1),
        "tile_valid": ("input", 1),
        "tile_ready": ("output", 1),
        "tile_m": ("input", 16),
        "tile_k": ("input", 16),
        "wgt_valid": ("input", 1),
        "wgt_ready": ("output", 1),
        "wgt_data": ("input", cols * spec.wgt.bits),
        "act_valid": ("input", 1),
        "act_ready": ("output", 1),
        "act_data": ("input", rows * spec.act.bits),
        "psum_valid": ("output", 1),
        "psum_data": ("output", cols * spec.psum.bits),
        "psum_last": ("output", 1),
    }
    if name == "shift-add":
        want |= {"act_sum": ("output", spec.psum.bits), "wgt_unsigned": ("input", 1)}
    assert top_ports(text, array.module_name(name, rows, cols, dataflow)) == want


@pytest.mark.parametrize(("name", "rows", "cols", "dataflow"), CASES)
def test_one_array_module_one_pe_module_and_a_full_grid_of_instances(
    name: str, rows: int, cols: int, dataflow: str
) -> None:
    spec = pe.get(name)
    text = verilog(name, rows, cols, dataflow)
    cell = f"{spec.module_stem}_{dataflow}"
    assert re.findall(r"^module (\S+?)\(", text, re.MULTILINE) == [f"{cell}_{rows}x{cols}", cell]
    assert array.module_name(name, rows, cols, dataflow) == f"{cell}_{rows}x{cols}"
    width = cols + spec.zero_point_column
    instances = re.findall(rf"^  {cell} (\S+) \($", text, re.MULTILINE)
    assert sorted(instances) == sorted(f"pe_r{row}_c{col}" for row in range(rows) for col in range(width))
    assert not re.search(r"^\s*\.\\|^\s*(input|output).*\\|^  \S+ \\\S+ \($", text, re.MULTILINE), "escaped identifier"


@pytest.mark.parametrize(("name", "rows", "cols", "dataflow"), CASES)
def test_lint_is_clean(name: str, rows: int, cols: int, dataflow: str) -> None:
    assert lint(verilog(name, rows, cols, dataflow), array.module_name(name, rows, cols, dataflow)) == []


def test_module_names() -> None:
    assert array.module_name("int8-mac", 16, 16, "ws") == "int8_mac_ws_16x16"
    assert array.module_name("shift-add", 8, 4, "os", group=32) == "shift_add_g32_os_8x4"
    assert array.module_name(pe.get("fp16-mac"), 2, 3, "ws") == "fp16_mac_ws_2x3"


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_text_is_the_same_in_another_process(dataflow: str) -> None:
    program = f"from bitwright.rtl import array; print(array.verilog('shift-add', 3, 2, {dataflow!r}), end='')"
    environment = {"PYTHONHASHSEED": "4242"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == array.verilog("shift-add", 3, 2, dataflow)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int8-mac", 0, 4, "ws"), "array.rows = 0: must be in 1..256"),
        (("int8-mac", 4, 257, "os"), "array.cols = 257: must be in 1..256"),
        (
            ("int8-mac", 4, 4, "is"),
            "int8-mac dataflow = 'is': no such cell (known: os, ws)",
        ),
    ],
)
def test_impossible_arrays_are_refused(arguments: tuple[str, int, int, str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        array.SystolicArray(*arguments)
    assert str(refused.value) == message


def test_parameters_beside_a_spec_are_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        array.SystolicArray(pe.get("shift-add"), 2, 2, "ws", group=32)
    assert str(refused.value) == "array parameters = ['group']: a PE spec has its own; give a PE name with them"
