"""DRAM devices as data: geometry, timings in clocks with a source each, address map; and the rules that they mean.

`load(name)` gives a preset of presets.json, `legality.violations` judges a trace of commands by it, and
`bitwright.sim.dram` says when a controller issues which command. Energy is in `arch.costs` (activates and bits).
"""

from bitwright.arch.dram.commands import Command, Kind
from bitwright.arch.dram.legality import Violation, violations
from bitwright.arch.dram.presets import Device, Dram, Place, Timing, load, names, sources

__all__ = [
    "Command",
    "Device",
    "Dram",
    "Kind",
    "Place",
    "Timing",
    "Violation",
    "load",
    "names",
    "sources",
    "violations",
]
