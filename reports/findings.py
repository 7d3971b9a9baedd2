"""The report's sentences and "best by choice" tables, computed from the rows and from nothing else.

Everything returned is HTML whose row texts are escaped; `data-row` on a link is the row's index in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from bitwright.reports.checks import CYCLE_KEYS, ENERGY_KEYS
from bitwright.reports.compare import BUDGETS, DEFAULT_BUDGET, DESTROYED_RATIO, Accuracy, phase_values
from bitwright.reports.figures import PARTS
from bitwright.reports.labels import TIMES, Row, energy_unit, number, number_short, percent, policy_label, weights_label

CHOICES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("processing element", lambda row: str(row["pe"])),
    ("weight format", weights_label),
    ("array", lambda row: f"{row['rows']}{TIMES}{row['cols']} {str(row['dataflow']).upper()}"),
    ("memory", lambda row: f"{row['dram']}, {number_short(round(row['dram_bandwidth_bytes_per_cycle'], 2))} B/cycle"),
)
"""The choices a designer makes: (name, its value in a row)."""


class Findings:
    """Sentences and tables about one workload.

    rows, labels : all rows of the report and their two-line labels; indices : the rows of this workload.
    """

    def __init__(self, rows: Sequence[Row], labels: Sequence[tuple[str, str]], indices: Sequence[int]) -> None:
        self.rows, self.labels, self.indices = rows, labels, indices
        self.accuracy = Accuracy.of([rows[i] for i in indices])
        self.phase = "decode" if any(rows[i]["decode_tokens_per_s"] > 0 for i in indices) else "prefill"

    def sentences(self) -> list[str]:
        """The findings, the most important first."""
        found = [self._reference()]
        found += [self._budget(name, ratio) for name, ratio in BUDGETS[:-1]]
        found += [text for text in (self._cost(), self._where(), self._bottleneck(), self._destroyed()) if text]
        return found

    def glance(self) -> list[tuple[str, str, str]]:
        """(caption, number with unit, what it belongs to) for the top of the page, at the default budget."""
        name, ratio = BUDGETS[DEFAULT_BUDGET]
        inside = self._within(ratio)
        fast, frugal = self._fastest(inside, self.phase), self._frugal(inside, self.phase)
        best = min(self.indices, key=lambda i: self.rows[i]["perplexity"])
        small = min(inside, key=lambda i: self.rows[i]["area_mm2"])
        rate, energy = self._rate(fast, self.phase), self._energy([frugal], self.phase)[frugal]
        return [
            (
                f"fastest {self.phase}, perplexity {name} of best",
                f"{number(rate, 3)} tokens/s",
                self._link(fast),
            ),
            (f"lowest {self.phase} energy, {name}", f"{energy}/token", self._link(frugal)),
            (f"smallest design, {name}", f"{number(self.rows[small]['area_mm2'], 3)} mm²", self._link(small)),
            ("best perplexity", number(self.rows[best]["perplexity"]), escape(policy_label(self.rows[best]))),
        ]

    def choice_tables(self, phase: str, budget: int) -> str:
        """One table a choice: what each of its values reaches in `phase` within budget number `budget`.

        Every cell is the best over all other choices, so two cells of a line may be two designs.
        """
        inside = self._within(BUDGETS[budget][1])
        factor, unit = energy_unit([phase_values(self.rows[i], phase)[0] for i in self.indices])
        return "".join(self._choice_table(name, value, inside, phase, factor, unit) for name, value in CHOICES)

    def _choice_table(
        self,
        name: str,
        value: Callable[[Row], str],
        inside: Sequence[int],
        phase: str,
        factor: float,
        unit: str,
    ) -> str:
        groups: dict[str, list[int]] = {}
        for index in self.indices:
            groups.setdefault(value(self.rows[index]), [])
        for index in inside:
            groups[value(self.rows[index])].append(index)
        top = max((self._rate(i, phase) for i in inside), default=0.0)
        least = min((phase_values(self.rows[i], phase)[0] for i in inside), default=0.0)

        def rank(item: tuple[str, list[int]]) -> tuple[float, str]:
            return (-max((self._rate(i, phase) for i in item[1]), default=-1.0), item[0])

        lines = []
        for label, members in sorted(groups.items(), key=rank):
            head = f"<tr><th scope=row>{escape(label)}<td class=n>{len(members)}"
            if not members:
                lines.append(f"{head}<td class=none colspan=4>no design in this budget")
                continue
            fast, frugal = self._fastest(members, phase), self._frugal(members, phase)
            small = min(members, key=lambda i: self.rows[i]["area_mm2"])
            accurate = min(members, key=lambda i: self.rows[i]["perplexity"])
            rate, energy = self._rate(fast, phase), phase_values(self.rows[frugal], phase)[0]
            lines.append(
                head
                + self._cell(fast, number(rate, 3), rate / top if top else 0)
                + self._cell(frugal, number(energy * factor, 3), least / energy if energy else 0)
                + self._cell(small, number(self.rows[small]["area_mm2"], 3))
                + self._cell(accurate, number(self.rows[accurate]["perplexity"]))
            )
        return (
            f"<table class=choice><thead><tr><th scope=col>{escape(name)}<th scope=col class=n>designs"
            f"<th scope=col class=n>max tokens/s<th scope=col class=n>min {unit}/token"
            f"<th scope=col class=n>min mm²<th scope=col class=n>min perplexity<tbody>{''.join(lines)}</table>"
        )

    def _cell(self, index: int, text: str, share: float | None = None) -> str:
        bar = "" if share is None else f' style="--share:{share * 100:.1f}%"'
        return f"<td class=n{bar}>{self._link(index, text)}"

    def _reference(self) -> str:
        best = min(self.indices, key=lambda i: self.rows[i]["perplexity"])
        row = self.rows[best]
        return (
            f"The most accurate policy reaches perplexity <b>{number(row['perplexity'])}</b> "
            f"({escape(policy_label(row))}; {number(row['bits_per_weight'])} bits a weight; "
            f"{row['perplexity_predictions']:,} predictions). The budgets are multiples of it."
        )

    def _budget(self, name: str, ratio: float) -> str:
        inside, phase = self._within(ratio), self.phase
        fast, frugal = self._fastest(inside, phase), self._frugal(inside, phase)
        energies = self._energy(inside, phase)
        head = (
            f"<b>{name.capitalize()}</b> of it (perplexity ≤ {number(self.accuracy.best * ratio)}; "
            f"{len(inside)} of {len(self.indices)} designs): the fastest {phase} is "
            f"<b>{number(self._rate(fast, phase), 3)} tokens/s</b>, by {self._link(fast)} "
            f"({energies[fast]}/token, {self._cost_of(fast)})"
        )
        if fast == frugal:
            return f"{head}; the same design needs the least energy per token."
        return (
            f"{head}; the least energy is <b>{energies[frugal]}/token</b>, by {self._link(frugal)} "
            f"({number(self._rate(frugal, phase), 3)} tokens/s, {self._cost_of(frugal)})."
        )

    def _cost(self) -> str:
        (tight_name, tight), (loose_name, loose) = BUDGETS[0], BUDGETS[DEFAULT_BUDGET]
        speeds = [self._rate(self._fastest(self._within(r), self.phase), self.phase) for r in (loose, tight)]
        chosen = [self._frugal(self._within(r), self.phase) for r in (loose, tight)]
        joules = [phase_values(self.rows[i], self.phase)[0] for i in chosen]
        if not all((*speeds, *joules)):
            return ""
        if speeds[0] == speeds[1] and joules[0] == joules[1]:
            return f"Staying {tight_name} instead of {loose_name} costs neither speed nor energy."
        texts = self._energy(chosen, self.phase)
        return (
            f"<b>What accuracy costs:</b> staying {tight_name} instead of {loose_name} of the best perplexity "
            f"takes {self.phase} from {number(speeds[0], 3)} to {number(speeds[1], 3)} tokens/s "
            f"({number(speeds[0] / speeds[1], 3)}{TIMES} slower) and the least energy from {texts[chosen[0]]} to "
            f"{texts[chosen[1]]} a token ({number(joules[1] / joules[0], 3)}{TIMES})."
        )

    def _where(self) -> str:
        inside = self._within(BUDGETS[DEFAULT_BUDGET][1])
        fast, frugal = self._fastest(inside, self.phase), self._frugal(inside, self.phase)
        time = self._largest(fast, "cycles", CYCLE_KEYS, "cycles")
        joules = self._largest(frugal, "energy", ENERGY_KEYS, "energy_uj")
        if not time or not joules:
            return ""
        return (
            f"{BUDGETS[DEFAULT_BUDGET][0].capitalize()}, the largest part of the fastest design's cycles is "
            f"<b>{time}</b>; of the most frugal design's energy, <b>{joules}</b> (whole run, prefill and decode)."
        )

    def _bottleneck(self) -> str:
        busy = [self.rows[i] for i in self.indices if self.rows[i]["cycles"] > 0]
        waiting = sum(row["cycles_dram_wait"] > row["cycles"] / 2 for row in busy)
        return f"In {waiting} of {len(busy)} designs more than half of all cycles wait for DRAM." if busy else ""

    def _destroyed(self) -> str:
        lost = [self.rows[i] for i in self.indices if not self.accuracy.usable(self.rows[i])]
        if not lost:
            return ""
        names = ", ".join(sorted({f"{weights_label(row)} on {row['pe']}" for row in lost}))
        return (
            f"{len(lost)} designs lose the model: perplexity above {DESTROYED_RATIO:g}{TIMES} the best "
            f"({escape(names)}). They are drawn hollow and kept off the colour scale."
        )

    def _largest(self, index: int, parts: str, keys: Iterable[str], total: str) -> str:
        row = self.rows[index]
        names = {key: name for key, name, _, _ in PARTS[parts]}
        key = max(keys, key=lambda part: row[part])
        return f"{escape(names[key])} ({row[key] / row[total] * 100:.0f} %)" if row[total] > 0 else ""

    def _within(self, ratio: float) -> list[int]:
        return [i for i in self.indices if self.accuracy.within(self.rows[i], ratio)]

    def _rate(self, index: int, phase: str) -> float:
        return phase_values(self.rows[index], phase)[1]

    def _fastest(self, members: Sequence[int], phase: str) -> int:
        return max(members, key=lambda i: (self._rate(i, phase), -phase_values(self.rows[i], phase)[0], -i))

    def _frugal(self, members: Sequence[int], phase: str) -> int:
        return min(members, key=lambda i: (phase_values(self.rows[i], phase)[0], -self._rate(i, phase), i))

    def _energy(self, members: Sequence[int], phase: str) -> dict[int, str]:
        """Energy per token of each, with the unit that the workload's plots use."""
        factor, unit = energy_unit([phase_values(self.rows[i], phase)[0] for i in self.indices])
        return {i: f"{number(phase_values(self.rows[i], phase)[0] * factor, 3)} {unit}" for i in members}

    def _cost_of(self, index: int) -> str:
        row = self.rows[index]
        over = percent(row["perplexity"] / self.accuracy.best)
        return f"{number(row['area_mm2'], 3)} mm², perplexity {number(row['perplexity'])}, {over}"

    def _link(self, index: int, text: str | None = None) -> str:
        full = " · ".join(filter(None, self.labels[index]))
        if text is None:
            return f'<a href="#designs" data-row="{index}">{escape(full)}</a>'
        return f'<a href="#designs" data-row="{index}" title="{escape(full)}">{escape(text)}</a>'
