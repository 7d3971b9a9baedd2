"""Campaign of the bit-serial PE: whole groups of every encoding, and every code times every fp16 activation.

    .venv/bin/python tests/rtl/pe/campaign_bit_serial.py --groups 1000000 --seed 1 [--acc-bits 16]

Sums and cycles of groups of 128 (random and any finite activations, a real model's), each part from random power-up;
then one product a channel, every code x every activation, infinities and NaNs among them. The first difference ends it
(MismatchError with the command that replays that part alone).

Every `SAVE_S` seconds and at the end of a format the row in docs/evidence is replaced; a campaign that was stopped goes
on from there, unless the Verilog or the seed is another. `complete`: all formats have had 10**6 groups, 10**8
lane-steps (a lane's term) and every product.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bitwright.arch.errors import MismatchError
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.rtl.bench.bit_serial_bench import (
    Channels,
    compile_pe,
    random_channels,
    require_channels,
    sums_and_cycles,
)
from bitwright.rtl.bench.bit_serial_stimulus import FORMATS, product_channels, real_channels
from bitwright.rtl.bench.stream import evidence
from bitwright.rtl.bench.verilator import Compiled

GROUPS, LANE_STEPS = 10**6, 10**8  # of a format
GROUP, CHANNELS, REAL_CHANNELS = 128, 4000, 2000
SAVE_S = 20.0
PRODUCT_PARTS = 64  # an exponent and sign of the activation each
_REAL_EVERY, _REAL_AT = 64, 2  # one part of so many has a real model's operands


@dataclass(frozen=True)
class Part:
    """Channels to check, and how many cycles apart their sums come."""

    kind: str
    number: int
    channels: Channels
    period: int


def part_of(spec: BitSerial, name: str, kind: str, number: int, seed: int) -> Part:
    """One part of a format's campaign: the same for the same arguments."""
    one_seed = (seed * 1_000_003 + number) % (1 << 31)
    if kind == "product":
        acts = number << 10 | np.arange(1024)
        channels = product_channels(spec, name, acts.astype(np.uint16), one_seed)
    elif number % _REAL_EVERY == _REAL_AT:
        channels = real_channels(spec, name, REAL_CHANNELS, one_seed, group=GROUP)
    else:
        channels = random_channels(spec, name, CHANNELS, GROUP, GROUP, one_seed, wild=number % 2 == 1)
    return Part(kind, number, channels, channels.scale.shape[1] * spec.cycles(name, channels.group))


def check(spec: BitSerial, design: Compiled, part: Part, seed: int) -> int:
    """The cycles that the part took. Raises MismatchError unless every sum is the golden's, `period` cycles apart."""
    name = part.channels.format
    replay = (
        f"tests/rtl/pe/campaign_bit_serial.py --formats {name} --seed {seed} --acc-bits {spec.acc_bits} "
        f"--only {part.kind} {part.number}"
    )
    got, at = sums_and_cycles(design, part.channels, seed=1 + (seed + part.number) % 1000)
    require_channels(part.channels, spec, got, replay=replay)
    if set(np.diff(at)) - {part.period}:
        raise MismatchError(f"{name}: sums {set(np.diff(at))} cycles apart: must be {part.period}; replay: {replay}")
    return int(at[-1]) + 1


