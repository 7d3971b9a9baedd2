"""What PEs take of FPGAs, and the largest arrays that fit: `python -m bitwright.fpga.sizing` -> arch/costs/fpga.json.

PEs behind streams (docs/pe-library.md), alone, by synthesis (fpga.cell_counts). Arrays behind a serial line
(fpga.array_top) on parts of three families: the largest by synthesis is found by a search that keeps it between one
that fits and one that does not, then placed and routed; where that fails or does not reach the board's clock, the next
smaller one is tried. The largest that closes is routed with three seeds. A run that reaches its cap is stopped and
written down as capped.

The table is written after each run; what is there and still of today's Verilog, tools and scripts is kept, so that a
run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bitwright.arch import costs
from bitwright.arch.errors import ToolError
from bitwright.arch.machine import Machine
from bitwright.fpga import array_top, boards, tools
from bitwright.fpga.boards import Board
from bitwright.fpga.cell_counts import (
    Arithmetic,
    Ran,
    capacity,
    cells_of,
    gowin_series,
    resources,
    run_capped,
    script,
    synthesize,
)
from bitwright.fpga.wrapping import TOP, constraints, wrapper
from bitwright.rtl.asic import cells, commands, stream_costs
from bitwright.rtl.asic.jsonout import write_json
from bitwright.rtl.asic.synthesis import sha256_text, yosys_version
from bitwright.rtl.pe import streaming

TABLE = "fpga.json"
SEEDS = (1, 2, 3)
FIRST_SIZE = 5
"""Index of the size that a search begins with: 3 x 4 places, or six columns."""
CAP_S = 1800
Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of array whose largest is looked for.

    Members
        pe, weights : of its machine, and the weight format that its MACs are counted with
        arithmetic : where multiplications go
        rows : of every size; None: about as many as columns
    """

    pe: str
    weights: str
    arithmetic: Arithmetic
    rows: int | None = None

    def sizes(self, most: int = 256) -> list[tuple[int, int]]:
        """Rows and columns, from the smallest to the largest."""
        if self.rows is not None:
            return [(self.rows, cols) for cols in range(1, most + 1)]
        return [size for n in range(1, most) for size in ((n, n), (n, n + 1))]

    def machine(self, rows: int, cols: int) -> Machine:
        """The machine of a size; its buffers and port do not matter to its array."""
        tile = self.pe.partition(":")[0] in ("lut", "bit-serial")
        array = {"rows": rows, "cols": cols, "dataflow": "os" if tile else "ws"}
        name = f"{self.pe.replace(':', '-').replace('=', '')}-{rows}x{cols}"
        return Machine.model_validate({"name": name, "pe": self.pe, "array": array, "formats": [self.weights]})


KINDS = {
    "int8 in DSPs": Kind("int8-mac", "int8", Arithmetic.DSP),
    "int8 in LUTs": Kind("int8-mac", "int8", Arithmetic.LUT),
    "shift-add": Kind("shift-add", "int4", Arithmetic.LUT),
    "bit-serial": Kind("bit-serial", "bitmod_fp4", Arithmetic.LUT),
    "lut": Kind("lut:weight_bits=4", "int4", Arithmetic.LUT, rows=2),
}
FAMILIES = ("ecp5", "ice40", "gowin", "xc7")
"""Whose cells PEs are counted in."""
BOARDS = ("tang-nano-9k", "icebreaker", "ulx3s-85f")
"""From the smallest to the largest part."""


def pe_row(name: str, cap_s: float) -> Row:
    """LUT, FF, DSP and BRAM of a PE on every family, multiplications in DSPs and in LUTs."""
    spec = cells.stream_spec(name)
    verilog, top = streaming.verilog(spec), spec.module_stem
    row: Row = {"rtl_sha256": sha256_text(verilog), "tool": yosys_version(), "scripts": _scripts()}
    for family in FAMILIES:
        row[family] = {}
        for arithmetic in Arithmetic:
            with TemporaryDirectory() as folder:
                ran = synthesize(Path(folder), verilog, script(family, arithmetic, top, pads=False), cap_s)
                row[family][arithmetic.value] = _counted(ran, Path(folder), family, top)
    return row


def _scripts() -> dict[str, str]:
    return {f"{family}, {one}": script(family, one, "TOP", pads=False) for family in FAMILIES for one in Arithmetic}


