`define STEP_BITS 18  // of the step: last, first, wgt and act of int8-mac with one lane
