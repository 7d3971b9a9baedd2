"""When things happen and what they cost: engines, energy, sweeps, the result store."""
