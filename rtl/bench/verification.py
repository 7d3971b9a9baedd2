"""Every bench of a PE, run from outside the tests: its own Verilog, or a user's with the same ports.

Of a PE with a stream of steps the one cocotb bench of all of them (`cocotb_stream`) and bulk runs of the compiled
design; of a PE of the systolic template also its two cells and a small array of each dataflow; of any other its own
bench.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bitwright.arch import pe as specs
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.pe import PESpec
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.stream import FIRST, StreamSpec
from bitwright.rtl import array, pe
from bitwright.rtl.bench import bit_serial_bulk, user_verilog
from bitwright.rtl.bench.cocotb_runner import FailedTestsError, Failure, NoResultsError, require_simulator, run_cocotb
from bitwright.rtl.bench.stream import bulk, stimulus
from bitwright.rtl.bench.stream.script import longest_steps
from bitwright.rtl.bench.verilator import Compiled
from bitwright.rtl.pe import streaming

COCOTB, BULK = "cocotb", "bulk"  # kinds of tests
ROWS, COLS = 3, 4
CYCLES = 1000
EXHAUSTIVE_PAIRS = 1 << 20
BULK_LANE_STEPS, LEAST_BULK_STEPS = 1_000_000, 20_000
LARGEST_SEED = (1 << 31) - 1  # Verilator's
_STREAM_BENCH = "bitwright.rtl.bench.cocotb_stream"
_OWN_BENCHES = {"bit-serial": "bitwright.rtl.bench.cocotb_bit_serial"}


class Verdict(NamedTuple):
    """A design and the names of its tests that passed."""

    design: str
    tests: list[str]

    @property
    def kind(self) -> str:
        """Of the tests: "cocotb", or "bulk" for runs of the compiled design."""
        return COCOTB


class BulkVerdict(Verdict):
    """The same of bulk runs."""

    @property
    def kind(self) -> str:
        return BULK


@dataclass(frozen=True)
class Options:
    """How to verify.

    Fields
        simulator : "verilator" or "icarus"   Of the cocotb benches; the bulk runs always take Verilator.
        rtl : Path or None       A user's Verilog in place of ours.
        latency_cycles : int or None   Its latency, if it is not the spec's.
        seed : 1..2**31-1        Of stimulus and power-up state.
        waves : Path or None     A VCD file to write, of the stream bench (of bit-serial: of its own).
    """

    simulator: str = "verilator"
    rtl: Path | None = None
    latency_cycles: int | None = None
    seed: int = 1
    waves: Path | None = None

    def require_legal(self, name: str) -> None:
        """Raises ConfigError for options that cannot be, ToolError for a missing simulator."""
        require_simulator(self.simulator)
        if not 1 <= self.seed <= LARGEST_SEED:
            raise ConfigError(f"seed = {self.seed}: must be in 1..{LARGEST_SEED}")
        if self.latency_cycles is not None and self.rtl is None:
            raise ConfigError(
                f"latency = {self.latency_cycles}: is that of a Verilog file of yours (give --rtl FILE.v, or leave "
                f"the option out)"
            )
        if self.latency_cycles is not None and self.latency_cycles < 1:
            raise ConfigError(f"latency = {self.latency_cycles}: must be at least 1 cycle, sum.valid is a register")
        for option, path in (("rtl", self.rtl), ("waves", self.waves)):
            if path is not None and name == "all":
                raise ConfigError(f"{option} = {path}: goes with one PE, not with all (name the PE)")
        if self.waves is not None:
            try:
                self.waves.write_text("")
            except OSError as error:
                raise ConfigError(
                    f"waves = {self.waves}: cannot be written ({error.strerror}); choose another path"
                ) from error

    def command(self, name: str) -> str:
        """What to type to run the same again."""
        parts = [f"bitwright verify {name}"]
        if self.simulator != "verilator":
            parts.append(f"--simulator {self.simulator}")
        if self.rtl is not None:
            parts.append(f"--rtl {shlex.quote(str(self.rtl))}")
        if self.latency_cycles is not None:
            parts.append(f"--latency {self.latency_cycles}")
        parts.append(f"--seed {self.seed}")
        if self.waves is not None:
            parts.append(f"--waves {shlex.quote(str(self.waves))}")
        return " ".join(parts)


def verify_pe(text: str, options: Options | None = None) -> Iterator[Verdict]:
    """The verdict of every bench of a PE as it ends; `text` is its name with parameters.

    With parameters, and with a Verilog file of the user's, the stream bench (of bit-serial its own) alone.
    Raises ConfigError for options or a file that cannot be, FailedTestsError (a MismatchError) with the failed
    tests and their messages, ToolError when a tool is missing.
    """
    options = options or Options()
    name, params = specs.parse_name(text)
    if name in specs.names() and not params and options.rtl is None:
        yield from _systolic(name, options)
    replay = options.command(text)
    if name in specs.stream_names():
        yield from _stream(specs.stream(name, **params), params, options, replay)
        return
    spec = specs.get(name, **params)
    verilog, top = _design(spec, options)
    plusargs: dict[str, str | int] = {
        **spec.params, "latency": options.latency_cycles or spec.timing.latency_cycles,
        "strict": int(options.rtl is None), "cycles": 2 * CYCLES, "seed": options.seed,
    }  # fmt: skip
    yield Verdict(top, _run(verilog, top, _OWN_BENCHES[name], plusargs, options, replay, waves=options.waves))
    if isinstance(spec, BitSerial):
        yield BulkVerdict(top, bit_serial_tests(spec, Compiled(verilog, top), options.seed, replay))


def bit_serial_tests(spec: BitSerial, design: Compiled, seed: int, replay: str) -> list[str]:
    """As `bulk_tests`, of the bit-serial PE's channels."""
    totals: Counter[str] = Counter()
    for number, (name, channels) in enumerate(bit_serial_bulk.runs(spec, seed)):
        try:
            totals[name] += bit_serial_bulk.check(spec, design, channels, seed=power_up(seed, number), replay=replay)
        except MismatchError as error:
            raise _bulk_failure(name, error, design, replay) from error
    return [f"{name}: {total} slices" for name, total in totals.items()]


