"""Which experts of a mixture the tokens of a step go through: how many are touched, and by how many tokens each.

The weights of a touched expert are read once a step, whoever asks for them, so a step's cost depends on how many are
touched. Either that is known from a trace, or a distribution is stated and its expectation taken.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from bitwright.arch.errors import ConfigError, shown
from bitwright.workloads.shape_parts import Experts

Loads = tuple[tuple[int, int], ...]  # (tokens, experts with that many, over all layers asked for)


class Routing(Protocol):
    """How a mixture's router behaves."""

    def loads(self, experts: Experts, tokens: int, layers: int) -> Loads:
        """Touched experts of `layers` layers together by their number of tokens, most tokens first.

        The tokens of all of them sum to tokens * experts.active * layers.
        """


@dataclass(frozen=True)
class StatedRouting:
    """Every token picks `active` experts independently of other tokens; expert e with probability shares[e].

    Fields
        shares : tuple of float | None   Of every expert, summing to `active`; None: all alike, active / count.
    The distinct experts a layer are sum over e of 1 - (1 - shares[e])^tokens (no tokens share a pick). Their sum over
    the layers is rounded to a whole number and spread evenly over the layers; the touched ones are the likeliest, and
    tokens are dealt to them in proportion to their shares, at least one and at most all tokens each.
    Estimate: the mean number of experts is exact for this distribution; their loads are means, not a draw.
    """

    shares: tuple[float, ...] | None = None

    def distinct(self, experts: Experts, tokens: int) -> float:
        """Expected number of experts that a layer touches. Raises ConfigError for shares that do not fit `experts`."""
        shares = self._of(experts)
        return math.fsum(-math.expm1(tokens * math.log1p(-share)) if share < 1 else 1.0 for share in shares)

    def loads(self, experts: Experts, tokens: int, layers: int) -> Loads:
        """As `Routing.loads`. Raises ConfigError for shares that do not fit `experts`."""
        shares = sorted(self._of(experts), reverse=True)
        most = sum(share > 0 for share in shares)
        touched = round(layers * self.distinct(experts, tokens))
        few, layers_with_more = divmod(touched, layers)
        found: Counter[int] = Counter()
        for count, how_many in ((few, layers - layers_with_more), (few + 1, layers_with_more)):
            if not how_many:
                continue
            count = min(max(count, experts.active), most)
            for load, number in Counter(_dealt(tuple(shares[:count]), tokens, tokens * experts.active)).items():
                found[load] += number * how_many
        return tuple((load, found[load]) for load in sorted(found, reverse=True) if found[load])

    def _of(self, experts: Experts) -> tuple[float, ...]:
        if self.shares is None:
            return (experts.active / experts.count,) * experts.count
        if len(self.shares) != experts.count:
            raise ConfigError(f"shares = {len(self.shares)} numbers: must be one an expert, {experts.count}")
        for index, share in enumerate(self.shares):
            if type(share) not in (int, float) or not 0 <= share <= 1:
                raise ConfigError(f"shares[{index}] = {shown(share)}: must be a probability in 0..1")
        total = math.fsum(self.shares)
        if not math.isclose(total, experts.active, rel_tol=1e-6):
            raise ConfigError(f"shares sum to {total:g}: must sum to active = {experts.active}, a token's experts")
        return self.shares


UNIFORM = StatedRouting()


@lru_cache(maxsize=1024)
def _dealt(shares: tuple[float, ...], tokens: int, picks: int) -> tuple[int, ...]:
    """`picks` dealt in proportion to `shares`, 1..tokens each; largest remainders first."""
    assert len(shares) <= picks <= len(shares) * tokens, "so many experts can have 1..tokens each"
    total = math.fsum(shares)
    wanted = [picks * share / total for share in shares]
    loads = [min(max(int(want), 1), tokens) for want in wanted]
    while sum(loads) != picks:
        missing = picks - sum(loads)
        sign = 1 if missing > 0 else -1
        open_ones = [i for i, load in enumerate(loads) if (load < tokens if sign > 0 else load > 1)]
        open_ones.sort(key=lambda i: sign * (loads[i] - wanted[i]))
        for i in open_ones[: abs(missing)]:
            loads[i] += sign
    return tuple(loads)


@dataclass(frozen=True)
class TracedRouting:
    """What a recorded router chose.

    Fields
        picks : tuple of layers of tokens of expert numbers   As recorded, every token with `active` different ones.
        first : int   Token of the trace that is the step's first.
    """

    picks: tuple[tuple[tuple[int, ...], ...], ...]
    first: int = 0

    def loads(self, experts: Experts, tokens: int, layers: int) -> Loads:
        """As `Routing.loads`, exactly. Raises ConfigError for another model's trace or one with too few tokens."""
        if len(self.picks) != layers:
            raise ConfigError(f"trace of {len(self.picks)} layers: the model has {layers} with experts")
        found: Counter[int] = Counter()
        for index, layer in enumerate(self.picks):
            if len(layer) < self.first + tokens:
                raise ConfigError(
                    f"trace of {len(layer)} tokens (layer {index}): the step needs tokens {self.first} to "
                    f"{self.first + tokens - 1}"
                )
            chosen: Counter[int] = Counter()
            for token in layer[self.first : self.first + tokens]:
                _check_picks(token, experts, index)
                chosen.update(token)
            found.update(chosen.values())
        return tuple((load, found[load]) for load in sorted(found, reverse=True))

    def shares(self, experts: Experts) -> tuple[float, ...]:
        """How often each expert was picked, a token and layer: what `StatedRouting` takes."""
        counts: Counter[int] = Counter()
        for index, layer in enumerate(self.picks):
            for token in layer:
                _check_picks(token, experts, index)
                counts.update(token)
        total = sum(len(layer) for layer in self.picks)
        return tuple(counts[expert] / total for expert in range(experts.count))


def _check_picks(token: Sequence[int], experts: Experts, layer: int) -> None:
    good = len(set(token)) == len(token) == experts.active and all(0 <= pick < experts.count for pick in token)
    if not good:
        raise ConfigError(
            f"trace, layer {layer}: picks {shown(list(token))}: must be {experts.active} different experts of "
            f"0..{experts.count - 1}"
        )


def read_trace(path: Path) -> TracedRouting:
    """A router's trace: a JSON file {"picks": [layer][token][expert numbers]}.

    Raises ConfigError for a missing or unreadable file, an empty trace, or picks that are no numbers.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError:
        raise ConfigError(f"{path}: no such file") from None
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise ConfigError(f"{path}: not JSON") from None
    picks = data.get("picks") if isinstance(data, dict) else None
    if not isinstance(picks, list) or not picks or not all(isinstance(layer, list) and layer for layer in picks):
        raise ConfigError(f"{path}: picks: must be a list of layers, each a list of at least one token")
    for index, layer in enumerate(picks):
        for token in layer:
            if not isinstance(token, list) or not all(type(pick) is int for pick in token):
                raise ConfigError(f"{path}: picks[{index}]: {shown(token)}: must be a list of expert numbers")
    return TracedRouting(tuple(tuple(tuple(token) for token in layer) for layer in picks))
