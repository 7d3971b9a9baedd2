"""How designs are compared for display: phases, Pareto dominance, perplexity budgets, what counts as destroyed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitwright.reports.labels import Row

PHASES = ("decode", "prefill")
"""The phases of a run, the one shown first leading."""

BUDGETS: tuple[tuple[str, float], ...] = (
    ("within 5 %", 1.05),
    ("within 10 %", 1.10),
    ("within 25 %", 1.25),
    ("any", math.inf),
)
"""(name, largest perplexity as a multiple of the best one): the budgets at which designs are compared."""

DEFAULT_BUDGET = 2

DESTROYED_RATIO = 3.0
"""Above this multiple of the best perplexity a design keeps no colour: it would flatten everyone else's."""


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point beats, by rising x; less x is better, more y is better.

    Of equal points the first is kept. Points with a coordinate that is not positive and finite are left out.
    """
    usable = [i for i, (x, y) in enumerate(points) if 0 < x < math.inf and 0 < y < math.inf]
    front: list[int] = []
    for index in sorted(usable, key=lambda i: (points[i][0], -points[i][1], i)):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


@dataclass(frozen=True)
class Accuracy:
    """Perplexity within one workload: the best, what counts as destroyed, and the colour range between.

    best : lowest perplexity of the rows; limit : `DESTROYED_RATIO` times it; top : worst one not above limit.
    All three are nan where the workload's perplexity is not measured: no budget but the last, "any", applies then.
    """

    best: float
    limit: float
    top: float

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Accuracy:
        found = [row["perplexity"] for row in rows if row["perplexity"] is not None]
        best = min(found, default=math.nan)
        limit = best * DESTROYED_RATIO
        return cls(best, limit, max((p for p in found if p <= limit), default=math.nan))

    @property
    def measured(self) -> bool:
        """Whether there is a perplexity at all."""
        return not math.isnan(self.best)

    @property
    def budgets(self) -> list[int]:
        """Numbers of the `BUDGETS` that can be chosen."""
        return list(range(len(BUDGETS))) if self.measured else [len(BUDGETS) - 1]

    @property
    def budget(self) -> int:
        """Number of the budget that is shown first."""
        return DEFAULT_BUDGET if self.measured else self.budgets[0]

    def usable(self, row: Row) -> bool:
        """Whether the row's format leaves the model alive, or at least was not seen to destroy it."""
        return not self.measured or (math.isfinite(row["perplexity"]) and bool(row["perplexity"] <= self.limit))

    def within(self, row: Row, ratio: float) -> bool:
        """Whether the row's perplexity is at most `ratio` times the best; no ratio excludes what is not measured."""
        # The relative slack keeps "the best itself" inside every budget, whatever the float product does.
        return not self.measured or bool(row["perplexity"] <= self.best * ratio * (1 + 1e-12))

    def logarithmic(self) -> bool:
        """Whether the usable perplexities are wide enough apart for a logarithmic colour scale."""
        return self.top > 1.5 * self.best

    def colour(self, perplexity: float) -> float:
        """The perplexity on the colour scale: its log10 when `logarithmic`."""
        return math.log10(perplexity) if self.logarithmic() else perplexity


def phases(row: Row) -> list[str]:
    """The phases that the row's run has: one without output tokens has no decode."""
    return [phase for phase in PHASES if row[f"{phase}_tokens_per_s"] is not None]


def phase_values(row: Row, phase: str) -> tuple[float, float]:
    """(energy per token in uJ, tokens/s) of "prefill" or "decode"; prefill energy is shared by its tokens."""
    if phase == "decode":
        return float(row["decode_energy_uj_per_token"]), float(row["decode_tokens_per_s"])
    tokens = row["prompt_tokens"] * row["batch"]
    return (float(row["prefill_energy_uj"]) / tokens if tokens else 0.0), float(row["prefill_tokens_per_s"])
