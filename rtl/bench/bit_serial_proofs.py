"""Proofs of the bit-serial PE's handshakes, on its generated Verilog; its arithmetic plays no part in them.

    bitwright prove bit-serial:acc_bits=24

Any slices, idle cycles, back-pressure, clears, resets and writes of special values, from any power-up state:
    one-clock, ready-ignores-valid, valid-is-register, payload-from-registers   What the cones show.
    valid-holds, payload-holds   A sum on offer stays until it is taken, even while a clear drops the rest.
    reset-clears                 Nothing is on offer after a reset.
    none-lost-none-twice         Sums taken are the channels taken, less those that a clear dropped, in number.
    slice-in-time                While sums are taken at once, a slice of any encoding is taken in LONGEST_SLICE cycles.
The stall of a streaming PE (`registers-hold`) has no counterpart: behind a sum that waits, stages go on until they are
full.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import Encoding
from bitwright.rtl.formal import tools
from bitwright.rtl.formal.harness import Harness, Ports, shown
from bitwright.rtl.formal.model import Result, Setting, decide, write
from bitwright.rtl.formal.netlist import Design, read
from bitwright.rtl.pe import streaming
from bitwright.rtl.pe.bit_serial import SLICE, stage_names

_PORTS = Ports(SLICE.size, 32, SLICE["group_end"].offset, SLICE["channel_end"].offset, step="slice", sum="column")
# Cycles of a slice of 4 terms behind two short groups, whose ends wait for the scale; 15 can be refuted.
LONGEST_SLICE = 16


def _harness(exposed: dict[str, int]) -> Harness:
    """The PE with free clears and writes of special values."""
    free = {"clear": 1, "special_write": 1, "special_index": 2, "special_value": 6}
    harness = Harness(_PORTS, exposed, {name: f"any_{name}" for name in free})
    for name, bits in free.items():
        harness.lines.append(f"(* anyseq *) reg [{bits - 1}:0] any_{name};")
    return harness


def structure(setting: Setting, design: Design) -> Iterator[Result]:
    """What the cones show."""
    ready, valid, payload = (_PORTS.wire(name) for name in ("step_ready", "sum_valid", "sum_payload"))
    held = {bit for register in design.registers for bit in register.bits}
    clock = design.bits("clk")[0]
    checks = {
        "one-clock": all(item.cell == "$dff" and item.clock == clock for item in design.registers),
        "ready-ignores-valid": _PORTS.wire("step_valid") not in design.inputs_of(design.bits(ready)),
        "valid-is-register": set(design.bits(valid)) <= held,
        "payload-from-registers": not design.inputs_of(design.bits(payload)),
    }
    for name, holds in checks.items():
        yield setting.result(name, "structure", 0, "proved" if holds else "refuted", 0.0)


def offers(setting: Setting) -> Iterator[Result]:
    """A sum on offer stays, and goes with a reset."""
    harness = _harness({})
    harness.past("stalled", "stall && !rst", 1)
    harness.past("was_reset", "rst", 1)
    harness.past("last_payload", "sum_payload", 32)
    harness.claim("valid-holds", "!stalled || sum_valid")
    harness.claim("payload-holds", "!stalled || sum_payload == last_payload")
    harness.claim("reset-clears", "!was_reset || !sum_valid")
    path = write(setting, "offers", harness)
    yield from decide(setting, "offers", harness, path, depth=1, bounded=3)


def counts(setting: Setting, spec: BitSerial) -> Iterator[Result]:
    """As many sums as channels: what is owed is what the stages hold, counted by their marks."""
    marks: list[tuple[str, ...]] = [
        (f"{name}_valid", f"{name}_group_end", f"{name}_channel_end") for name in stage_names(spec)
    ]
    marks += [("scale_busy", "group_end"), ("product_valid", "scaled_end"), ("part_valid", "part_end")]
    harness = _harness({name: 1 for mark in marks for name in mark})
    flying = [" && ".join(shown(name) for name in mark) for mark in marks] + ["sum_valid"]
    harness.wire("flying", 4, " + ".join(f"{{3'd0, {each}}}" for each in flying))
    harness.ghost(
        "owed", 4, "any_clear ? {3'd0, stall} : owed + {3'd0, taken && first && last} - {3'd0, sum_valid && sum_ready}"
    )
    harness.claim("none-lost-none-twice", "!started || owed == flying")
    path = write(setting, "counts", harness)
    yield from decide(setting, "counts", harness, path, depth=2, bounded=12)


def time_of_slice(setting: Setting, spec: BitSerial) -> Iterator[Result]:
    """No slice waits long while sums are taken at once."""
    ends = [(f"{name}_valid", f"{name}_group_end") for name in stage_names(spec)]
    exposed = {"term": 2, **{name: 1 for pair in ends for name in pair}}
    harness = _harness(exposed)
    harness.stalls = False
    encoding = SLICE["encoding"].offset
    harness.assume(f"!step_valid || step_payload[{encoding + 2}:{encoding}] < {len(Encoding)}")
    harness.ghost("cycles", 5, "taken || any_clear ? 0 : cycles + 1", enable="step_valid")
    harness.claim("slice-in-time", f"!started || cycles < {LONGEST_SLICE}")
    # What helps the induction: where a slice's terms are, and that no two neighbours end groups.
    harness.claim("slice-in-time", f"!started || {shown('term')} <= cycles")
    harness.claim("slice-in-time", f"!started || waiting || ({shown('term')} == 0 && cycles == 0)")
    marked = [" && ".join(shown(name) for name in pair) for pair in ends]
    harness.claim("slice-in-time", f"!started || !({marked[0]}) || {shown('term')} == 0")
    for one, other in pairwise(marked):
        harness.claim("slice-in-time", f"!started || !({one} && {other})")
    path = write(setting, "time", harness)
    yield from decide(setting, "time", harness, path, depth=LONGEST_SLICE + 8, bounded=LONGEST_SLICE + 12)


def prove(spec: BitSerial, variant: str, *, solver: str = "yices", timeout_s: float = 120) -> Iterator[Result]:
    """All proofs of the PE as they end. Raises ToolError when a solver or Yosys is missing."""
    tools.require(solver)
    with TemporaryDirectory(prefix="bitwright-proofs-") as folder:
        work = Path(folder)
        setting = Setting(spec.name, variant, work, solver, timeout_s)
        yield from structure(setting, read(streaming.verilog(spec), work))
        yield from offers(setting)
        for proof in (counts, time_of_slice):
            yield from proof(setting, spec)