def power_up(seed: int, number: int) -> int:
    """The seed of the state in which a bulk run begins, another one for each run; Verilator's small seeds are alike."""
    return int(np.random.default_rng([seed, number]).integers(1, LARGEST_SEED))


def _bulk_failure(name: str, error: MismatchError, design: Compiled, replay: str) -> FailedTestsError:
    text = str(error)
    message = text if "replay: " in text else f"{text}\nreplay: {replay}"
    return FailedTestsError(message, [Failure(name, text)], design=design.top, kind=BULK, replay=replay)


def _design(spec: PESpec, options: Options) -> tuple[str, str]:
    """(Verilog, top module) to be verified."""
    verilog, top = streaming.verilog(spec), spec.module_stem
    if options.rtl is None:
        return verilog, top
    text, top = user_verilog.load(options.rtl, top, user_verilog.wanted_ports(verilog, top))
    if options.simulator == "icarus":
        user_verilog.require_icarus(options.rtl, text)
    return text, top


def _run(
    verilog: str, top: str, bench: str, plusargs: Mapping[str, str | int], options: Options, replay: str,
    waves: Path | None = None,
) -> list[str]:  # fmt: skip
    try:
        return run_cocotb(
            verilog, top, bench, plusargs=plusargs, seed=options.seed, simulator=options.simulator,
            unknown_state=bench in (_STREAM_BENCH, *_OWN_BENCHES.values()), waves=waves, replay=replay, lines=True,
        )  # fmt: skip
    except NoResultsError as error:
        if options.rtl is None:
            raise
        message = f"rtl = {options.rtl}: the simulation died; {error}"
        died = Failure(bench.rpartition(".")[2], message)
        raise FailedTestsError(f"{message}\nreplay: {replay}", [died], design=top, replay=replay) from error


def _stream(spec: StreamSpec, params: Mapping[str, Any], options: Options, replay: str) -> Iterator[Verdict]:
    """The stream bench, then bulk runs of the same design."""
    latency = options.latency_cycles or spec.timing.latency_cycles
    plusargs: dict[str, str | int] = {
        "pe": spec.name, "params": json.dumps(dict(params)), "latency": latency, "strict": int(options.rtl is None),
        "cycles": 2 * CYCLES, "seed": options.seed,
    }  # fmt: skip
    verilog, top = _design(spec, options)
    yield Verdict(top, _run(verilog, top, _STREAM_BENCH, plusargs, options, replay, waves=options.waves))
    yield BulkVerdict(top, bulk_tests(spec, Compiled(verilog, top), latency, options.seed, replay))


def bulk_tests(spec: StreamSpec, design: Compiled, latency_cycles: int, seed: int, replay: str) -> list[str]:
    """Names of the bulk runs that passed, with the number of steps of each: values, and cycles without stalls.

    Every pair of codes of the multiplied operands where they are at most `EXHAUSTIVE_PAIRS`, for every mode; else
    random ones only. Each part of a run begins in a power-up state of its own.
    """
    rng, passed, powered = np.random.default_rng(seed), [], 0
    many = max(LEAST_BULK_STEPS, BULK_LANE_STEPS // spec.macs_per_step)
    longest = longest_steps(spec)
    runs = {  # sums of one step first: a failure is easiest to read there
        "every_pair_of_codes": stimulus.every_pair(spec, seed) if stimulus.pair_count(spec) <= EXHAUSTIVE_PAIRS else [],
        "random_and_corner_codes": [
            stimulus.random_steps(spec, bulk.lengths_for(many, rng), seed, corner_share=share) for share in (0.0, 0.3)
        ],
        "sums_of_extreme_codes": [stimulus.extreme_steps(spec, 8)],
        "the_longest_sum_and_one_step_more": [] if longest is None else [longest],
        "real_tensors_of_smollm2": [stimulus.real_steps(spec, 64, seed)],
    }
    for name, parts in runs.items():
        total = 0
        for steps in parts:
            state, powered = power_up(seed, powered), powered + 1
            try:
                bulk.check(
                    spec, steps, design=design, latency_cycles=latency_cycles, seed=seed, power_up=state, run=name
                )
            except MismatchError as error:
                raise _bulk_failure(name, error, design, replay) from error
            total += len(steps[FIRST])
        if total:
            passed.append(f"{name}: {total} steps")
    return passed


def _systolic(name: str, options: Options) -> Iterator[Verdict]:
    """The cells and a small array of each dataflow."""
    spec, replay = specs.get(name), options.command(name)
    for dataflow in spec.dataflows:
        top, text = pe.module_name(name, dataflow), pe.verilog(name, dataflow)
        plusargs: dict[str, str | int] = {
            "pe": name, "dataflow": dataflow, "cycles": CYCLES, "seed": options.seed, "params": json.dumps({}),
        }  # fmt: skip
        yield Verdict(top, _run(text, top, "bitwright.rtl.bench.cocotb_cells", plusargs, options, replay))
    for dataflow in spec.dataflows:
        top, text = array.module_name(name, ROWS, COLS, dataflow), array.verilog(name, ROWS, COLS, dataflow)
        plusargs = {"pe": name, "rows": ROWS, "cols": COLS, "dataflow": dataflow, "seed": options.seed}
        yield Verdict(top, _run(text, top, "bitwright.rtl.bench.cocotb_array", plusargs, options, replay))
