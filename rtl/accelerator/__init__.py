"""The whole accelerator: array, memories, vector unit, controller and memory port, run by programs of `arch.isa`."""
