"""Activations as a machine's PE takes them, of no layer in particular."""

from __future__ import annotations

import numpy as np
from bitwright.arch import formats
from bitwright.arch.isa.limits import Limits
from bitwright.arch.pe.broadcast import PairFamily
from bitwright.workloads.linear import F32, Fp16Rule, Operand, encode_int8_acts


def operand(limits: Limits, fmt: str, acts: F32) -> Operand:
    """Activations [m, k] as the PE takes them beside weights of `fmt`: fp16, int8, or pairs as wide as the weights'."""
    if limits.pe.act.kind == "float":
        return Fp16Rule("fp16", None).encode_acts(acts, 1, "gemm")
    if not isinstance(limits.tile, PairFamily):
        return encode_int8_acts(acts, None)
    narrow = "ovp4_flint" if limits.tile.spec.normal == "flint4" else "ovp4"
    form = formats.get("ovp8" if limits.tile.mode(fmt) else narrow)
    codes = form.integers(form.encode(acts, group=None, scale_format="fp32"))
    most = int(np.abs(codes.ints).max())
    return Operand(codes.ints.astype(np.float32), codes.scales, acts.shape[1], most)
