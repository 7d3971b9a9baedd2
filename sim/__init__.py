"""When things happen and what they cost: engines, energy, sweeps, the result store.

`simulate` and `sweep` are the commands of the same name.
"""

from bitwright.sim.inference import Result, default_policy, simulate
from bitwright.sim.store import Store
from bitwright.sim.sweeping import sweep

__all__ = ["Result", "Store", "default_policy", "simulate", "sweep"]
