"""How a design gets on a board: board tops, open-source build flows, the host driver.

`run`, `build` and `program` are the commands of the same name. Importing this module imports no tool.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitwright.arch.machine import Machine


def run(machine: Machine, port: str, m: int, k: int, n: int, *, array: bool = False, **options: Any) -> dict[str, Any]:
    """A product on the board at `port`, every output compared: `bitwright.fpga.host.running.run`.

    array : what is on the board is the machine's array alone: `bitwright.fpga.host.arrays.run`.
    """
    from importlib.util import find_spec

    from bitwright.arch.errors import ToolError

    if array:
        if find_spec("amaranth") is None:
            raise ToolError("amaranth: not installed; install it (python -m pip install 'bitwright[hdl]')")
        from bitwright.fpga.host import arrays

        return arrays.run(machine, port, m, k, n, **options)
    from bitwright.fpga.host import running

    return running.run(machine, port, m, k, n, **options)


def build(machine: Machine, board: str, folder: Path, *, array: bool = False, **options: Any) -> dict[str, Any]:
    """A machine's bitstream for a board: `bitwright.fpga.building.build`; of an AMD board `fpga.vivado.export`."""
    from importlib.util import find_spec

    from bitwright.arch.errors import ToolError
    from bitwright.fpga import boards

    known = boards.get(board)
    for package in ("amaranth", "pyosys"):
        if find_spec(package) is None:
            raise ToolError(f"{package}: not installed; install it (python -m pip install 'bitwright[hdl,fpga]')")
    if known.amd:
        from bitwright.fpga import vivado

        return vivado.export(machine, known, folder, array=array, **options)
    from bitwright.fpga import building

    return building.build(machine, known, folder, array=array, **options)


def report(machine: Machine, board: str, folder: Path, *, array: bool = False, **options: Any) -> dict[str, Any]:
    """`build`, with `blocks` (what each block takes, `fpga.blocks`) and `fits` (arrays that fit, `fpga.fitting`)."""
    row = build(machine, board, folder, array=array, **options)
    from bitwright.fpga import blocks, boards, building, fitting

    known = boards.get(board)
    kept = Path(row["bitstream"] or row["script"]).parent
    design = building.Design(machine, known, array)
    progress = options.get("progress") or building.silent
    return row | {"blocks": blocks.of_build(kept, design, progress), "fits": fitting.sizes(known)}


def program(bitstream: Path, board: str) -> None:
    """Load a bitstream into a board: `bitwright.fpga.building.program`."""
    from bitwright.fpga import boards, building

    building.program(bitstream, boards.get(board))
