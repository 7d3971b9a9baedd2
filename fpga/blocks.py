"""What each block of a design takes: Yosys on the hierarchy as it is written, module by module.

A build flattens the design first, which lets Yosys work across blocks and leaves no names: its cells cannot be told
apart by block. Here nothing crosses a block's border, so that the sum is more than the build's (docs/fpga.md says by
how much for one machine). Neither placed nor timed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from bitwright.fpga.building import Design, Progress, yosys
from bitwright.fpga.cell_counts import LUT, resources
from bitwright.fpga.wrapping import TOP

LARGE = 0.1
"""Share of a design's LUTs beyond which a block is told by its own blocks."""


class Hierarchy:
    """Modules of a netlist of Yosys that is not flattened."""

    def __init__(self, netlist: Path, top: str) -> None:
        modules: dict[str, Any] = json.loads(netlist.read_text())["modules"]
        self.top = top
        self._modules = {
            name: module["cells"] for name, module in modules.items()
            if not {"blackbox", "whitebox"} & module.get("attributes", {}).keys()
        }  # fmt: skip
        self._totals: dict[str, Counter[str]] = {}

    def total(self, module: str) -> Counter[str]:
        """Primitive cells of a module and all below it, by type."""
        if module not in self._totals:
            found = self.own(module)
            for _, inner in self.inside(module):
                found += self.total(inner)
            self._totals[module] = found
        return self._totals[module]

    def own(self, module: str) -> Counter[str]:
        """Primitive cells of a module alone."""
        return Counter(cell["type"] for cell in self._modules[module].values() if cell["type"] not in self._modules)

    def inside(self, module: str) -> Iterator[tuple[str, str]]:
        """Name and module of each block in a module."""
        for name, cell in self._modules[module].items():
            if cell["type"] in self._modules:
                yield name, cell["type"]

    @cached_property
    def cells(self) -> Counter[str]:
        """Primitive cells of the design."""
        return self.total(self.top)


def by_block(netlist: Path, family: str, top: str = TOP) -> list[dict[str, Any]]:
    """`block` (its path), `lut`, `ff`, `dsp`, `bram` of every block: the rows sum to the design.

    A block with more than LARGE of the LUTs is told by its blocks, and by a row "PATH, itself" of what is in none.
    ToolError for a cell that fpga.cell_counts does not know.
    """
    design = Hierarchy(netlist, top)
    most = LARGE * resources(family, design.cells)[LUT]

    def rows(path: str, module: str) -> Iterator[dict[str, Any]]:
        inner = list(design.inside(module))
        if not inner or resources(family, design.total(module))[LUT] <= most:
            yield {"block": path} | resources(family, design.total(module))
            return
        for name, kind in inner:
            yield from rows(f"{path}.{name}" if path else name, kind)
        if design.own(module):
            yield {"block": f"{path}, itself" if path else "the top, itself"} | resources(family, design.own(module))

    return [row for row in rows("", top) if any(amount for key, amount in row.items() if key != "block")]


def of_build(kept: Path, design: Design, progress: Progress) -> list[dict[str, Any]]:
    """`by_block` of a build in its folder, where it is kept: as long again as the build's own synthesis."""
    table = kept / "blocks_table.json"
    if not table.is_file():
        board, script = design.board, (kept / "synthesis.ys").read_text()
        (kept / "blocks.ys").write_text(_hierarchical(script))
        progress("yosys-blocks", 0, 1)
        yosys(kept, design, "blocks.ys", "yosys-blocks")
        rows = by_block(kept / "blocks.json", board.family)
        (kept / "blocks.json").unlink()  # large
        half = kept / "blocks_table.part"
        half.write_text(json.dumps(rows, indent=1) + "\n")
        half.rename(table)
        progress("yosys-blocks", 1, 1)
    found: list[dict[str, Any]] = json.loads(table.read_text())
    return found


def _hierarchical(script: str) -> str:
    """A build's Yosys script with the hierarchy kept; Yosys keeps an AMD part's by itself."""
    kept = script.replace(" -flatten", "") if " -flatten" in script else script.replace(" -top", " -noflatten -top")
    return kept.replace("design.json", "blocks.json")
