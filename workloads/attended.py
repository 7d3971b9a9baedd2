"""Which keys a step's queries see: all before them, a sliding window, or the first tokens and a window.

Source: Longformer, arXiv 2004.05150, section 3.1 (window); StreamingLLM, arXiv 2309.17453, section 3.2 (first tokens,
"sinks", and a window).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """A rectangle of scores.

    Fields
        queries, keys : int   Its sides; the keys are those that at least one of the queries sees.
        seen : int   Pairs that the mask leaves.
        count : int   Blocks that are alike.
    """

    queries: int
    keys: int
    seen: int
    count: int = 1


def blocks(new_tokens: int, context: int, window: int | None, sinks: int) -> list[Block]:
    """The rectangles of `new_tokens` queries behind `context` cached tokens, in order; like ones are put together.

    Without a window one block; with one, blocks of at most `window` queries.
    """
    found: Counter[Block] = Counter()
    size = new_tokens if window is None else window
    for first in range(context, context + new_tokens, size):
        queries = min(size, context + new_tokens - first)
        end = first + queries
        keys = end if window is None else cached_keys(first, end, window, sinks)
        limit = end if window is None else window + sinks
        found[Block(queries, keys, _sum_of_least(end, limit) - _sum_of_least(first, limit))] += 1
    return [Block(one.queries, one.keys, one.seen, count) for one, count in found.items()]


def cached_keys(first: int, end: int, window: int, sinks: int) -> int:
    """Keys that the queries at positions first .. end - 1 see together."""
    before = max(0, first - window + 1)  # keys that the window of the first query has left behind
    return end - before + min(sinks, before)


def kept_tokens(context: int, window: int | None, sinks: int) -> int:
    """Tokens that the cache must keep once `context` have gone through: what the next query can still see."""
    return context if window is None else min(context, window - 1 + sinks)


def _sum_of_least(count: int, limit: int) -> int:
    """Sum of min(x, limit) over x = 1 .. count: query x - 1 sees so many keys."""
    below = min(count, limit)
    return below * (below + 1) // 2 + (count - below) * limit
