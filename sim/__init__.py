"""When things happen and what they cost: engines, energy, sweeps, the result store.

`simulate` and `sweep` are the commands of the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitwright.sim.inference import Result, default_policy, simulate
from bitwright.sim.store import Store

if TYPE_CHECKING:
    from bitwright.sim.sweeping import sweep

__all__ = ["Result", "Store", "default_policy", "simulate", "sweep"]


def __getattr__(name: str) -> Any:
    """`sweep` when it is asked for: pools of processes take 50 ms to load, and simulating needs none."""
    if name == "sweep":
        from bitwright.sim.sweeping import sweep

        return sweep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