def _counted(ran: Ran, folder: Path, family: str, top: str) -> Row:
    """The resources of a synthesis, or why there are none."""
    if ran.status == 0:
        return resources(family, cells_of(folder / "design.json", top)) | {"synthesis_s": ran.seconds}
    if ran.status is None:
        return {"capped_s": ran.seconds, "memory_mib": ran.memory_mib}
    lines = (folder / "yosys.log").read_text(errors="replace").strip().splitlines()
    if any("bad_alloc" in line or "out of memory" in line for line in lines[-5:]):
        return {"out_of_memory_mib": ran.memory_mib}
    raise ToolError(f"yosys: status {ran.status} on {top}, {family}: {lines[-1] if lines else 'no message'}")


class Search:
    """The largest array of a kind on a board.

    Parameters
        board, kind, cap_s
        kept : sizes that were synthesised or routed before, by "RxC": filled as the search goes on
        changed : called after each run
    """

    def __init__(self, board: Board, kind: Kind, kept: Row, cap_s: float, changed: Callable[[], None]) -> None:
        self.board, self.kind, self.kept, self.cap_s, self._changed = board, kind, kept, cap_s, changed
        self.sizes = kind.sizes()
        self._script = script(board.family, kind.arithmetic, TOP, pads=True, gowin=gowin_series(board))

    def largest_by_synthesis(self) -> int:
        """Index of the largest size whose netlist exceeds nothing; -1 for none.

        The next size to try is where a straight line through the two nearest ones that are known meets the part's
        capacity, kept between the largest that fits and the smallest that does not.
        """
        fits, fails = -1, len(self.sizes)
        known: dict[int, float] = {}
        guess = min(FIRST_SIZE, fails - 1)
        while fails - fits > 1:
            known[guess] = self._share(guess)
            fits, fails = (guess, fails) if known[guess] <= 1 else (fits, guess)
            guess = min(max(self._meets(known), fits + 1), fails - 1)
        return fits

    def _meets(self, known: Mapping[int, float]) -> int:
        """The index at which the share of the part reaches 1, from the shares at those of two known sizes or of one."""
        places = {index: self.sizes[index][0] * self.sizes[index][1] for index in known}
        nearest = sorted(
            (index for index in known if known[index] < float("inf")), key=lambda index: abs(known[index] - 1)
        )
        first, second = (*nearest[:2], None, None)[:2]
        if first is None:
            return min(known) // 2
        if second is None or known[first] == known[second]:
            most = places[first] / known[first]
        else:
            slope = (places[first] - places[second]) / (known[first] - known[second])
            most = places[first] + (1 - known[first]) * slope
        return sum(rows * cols <= most for rows, cols in self.sizes) - 1

    def largest_that_closes(self, bound: int) -> int:
        """Index of the largest size, from `bound` down, that is routed and meets the board's clock; -1: none."""
        for index in range(bound, -1, -1):
            if self._route(index, SEEDS[:1])[0].get("closes", False):
                self._route(index, SEEDS)
                return index
        return -1

    def _entry(self, index: int) -> Row:
        rows, cols = self.sizes[index]
        machine = self.kind.machine(rows, cols)
        module, text = array_top.verilog(machine, self.board)
        made_from = {
            "rtl_sha256": sha256_text(text),
            "tools": [yosys_version(), tools.router(self.board)],
            "script": self._script,
        }
        entry: Row = self.kept.setdefault(f"{rows}x{cols}", {})
        if not made_from.items() <= entry.items():
            entry.clear()
            entry.update(made_from, macs_per_cycle=float(machine.macs_a_cycle(self.kind.weights)))
        self._text = text + wrapper(self.board, module)
        return entry

    def _share(self, index: int) -> float:
        """Of what the part has the share that a netlist needs, of its scarcest; infinite where synthesis was capped."""
        entry = self._entry(index)
        if "synthesis" not in entry:
            with TemporaryDirectory() as folder:
                entry["synthesis"] = self._synthesized(Path(folder))
                self._changed()
        used = entry["synthesis"]
        if "lut" not in used:
            return float("inf")
        return max(used[what] / most for what, most in capacity(self.board).items())

    def _synthesized(self, folder: Path) -> Row:
        family = self.board.family
        ran = synthesize(folder, self._text, self._script, self.cap_s)
        return _counted(ran, folder, family, TOP)

    def _route(self, index: int, seeds: tuple[int, ...]) -> list[Row]:
        """A size placed and routed with each seed; what is kept is not run again, and one netlist serves all seeds."""
        entry = self._entry(index)
        runs: Row = entry.setdefault("routed", {})
        missing = [seed for seed in seeds if str(seed) not in runs]
        if missing:
            # Not in the system's temporary folder: pip's tools see another one there.
            work = commands.work_folder("fpga-sizing")
            work.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=work) as name:
                folder = Path(name)
                if "lut" not in self._synthesized(folder):
                    raise ToolError(f"yosys: reached a cap that it kept before, {self.kind.pe}, {self.board.name}")
                for seed in missing:
                    runs[str(seed)] = self._routed(folder, seed)
                    self._changed()
        return [runs[str(seed)] for seed in seeds]

    def _routed(self, folder: Path, seed: int) -> Row:
        (folder / "pins").write_text(constraints(self.board))
        command = tools.commands(self.board, seed)[0]
        ran = run_capped([*command, "--timing-allow-fail"], folder, "route.log", self.cap_s)
        row: Row = {"seconds": ran.seconds, "memory_mib": ran.memory_mib, "cap_s": self.cap_s}
        if ran.status is None:
            return row | {"capped": True}
        if ran.status:
            lines = (folder / "route.log").read_text(errors="replace").splitlines()
            errors = [line for line in lines if line.startswith(("ERROR", "Error"))] or lines[-1:] or ["no message"]
            return row | {"failed": errors[0].removeprefix("ERROR: ")}
        report = json.loads((folder / "report.json").read_text())
        fmax_mhz = min(clock["achieved"] for clock in report["fmax"].values())
        used = {kind: count["used"] for kind, count in report["utilization"].items() if count["used"]}
        return row | {"fmax_mhz": fmax_mhz, "closes": fmax_mhz >= self.board.clock_hz / 1e6, "utilisation": used}


