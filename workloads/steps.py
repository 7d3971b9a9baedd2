"""A run as a list of steps: what every forward pass gives to every sequence.

A step is one forward pass over some sequences together, each with its own number of new tokens and of tokens that its
cache already holds. Whatever a server does becomes such a list, so an engine only ever runs steps:

    static        all prompts at once, then one token of every sequence a step
    chunked       each prompt in pieces, one after another, while the sequences already begun decode
    speculative   every step checks some drafted tokens; how many are accepted moves the sequence on
    batching.continuous   sequences come and go (Orca), with or without pieces of prompts (Sarathi)

Not modelled: the drafts' own cost (it is another run, of the drafting model), trees of drafts, beams, prefixes shared
between sequences, recomputation after an eviction.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from bitwright.arch.errors import ConfigError, shown

Phase = Literal["prefill", "decode"]


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number of at least `least`. Raises ConfigError."""
    if type(value) is not int or value < least:
        raise ConfigError(f"{name} = {shown(value)}: must be a whole number of at least {least}; the workload")


@dataclass(frozen=True)
class Advance:
    """What a step does with `count` sequences that are alike.

    Fields
        new_tokens : int   Tokens that go through the model, 1 or more.
        context : int   Tokens whose keys and values the cache holds before.
        phase : "prefill" | "decode"   Whether the new tokens are of the prompt.
        logits : int   Of how many of the new tokens (the last ones) the head computes logits.
        count : int   Sequences.
    Raises ConfigError for other values.
    """

    new_tokens: int
    context: int
    phase: Phase = "decode"
    logits: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        for name, least in (("new_tokens", 1), ("context", 0), ("logits", 0), ("count", 1)):
            check_whole(name, getattr(self, name), least)
        if self.logits > self.new_tokens:
            raise ConfigError(f"logits = {self.logits}: must be at most new_tokens = {self.new_tokens}; the workload")
        if self.phase not in ("prefill", "decode"):
            raise ConfigError(f"phase = {shown(self.phase)}: must be 'prefill' or 'decode'; the workload")

    @property
    def keys(self) -> int:
        """Tokens in the cache afterwards."""
        return self.context + self.new_tokens


@dataclass(frozen=True)
class Step:
    """One forward pass. Raises ConfigError when it has no sequence."""

    sequences: tuple[Advance, ...]

    def __post_init__(self) -> None:
        if not self.sequences:
            raise ConfigError("step = (): must advance at least one sequence; the workload")

    @property
    def tokens(self) -> int:
        """New tokens of all sequences: rows of every layer's matrix products."""
        return sum(item.new_tokens * item.count for item in self.sequences)

    @property
    def logits(self) -> int:
        """Rows of the head's product."""
        return sum(item.logits * item.count for item in self.sequences)


def step_of(advances: Iterable[Advance]) -> Step:
    """A step of these, like ones put together, in the order in which they first appear."""
    counts: Counter[Advance] = Counter()
    for item in advances:
        counts[Advance(item.new_tokens, item.context, item.phase, item.logits)] += item.count
    return Step(tuple(Advance(one.new_tokens, one.context, one.phase, one.logits, n) for one, n in counts.items()))


def prefill(tokens: int, batch: int = 1, context: int = 0) -> Step:
    """Whole prompts of `tokens` at once, behind `context` tokens that are in the cache already."""
    return Step((Advance(tokens, context, "prefill", count=batch),))


def decode(context: int, batch: int = 1) -> Step:
    """One token of each of `batch` sequences at `context`."""
    return Step((Advance(1, context, count=batch),))


def static(prompt_tokens: int, output_tokens: int, batch: int = 1) -> tuple[Step, ...]:
    """Prefill of the whole batch, then `output_tokens` decode steps, the first at context `prompt_tokens`.

    Raises ConfigError for sizes below 1 (output_tokens below 0).
    """
    check_whole("prompt_tokens", prompt_tokens, 1)
    check_whole("output_tokens", output_tokens, 0)
    check_whole("batch", batch, 1)
    return (
        prefill(prompt_tokens, batch),
        *(decode(prompt_tokens + index, batch) for index in range(output_tokens)),
    )


