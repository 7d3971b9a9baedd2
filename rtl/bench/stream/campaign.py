"""Campaign of the streaming PEs: RTL against golden, in parts, until every variant has its numbers; it can be resumed.

For each PE and each of its variants: every pair of codes of the two operands where there are at most 2**24 (for every
mode), whole groups of 64 to 128 multiply-accumulates of random and corner codes and of a real model's operands, until
both `lane_steps` and `groups` are reached. Each part runs from random power-up state; every sum and every cycle is
compared; the first difference ends the campaign (MismatchError with the command that replays that part alone).

After every `SAVE_S` seconds and at the end of a variant its row in docs/evidence is replaced; a campaign that was
stopped, or killed, goes on from there. A row counts as done when `complete` is true and its Verilog is today's.

    python -m bitwright.rtl.bench.stream.campaign [--pe NAME ...] [--lane-steps N] [--groups N] [--seed S]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bitwright.arch import pe
from bitwright.arch.pe.stream import Steps, StreamSpec
from bitwright.rtl.bench.stream import bulk, evidence, stimulus

LANE_STEPS, GROUPS = 10**8, 10**6
EXHAUSTIVE_PAIRS = 1 << 24
GROUP_MACS = (64, 128)  # of one group, least and most
SAVE_S, TELL_S = 20.0, 5.0
_PART_STEPS = 1 << 16
_REAL_EVERY = 16  # one part in so many holds a real model's operands
_MOST_CYCLES = 1 << 19  # of a part: PEs with many cycles a step get fewer steps


@dataclass(frozen=True)
class Target:
    """How much is to be checked of a variant."""

    lane_steps: int = LANE_STEPS
    groups: int = GROUPS
    seed: int = 1


def group_steps(spec: StreamSpec, part: int, seed: int) -> Steps:
    """The groups of one part, all its own: random codes, or four of ten of them corners, or a real model's operands."""
    rng = np.random.default_rng([seed, part])
    least, most = (max(1, -(-macs // spec.macs_per_step)) for macs in GROUP_MACS)
    one_seed = int(rng.integers(1 << 31))
    if part % _REAL_EVERY == _REAL_EVERY - 1:
        return stimulus.real_steps(spec, max(1, _PART_STEPS * spec.macs_per_step // (576 * 8)), one_seed)
    count = max(1, 2 * _PART_STEPS // (least + most))
    probe = stimulus.random_steps(spec, np.full(4, most), one_seed)
    per_step = float(np.mean(spec.step_cycles(probe)))
    count = max(1, min(count, int(_MOST_CYCLES / per_step / most), (1 << 22) // (most * _payload_words(spec))))
    lengths = rng.integers(least, most + 1, count)
    return stimulus.random_steps(spec, lengths, one_seed, corner_share=(0.0, 0.4)[part % 2])


def _payload_words(spec: StreamSpec) -> int:
    return 1 + sum(field.bits * field.lanes for field in spec.step_fields) // 32


def exhaustive(spec: StreamSpec) -> bool:
    """Whether every pair of codes is tried."""
    return stimulus.pair_count(spec) <= EXHAUSTIVE_PAIRS


def pair_parts(spec: StreamSpec) -> int:
    """In how many parts every pair of every mode comes."""
    if not exhaustive(spec):
        return 0
    modes = [field for field in spec.step_fields if field.name in spec.modes]
    return int(np.prod([1 << field.bits for field in modes])) * -(-stimulus.pair_count(spec) // stimulus.PAIRS_AT_ONCE)


class Progress:
    """What has been checked of one variant so far; it is the row's figures."""

    def __init__(self, spec: StreamSpec, params: Mapping[str, Any], target: Target, folder: Path | None) -> None:
        self.spec, self.params, self.target, self.folder = spec, dict(params), target, folder
        found = evidence.find(spec, params, "campaign", folder)
        same = found is not None and found["figures"]["seed"] == target.seed
        self.figures: dict[str, Any] = (
            dict(found["figures"])
            if found is not None and same
            else {
                "lane_steps": 0, "steps": 0, "sums": 0, "groups": 0, "cycles": 0, "pair_parts": 0, "group_parts": 0,
                "pairs": 0, "mismatches": 0, "complete": False, "seed": target.seed,
            }
        )  # fmt: skip

    @property
    def pairs_left(self) -> bool:
        return bool(self.figures["pair_parts"] < pair_parts(self.spec))

    @property
    def groups_left(self) -> bool:
        return self.figures["lane_steps"] < self.target.lane_steps or self.figures["groups"] < self.target.groups

    def add(self, counts: bulk.Counts, kind: str) -> None:
        figures = self.figures
        figures["lane_steps"] += counts.macs
        figures["steps"] += counts.steps
        figures["sums"] += counts.sums
        figures["cycles"] += counts.cycles
        figures[f"{kind}_parts"] += 1
        if kind == "group":
            figures["groups"] += counts.sums

    def save(self) -> None:
        """Write the row."""
        figures, target = self.figures, self.target
        figures["complete"] = not self.pairs_left and not self.groups_left
        figures["pairs"] = 0 if self.pairs_left or not exhaustive(self.spec) else stimulus.pair_count(self.spec)
        command = (
            f"python -m bitwright.rtl.bench.stream.campaign --pe {evidence.shown(self.spec.name, self.params)} "
            f"--lane-steps {target.lane_steps} --groups {target.groups} --seed {target.seed}"
        )
        evidence.store(evidence.row(self.spec, self.params, "campaign", figures, command), self.folder)


def parts(progress: Progress) -> Iterator[tuple[str, int, Steps]]:
    """What is left to check: (pair or group, number of the part, its steps)."""
    spec, seed, figures = progress.spec, progress.target.seed, progress.figures
    if progress.pairs_left:
        skipped = figures["pair_parts"]
        for number, steps in enumerate(stimulus.every_pair(spec, seed)):
            if number >= skipped:
                yield "pair", number, steps
    while progress.groups_left:
        number = figures["group_parts"]
        yield "group", number, group_steps(spec, number, seed)


def run(
    spec: StreamSpec, params: Mapping[str, Any], target: Target, *, folder: Path | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:  # fmt: skip
    """Check one variant up to the target, from where the evidence ends; returns the figures."""
    progress = Progress(spec, params, target, folder)
    name = evidence.shown(spec.name, params)
    if not progress.pairs_left and not progress.groups_left:
        tell(f"{name}: was done: {_line(progress.figures)} (--folder DIR runs it again)")
        return progress.figures
    before, began, processor = progress.figures["lane_steps"], time.monotonic(), time.process_time()
    saved = told = began
    for kind, number, steps in parts(progress):
        command = (
            f"python -m bitwright.rtl.bench.stream.campaign --pe {name} --seed {target.seed} --only {kind} {number}"
        )
        progress.add(bulk.check(spec, steps, seed=1 + number % 1000, replay=command), kind)
        now = time.monotonic()
        if now - told > TELL_S:
            rate = (progress.figures["lane_steps"] - before) / (now - began)
            tell(f"{name}: {_line(progress.figures)}; {rate / 1e6:.2f} M lane-steps/s")
            told = now
        if now - saved > SAVE_S:
            progress.save()
            saved = now
    progress.save()
    done = (progress.figures["lane_steps"] - before) / 1e6
    rates = done / (time.monotonic() - began), done / (time.process_time() - processor)
    tell(
        f"{name}: done: {_line(progress.figures)}, 0 differ; {rates[0]:.2f} M lane-steps/s "
        f"({rates[1]:.2f} M a second of processor time)"
    )
    return progress.figures


def _line(figures: Mapping[str, Any]) -> str:
    return f"{figures['lane_steps']:,} lane-steps, {figures['groups']:,} groups, {figures['sums']:,} sums"


def replay(spec: StreamSpec, kind: str, number: int, seed: int) -> bulk.Counts:
    """One part alone, as the campaign ran it."""
    if kind == "pair":
        steps = next(steps for at, steps in enumerate(stimulus.every_pair(spec, seed)) if at == number)
    else:
        steps = group_steps(spec, number, seed)
    return bulk.check(spec, steps, seed=1 + number % 1000)


def chosen(names: Sequence[str]) -> Iterator[tuple[StreamSpec, dict[str, Any]]]:
    """The variants asked for: all of a bare name, the one of a name with parameters; of all PEs if none is named."""
    for text in names or pe.stream_names():
        name, params = pe.parse_name(text)
        for variant in [params] if params else [dict(each) for each in type(pe.stream(name)).variants]:
            yield pe.stream(name, **variant), variant


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Streaming PEs, RTL against golden; goes on where it was stopped.")
    parser.add_argument("--pe", nargs="+", default=[], help="name, or name:parameter=value,...; default: all")
    parser.add_argument("--lane-steps", type=int, default=LANE_STEPS, help="of each variant, at least")
    parser.add_argument("--groups", type=int, default=GROUPS, help="of each variant, at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="evidence files (default: docs/evidence)")
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="one part alone: pair or group, its number")
    options = parser.parse_args(arguments)
    target = Target(options.lane_steps, options.groups, options.seed)
    for spec, params in chosen(options.pe):
        if options.only:
            print(replay(spec, options.only[0], int(options.only[1]), options.seed))
        else:
            run(spec, params, target, folder=options.folder, tell=lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
