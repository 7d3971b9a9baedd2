"""Random matrix products on random machines of every array template that whole models run on."""

from __future__ import annotations

import hypothesis.strategies as st
from bitwright.arch import machine as machines
from bitwright.workloads.operators import Gemm

_FORMATS = {
    "fp16-mac": ("fp16",),
    "int8-mac": ("int8",),
    "shift-add": ("int4",),
    "bit-serial": ("bitmod_fp4", "bitmod_fp3", "int8"),
    "lut": ("int2", "int4_asym"),
    "outlier-victim": ("ovp4", "ovp8"),
}
_GROUPED = ("int4", "bitmod_fp4", "bitmod_fp3", "int4_asym")


@st.composite
def gemms_on_machines(draw: st.DrawFn, most: int = 70) -> tuple[machines.Machine, Gemm]:
    """A machine and a product of at most `most` in each direction."""
    pe = draw(st.sampled_from(sorted(_FORMATS)))
    rows, cols = draw(st.sampled_from([(2, 2), (4, 4), (8, 8), (16, 4), (3, 5)]))
    systolic = pe in ("fp16-mac", "int8-mac", "shift-add")
    flow = draw(st.sampled_from(["ws", "os"])) if systolic else "os"
    machine = machines.with_changes(
        machines.load(f"{pe}-{rows}x{cols}-{flow}"),
        buffers_kib=draw(st.sampled_from(["2,2,2", "4,2,8", "64,64,64"])),
    )
    weights = draw(st.sampled_from(_FORMATS[pe]))
    group = draw(st.sampled_from([8, 16, 64])) if weights in _GROUPED else None
    m, k, n = (draw(st.integers(1, most)) for _ in range(3))
    return machine, Gemm("g", "ffn", m, k, n, 1, weights, group)
