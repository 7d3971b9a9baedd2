"""The one bench of all streaming PEs: stimulus, packing, cycle model, bulk runs through ctypes, cocotb."""