def chunked(prompt_tokens: int, output_tokens: int, chunk_tokens: int, batch: int = 1) -> tuple[Step, ...]:
    """Every prompt in chunks of `chunk_tokens` (the last may be short), one chunk a step; begun sequences decode along.

    Sequence i + 1 begins in the step after the last chunk of sequence i. Only a prompt's last chunk has logits.
    Raises ConfigError for sizes below 1 (output_tokens below 0).
    Source: Sarathi-Serve, Agrawal et al., OSDI 2024 (arXiv 2403.02310), section 4.1, with one prompt's chunk a step.
    """
    check_whole("prompt_tokens", prompt_tokens, 1)
    check_whole("output_tokens", output_tokens, 0)
    check_whole("chunk_tokens", chunk_tokens, 1)
    check_whole("batch", batch, 1)
    chunks = -(-prompt_tokens // chunk_tokens)
    steps = []
    for index in range(chunks * batch + output_tokens):
        advances = []
        for sequence in range(batch):
            since = index - sequence * chunks  # steps since this sequence began
            if 0 <= since < chunks:
                advances.append(prompt_chunk(since * chunk_tokens, prompt_tokens, chunk_tokens))
            elif chunks <= since < chunks + output_tokens:
                advances.append(Advance(1, prompt_tokens + since - chunks))
        if advances:
            steps.append(step_of(advances))
    return tuple(steps)


def prompt_chunk(done: int, prompt_tokens: int, most: int) -> Advance:
    """The next at most `most` tokens of a prompt of which `done` are in the cache."""
    size = min(most, prompt_tokens - done)
    return Advance(size, done, "prefill", logits=int(done + size == prompt_tokens))


def expected_tokens(drafts: int, acceptance: Fraction) -> Fraction:
    """Mean tokens a verification step brings: accepted drafts until the first refusal, and one of the model's own.

    (1 - a^(drafts + 1)) / (1 - a), every draft accepted with probability a, independently.
    Source: Leviathan et al., ICML 2023 (arXiv 2211.17192), equation 1.
    """
    return sum((acceptance**index for index in range(drafts + 1)), Fraction(0))


def speculative(
    prompt_tokens: int, output_tokens: int, drafts: int, acceptance: float, batch: int = 1, seed: int | None = None
) -> tuple[Step, ...]:
    """Prefill, then steps that each verify `drafts` drafted tokens and the one before them, until all is there.

    Every step puts drafts + 1 tokens of each sequence through the model (the cache takes them all; refused ones are
    written over), with logits of each. `acceptance` is the probability that a draft is accepted when those before it
    were. With a seed every sequence draws its own; without, after i steps a sequence has floor(i * expected_tokens).
    The last step drafts no more than are wanted. Raises ConfigError for sizes below 1 (output_tokens, drafts below 0)
    and an acceptance outside 0..1.
    """
    check_whole("output_tokens", output_tokens, 0)
    check_whole("drafts", drafts, 0)
    if type(acceptance) not in (int, float) or not 0 <= acceptance <= 1:
        raise ConfigError(f"acceptance = {shown(acceptance)}: must be a number in 0..1; the workload")
    steps = list(static(prompt_tokens, 0, batch))
    draw = None if seed is None else random.Random(seed)
    mean = expected_tokens(drafts, Fraction(str(acceptance)))
    done = [0] * batch
    while min(done) < output_tokens:
        advances = []
        for sequence, have in enumerate(done):
            if have >= output_tokens:
                continue
            size = min(drafts, output_tokens - have - 1) + 1
            advances.append(Advance(size, prompt_tokens + have, logits=size))
            if draw is None:
                now = int(len(steps) * mean)
            else:
                accepted = next((i for i in range(drafts) if draw.random() >= acceptance), drafts)
                now = have + accepted + 1
            done[sequence] = min(now, output_tokens)
        steps.append(step_of(advances))
    return tuple(steps)
