"""A simplification of a published simulator, and the list of answers: as published, without each one, without all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Rules = TypeVar("Rules")


@dataclass(frozen=True)
class Trap(Generic[Rules]):
    """One simplification: the rules without it, and what it hides."""

    name: str
    rules: Rules
    text: str


def ladder(
    published: Rules, traps: Sequence[Trap[Rules]], corrected: Rules, kept: str
) -> list[tuple[str, Rules, str]]:  # fmt: skip
    """(name, rules, what it says) of every answer; `kept` is what of the authors' stays when all traps are gone."""
    return [
        ("as published", published, "the authors' model"),
        *((trap.name, trap.rules, trap.text) for trap in traps),
        ("all of them", corrected, f"our answer under the authors' {kept}"),
    ]
