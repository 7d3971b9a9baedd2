"""The accelerator, cycle by cycle, in two engines that must agree: `engine` on SimPy and `fast` without."""
