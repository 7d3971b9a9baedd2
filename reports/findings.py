"""The report's sentences and "best by choice" tables, computed from the rows and from nothing else.

Everything returned is HTML whose row texts are escaped; `data-row` on a link is the row's index in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from bitwright.reports.checks import CYCLE_KEYS, ENERGY_KEYS
from bitwright.reports.compare import BUDGETS, DESTROYED_RATIO, Accuracy, phase_values, phases
from bitwright.reports.figures import PARTS
from bitwright.reports.labels import (
    NOT_MEASURED,
    TIMES,
    Row,
    energy_unit,
    number,
    number_short,
    percent,
    policy_label,
    weights_label,
)

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
        self.phases = phases(rows[indices[0]])
        self.phase = self.phases[0]
        self.scope = BUDGETS[self.accuracy.budget][0] if self.accuracy.measured else "of all designs"

    def sentences(self) -> list[str]:
        """The findings, the most important first."""
        found = [self._reference()]
        found += [self._budget(alike) for alike in self._budgets_alike()]
        found += self._left_out()
        found += [text for text in (self._cost(), self._where(), self._bottleneck(), self._destroyed()) if text]
        return found

    def glance(self) -> list[tuple[str, str, str]]:
        """(caption, number with unit, what it belongs to) for the top of the page, at the default budget."""
        inside = self._within(self.accuracy.budget)
        fast, frugal = self._fastest(inside, self.phase), self._frugal(inside, self.phase)
        best = self._most_accurate(self.indices)
        small = min(inside, key=lambda i: self.rows[i]["area_mm2"])
        rate, energy = self._rate(fast, self.phase), self._energy([frugal], self.phase)[frugal]
        return [
            (
                f"fastest {self.phase}, "
                + (f"perplexity {self.scope} of best" if self.accuracy.measured else self.scope),
                f"{number(rate, 3)} tokens/s",
                self._link(fast),
            ),
            (f"lowest {self.phase} energy, {self.scope}", f"{energy}/token", self._link(frugal)),
            (f"smallest design, {self.scope}", f"{number(self.rows[small]['area_mm2'], 3)} mm²", self._link(small)),
            ("best perplexity", self._perplexity(best), escape(policy_label(self.rows[best])))
            if self.accuracy.measured
            else ("perplexity", NOT_MEASURED, "no weights, so no budgets and no colour scale"),
        ]

    def choice_tables(self, phase: str, budget: int) -> str:
        """One table a choice: what each of its values reaches in `phase` within budget number `budget`.

        Every cell is the best over all other choices, so two cells of a line may be two designs.
        """
        inside = self._within(budget)
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
            groups.setdefault(value(self.rows[index]), []).append(index)
        chosen = set(inside)
        within = {label: [i for i in members if i in chosen] for label, members in groups.items()}
        top = max((self._rate(i, phase) for i in inside), default=0.0)
        least = min((phase_values(self.rows[i], phase)[0] for i in inside), default=0.0)

        def rank(item: tuple[str, list[int]]) -> tuple[float, str]:
            return (-max((self._rate(i, phase) for i in item[1]), default=-1.0), item[0])

        head_perplexity = "<th scope=col class=n>min perplexity" if self.accuracy.measured else ""
        lines = []
        for label, members in sorted(within.items(), key=rank):
            head = f"<tr><th scope=row>{escape(label)}<td class=n>{len(members)}"
            if not members:
                best = self._most_accurate(groups[label])
                lines.append(
                    f"{head}<td class=none colspan=4>no design in this budget; "
                    f"lowest perplexity {self._link(best, self._perplexity(best))}"
                )
                continue
            fast, frugal = self._fastest(members, phase), self._frugal(members, phase)
            small = min(members, key=lambda i: self.rows[i]["area_mm2"])
            rate, energy = self._rate(fast, phase), phase_values(self.rows[frugal], phase)[0]
            lines.append(
                head
                + self._cell(fast, number(rate, 3), rate / top if top else 0)
                + self._cell(frugal, number(energy * factor, 3), least / energy if energy else 0)
                + self._cell(small, number(self.rows[small]["area_mm2"], 3))
                + self._perplexity_cell(members)
            )
        return (
            f"<table class=choice><thead><tr><th scope=col>{escape(name)}<th scope=col class=n>designs"
            f"<th scope=col class=n>max tokens/s<th scope=col class=n>min {unit}/token"
            f"<th scope=col class=n>min mm²{head_perplexity}<tbody>{''.join(lines)}</table>"
        )

    def _perplexity_cell(self, members: Sequence[int]) -> str:
        best = self._most_accurate(members)
        return self._cell(best, self._perplexity(best)) if self.accuracy.measured else ""

    def _cell(self, index: int, text: str, share: float | None = None) -> str:
        bar = "" if share is None else f' style="--share:{share * 100:.1f}%"'
        return f"<td class=n{bar}>{self._link(index, text)}"

    def _reference(self) -> str:
        if not self.accuracy.measured:
            return (
                "<b>Perplexity is not measured</b> for this workload (the notes say why): its designs are compared on "
                "speed, energy and area, and nothing here says which of its formats keep the model usable."
            )
        row = self.rows[self._most_accurate(self.indices)]
        return (
            f"The most accurate policy reaches perplexity <b>{number(row['perplexity'])}</b> "
            f"({escape(policy_label(row))}; {number(row['bits_per_weight'])} bits a weight; "
            f"{row['perplexity_predictions']:,} predictions). The budgets are multiples of it."
        )

    def _budgets_alike(self) -> list[list[int]]:
        """The budgets but "any", those that hold the same designs together."""
        groups: list[list[int]] = []
        for budget in self.accuracy.budgets[:-1] or self.accuracy.budgets:
            if groups and self._within(groups[-1][-1]) == self._within(budget):
                groups[-1].append(budget)
            else:
                groups.append([budget])
        return groups

    def _budget(self, alike: Sequence[int]) -> str:
        inside, (_, ratio) = self._within(alike[-1]), BUDGETS[alike[-1]]
        first, *others = (BUDGETS[budget][0] for budget in alike)
        name = ", or ".join([first, *(other.removeprefix("within ") for other in others)])
        if not self.accuracy.measured:
            return f"<b>Of all {len(inside)} designs</b>, {self._extremes(inside)}"
        return (
            f"<b>{name.capitalize()}</b> of it (perplexity ≤ {number(self.accuracy.best * ratio)}; "
            f"{len(inside)} of {len(self.indices)} designs): {self._extremes(inside)}"
        )

    def _left_out(self) -> list[str]:
        """A sentence for each processing element without a design in the budget that is shown first."""
        inside = {self.rows[i]["pe"] for i in self._within(self.accuracy.budget)}
        found = []
        for pe in sorted({self.rows[i]["pe"] for i in self.indices} - inside):
            members = [i for i in self.indices if self.rows[i]["pe"] == pe]
            best = self._most_accurate(members)
            found.append(
                f"<b>{escape(pe)}</b> has no design {self.scope} of it: its lowest perplexity is "
                f"{self._link(best, self._perplexity(best))}. At any perplexity, {self._extremes(members)}"
            )
        return found

    def _extremes(self, members: Sequence[int]) -> str:
        """The fastest and the most frugal of the designs, as the end of a sentence."""
        phase = self.phase
        fast, frugal = self._fastest(members, phase), self._frugal(members, phase)
        energies = self._energy(members, phase)
        head = (
            f"the fastest {phase} is <b>{number(self._rate(fast, phase), 3)} tokens/s</b>, by {self._link(fast)} "
            f"({energies[fast]}/token, {self._cost_of(fast)})"
        )
        if fast == frugal:
            return f"{head}; the same design needs the least energy per token."
        return (
            f"{head}; the least energy is <b>{energies[frugal]}/token</b>, by {self._link(frugal)} "
            f"({number(self._rate(frugal, phase), 3)} tokens/s, {self._cost_of(frugal)})."
        )

    def _cost(self) -> str:
        tight, loose = self.accuracy.budgets[0], self.accuracy.budget
        if tight == loose:
            return ""
        tight_name, loose_name = BUDGETS[tight][0], BUDGETS[loose][0]
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
        inside = self._within(self.accuracy.budget)
        fast, frugal = self._fastest(inside, self.phase), self._frugal(inside, self.phase)
        time = self._largest(fast, "cycles", CYCLE_KEYS, "cycles")
        joules = self._largest(frugal, "energy", ENERGY_KEYS, "energy_uj")
        if not time or not joules:
            return ""
        return (
            f"{self.scope.capitalize()}, the largest part of the fastest design's cycles is "
            f"<b>{time}</b>; of the most frugal design's energy, <b>{joules}</b> (whole run)."
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

    def _within(self, budget: int) -> list[int]:
        return [i for i in self.indices if self.accuracy.within(self.rows[i], BUDGETS[budget][1])]

    def _most_accurate(self, members: Sequence[int]) -> int:
        """The design of lowest perplexity; the first where none is measured."""
        return min(members, key=lambda i: self.rows[i]["perplexity"] if self.accuracy.measured else 0)

    def _perplexity(self, index: int) -> str:
        value = self.rows[index]["perplexity"]
        return NOT_MEASURED if value is None else number(value)

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
        area = f"{number(row['area_mm2'], 3)} mm²"
        if not self.accuracy.measured:
            return area
        return f"{area}, perplexity {self._perplexity(index)}, {percent(row['perplexity'] / self.accuracy.best)}"

    def _link(self, index: int, text: str | None = None) -> str:
        full = " · ".join(filter(None, self.labels[index]))
        if text is None:
            return f'<a href="#designs" data-row="{index}">{escape(full)}</a>'
        return f'<a href="#designs" data-row="{index}" title="{escape(full)}">{escape(text)}</a>'