def build(path: Path, *, pes: list[str], pairs: list[tuple[str, str]], cap_s: float, route: bool) -> Row:
    """Fill in what is missing or stale of the table at `path`: rows of PEs, and (board, kind) pairs of arrays."""
    table: Row = json.loads(path.read_text()) if path.is_file() else {}
    table |= {"schema_version": 1, "command": "python -m bitwright.fpga.sizing"}

    def changed() -> None:
        write_json(path, table)

    rows = table.setdefault("pes", {})
    for name in pes:
        wanted = {"rtl_sha256": stream_costs.rtl_sha256(name), "tool": yosys_version(), "scripts": _scripts()}
        if not wanted.items() <= rows.get(name, {}).items():
            print(f"PE: {name}", file=sys.stderr, flush=True)
            rows[name] = pe_row(name, cap_s)
            changed()
    for board_name, kind_name in pairs:
        print(f"array: {kind_name} on {board_name}", file=sys.stderr, flush=True)
        entry = table.setdefault("arrays", {}).setdefault(board_name, {}).setdefault(kind_name, {"sizes": {}})
        search = Search(boards.get(board_name), KINDS[kind_name], entry["sizes"], cap_s, changed)
        bound = search.largest_by_synthesis()
        entry["largest_by_synthesis"] = _named(search, bound)
        changed()
        if route:
            entry["largest"] = _named(search, search.largest_that_closes(bound))
            changed()
    return table


def _named(search: Search, index: int) -> str | None:
    return None if index < 0 else "{}x{}".format(*search.sizes[index])


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="Resources of PEs on FPGAs, and the largest arrays")
    parser.add_argument("--cap-seconds", type=float, default=CAP_S, help="of a run of one tool")
    parser.add_argument("--pe", action="append", help="only this PE (again for more); --pe none for none")
    parser.add_argument("--board", action="append", choices=BOARDS, help="only this board (again for more)")
    parser.add_argument("--kind", action="append", choices=[*KINDS], help="only this kind (again for more)")
    parser.add_argument("--synthesis-only", action="store_true", help="arrays are not placed and routed")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    path = options.output or Path(costs.__file__).parent / TABLE
    pes = [name for name in stream_costs.PES if options.pe is None or name in options.pe]
    pairs = [(board, kind) for board in options.board or BOARDS for kind in options.kind or KINDS]
    build(path, pes=pes, pairs=pairs, cap_s=options.cap_seconds, route=not options.synthesis_only)
    print(json.dumps({"output": str(path)}))


if __name__ == "__main__":
    commands.run(main)
