"""When a DRAM does what: a controller burst by burst, the same as a closed function of runs, and whole memories."""

from bitwright.sim.dram.channel import Channel
from bitwright.sim.dram.memory import DramChannels, Served
from bitwright.sim.dram.reference import Counts, ReferenceChannel, Run

__all__ = ["Channel", "Counts", "DramChannels", "ReferenceChannel", "Run", "Served"]