class Progress:
    """What has been checked so far; it is the row's figures."""

    def __init__(self, spec: BitSerial, seed: int, folder: Path | None) -> None:
        self.spec, self.seed, self.folder = spec, seed, folder
        self.params = {} if spec == BitSerial() else {"acc_bits": spec.acc_bits}
        found = evidence.find(spec, self.params, "campaign", folder)
        old = found["figures"] if found is not None and found["figures"]["seed"] == seed else {"formats": {}}
        self.formats: dict[str, dict[str, int]] = {name: dict(old["formats"].get(name, _NONE)) for name in FORMATS}

    def add(self, part: Part, cycles: int) -> None:
        channels = part.channels
        figures, (count, depth) = self.formats[channels.format], channels.act.shape
        terms = channels.encoding.terms
        figures[f"{part.kind}_parts"] += 1
        figures["groups" if part.kind == "group" else "products"] += channels.scale.size
        figures["lane_steps"] += count * depth * terms
        figures["steps"] += count * depth // self.spec.lanes
        figures["sums"] += count
        figures["cycles"] += cycles

    def figures(self) -> dict[str, Any]:
        """Totals over the formats, and each format's own."""
        each = self.formats.values()
        totals = {key: sum(figures[key] for figures in each) for key in _NONE if not key.endswith("parts")}
        complete = all(
            figures["groups"] >= GROUPS and figures["lane_steps"] >= LANE_STEPS
            and figures["product_parts"] == PRODUCT_PARTS
            for figures in each
        )  # fmt: skip
        return {**totals, "mismatches": 0, "complete": complete, "seed": self.seed, "formats": self.formats}

    def save(self) -> None:
        """Write the row."""
        command = f"python tests/rtl/pe/campaign_bit_serial.py --seed {self.seed} --acc-bits {self.spec.acc_bits}"
        evidence.store(evidence.row(self.spec, self.params, "campaign", self.figures(), command), self.folder)


_NONE = dict.fromkeys(
    ("lane_steps", "steps", "sums", "groups", "products", "cycles", "group_parts", "product_parts"), 0
)  # fmt: skip


def parts(progress: Progress, name: str, groups: int, products: bool) -> Iterator[Part]:
    """What is left to check of a format."""
    figures = progress.formats[name]
    while figures["groups"] < groups:
        yield part_of(progress.spec, name, "group", figures["group_parts"], progress.seed)
    while products and figures["product_parts"] < PRODUCT_PARTS:
        yield part_of(progress.spec, name, "product", figures["product_parts"], progress.seed)


def run(progress: Progress, design: Compiled, name: str, groups: int, *, products: bool) -> str:
    """Check a format up to `groups`, from where the evidence ends; returns a line about it."""
    figures, began = progress.formats[name], time.monotonic()
    before, saved = dict(figures), began
    spent = {"group": 0.0, "product": 0.0}
    for part in parts(progress, name, groups, products):
        start = time.monotonic()
        progress.add(part, check(progress.spec, design, part, progress.seed))
        spent[part.kind] += time.monotonic() - start
        if time.monotonic() - saved > SAVE_S:
            progress.save()
            saved = time.monotonic()
    progress.save()
    rates = [
        f"{figures[key] - before[key]:,} {key} in {seconds:.0f} s"
        for key, seconds in (("groups", spent["group"]), ("products", spent["product"]))
        if figures[key] > before[key]
    ]
    return (
        f"{name} a{progress.spec.acc_bits}: {figures['groups']:,} groups, {figures['lane_steps']:,} lane-steps, "
        f"{figures['products']:,} products, 0 differ; now {' and '.join(rates) or 'nothing: was done'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=GROUPS, help="groups of 128 a format, at least")
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--acc-bits", type=int, default=16)
    parser.add_argument("--no-products", action="store_true", help="leave out every code x every activation")
    parser.add_argument("--folder", type=Path, help="evidence files (default: docs/evidence)")
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="one part: group or product, its number")
    options = parser.parse_args()
    spec = BitSerial(options.acc_bits)
    design = compile_pe(spec)
    if options.only:
        for name in options.formats:
            part = part_of(spec, name, options.only[0], int(options.only[1]), options.seed)
            print(f"{name}: {check(spec, design, part, options.seed):,} cycles, 0 differ")
        return
    progress = Progress(spec, options.seed, options.folder)
    for name in options.formats:
        print(run(progress, design, name, options.groups, products=not options.no_products), flush=True)


if __name__ == "__main__":
    main()
