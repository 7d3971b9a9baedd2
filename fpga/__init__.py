"""How a design gets on a board: board tops, open-source build flows, the host driver.

`run` is the command of the same name. Importing this module imports no tool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitwright.arch.machine import Machine


def run(machine: Machine, port: str, m: int, k: int, n: int, **options: Any) -> dict[str, Any]:
    """act[m, k] . wgt[n, k] on the board at `port`, every output compared: `bitwright.fpga.host.running.run`."""
    from bitwright.fpga.host import running

    return running.run(machine, port, m, k, n, **options)
