"""Proofs of the bit-serial PE's handshakes, on its generated Verilog; its arithmetic plays no part in them.

    python -m bitwright.rtl.bench.bit_serial_proofs [bit-serial:acc_bits=24] [--write]

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

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bitwright.arch import pe
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import Encoding
from bitwright.rtl.bench.stream import evidence
from bitwright.rtl.formal import tools
from bitwright.rtl.formal.harness import Harness, Ports, shown
from bitwright.rtl.formal.model import Result, Setting, decide, write
from bitwright.rtl.formal.netlist import Design, read
from bitwright.rtl.pe import streaming
from bitwright.rtl.pe.bit_serial import SLICE

_PORTS = Ports(SLICE.size, 32, SLICE["group_end"].offset, SLICE["channel_end"].offset, step="slice", sum="column")
_STAGES = ("encoded", "exponents", "summed", "step")
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
        yield setting.result(name, "structure", 0, "proved" if holds else "failed", 0.0)


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


def counts(setting: Setting) -> Iterator[Result]:
    """As many sums as channels: what is owed is what the stages hold, counted by their marks."""
    marks: list[tuple[str, ...]] = [(f"{name}_valid", f"{name}_group_end", f"{name}_channel_end") for name in _STAGES]
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


def time_of_slice(setting: Setting) -> Iterator[Result]:
    """No slice waits long while sums are taken at once."""
    ends = [(f"{name}_valid", f"{name}_group_end") for name in _STAGES]
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


@dataclass(frozen=True)
class Proved:
    """All results of one PE."""

    results: tuple[Result, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if not result.proved)


def prove(spec: BitSerial, params: dict[str, Any], *, solver: str = "yices", timeout_s: float = 120) -> Proved:
    """All proofs of the PE. Raises ToolError when a solver or Yosys is missing."""
    tools.require(solver)
    with TemporaryDirectory(prefix="bitwright-proofs-") as folder:
        work = Path(folder)
        setting = Setting(spec.name, evidence.shown(spec.name, params), work, solver, timeout_s)
        design = read(streaming.verilog(spec), work)
        found = [*structure(setting, design), *offers(setting), *counts(setting), *time_of_slice(setting)]
    return Proved(tuple(found))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Proofs of the bit-serial PE's handshakes.")
    parser.add_argument("pe", nargs="?", default=BitSerial.name, help="bit-serial, or bit-serial:acc_bits=N")
    parser.add_argument("--solver", default="yices", choices=tuple(tools.SOLVERS))
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for each")
    parser.add_argument("--write", action="store_true", help="put the outcome into docs/evidence")
    options = parser.parse_args(arguments)
    name, params = pe.parse_name(options.pe)
    if name != BitSerial.name:
        raise ConfigError(f"pe = {name}: must be {BitSerial.name} (others: bitwright prove)")
    spec = BitSerial(**params)
    began = time.monotonic()
    found = prove(spec, params, solver=options.solver, timeout_s=options.timeout)
    which = evidence.shown(name, params)
    for result in found.results:
        print(
            f"{which} {result.property}: {result.result} ({result.method}, {result.depth} cycles, "
            f"{result.seconds:.1f} s)"
        )
        if options.write:
            hardware: Any = spec
            figures = {key: getattr(result, key) for key in ("property", "method", "depth", "result")}
            command = f"python -m bitwright.rtl.bench.bit_serial_proofs {which}"
            evidence.store(evidence.row(hardware, params, "proof", figures, command))
    print(f"{len(found.results) - len(found.failed)} of {len(found.results)} proved; {time.monotonic() - began:.0f} s")
    return 1 if found.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
