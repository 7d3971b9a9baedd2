"""A workload file: what runs on a model, and what the model leaves open, as one YAML file for `simulate --workload`.

    chunked: {prompt_tokens: 2048, output_tokens: 64, batch: 4, chunk_tokens: 512}
    latent_attention: {prefill: expanded, decode: absorbed}
    experts: {trace: routing.json}
    sparsity: "2:4"

One of `static`, `chunked`, `speculative` and `requests` says which steps there are; the rest is `operators.Choices`.
Paths are relative to the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from bitwright.arch import config
from bitwright.arch.config import Config
from bitwright.arch.errors import ConfigError
from bitwright.workloads import batching, routing, sparsity, steps
from bitwright.workloads.batching import Limits, Request
from bitwright.workloads.operators import Choices, Form
from bitwright.workloads.steps import Step
from pydantic import Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1, strict=True)]
WholeNumber = Annotated[int, Field(ge=0, strict=True)]


class Static(Config):
    """All prompts at once, then one token of every sequence a step."""

    prompt_tokens: Count
    output_tokens: WholeNumber
    batch: Count = 1

    def steps(self) -> tuple[Step, ...]:
        """As `steps.static`."""
        return steps.static(self.prompt_tokens, self.output_tokens, self.batch)


class Chunked(Static):
    """Prompts in chunks of `chunk_tokens`, one chunk a step; sequences that have begun decode along."""

    chunk_tokens: Count

    def steps(self) -> tuple[Step, ...]:
        """As `steps.chunked`."""
        return steps.chunked(self.prompt_tokens, self.output_tokens, self.chunk_tokens, self.batch)


class Speculative(Static):
    """Every decode step verifies `drafts` drafted tokens, each accepted with probability `acceptance`.

    Without `seed` a sequence advances by the expected number; with one every sequence draws its own.
    """

    drafts: WholeNumber
    acceptance: Annotated[float, Field(ge=0, le=1, strict=True)]
    seed: WholeNumber | None = None

    def steps(self) -> tuple[Step, ...]:
        """As `steps.speculative`."""
        return steps.speculative(
            self.prompt_tokens, self.output_tokens, self.drafts, self.acceptance, self.batch, self.seed
        )


class Requests(Config):
    """Requests of a CSV file (arrival_s, prompt_tokens, output_tokens) that come and go: continuous batching.

    Fields
        file : str   The CSV file.
        sequences : int   At most so many at once.
        step_tokens : int | None   At most so many new tokens a step, prompts in pieces; None: prompts whole.
        cached_tokens : int | None   Room of the KV cache, in tokens; None: as much as is asked for.
    """

    file: str
    sequences: Count
    step_tokens: Count | None = None
    cached_tokens: Count | None = None

    @model_validator(mode="after")
    def _limits_fit(self) -> Requests:
        if self.step_tokens is not None and self.step_tokens < self.sequences:
            raise ValueError(
                f"step_tokens = {self.step_tokens}: must be at least sequences = {self.sequences}, which all decode "
                "one token a step"
            )
        return self

    @property
    def limits(self) -> Limits:
        """What a step may hold."""
        return Limits(self.sequences, self.step_tokens, self.cached_tokens)


class LatentAttention(Config):
    """Form of latent attention (MLA) in each phase."""

    prefill: Form = "expanded"
    decode: Form = "absorbed"


class ExpertRouting(Config):
    """Which experts tokens go through: one of a recorded trace and stated shares.

    Fields
        trace : str | None   A JSON file {"picks": [layer][token][expert numbers]}. Every step reads it from its start.
        shares : list of float | None   Probability that a token picks each expert; they sum to the experts a token has.
    """

    trace: str | None = None
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None

    @model_validator(mode="after")
    def _one(self) -> ExpertRouting:
        if (self.trace is None) == (self.shares is None):
            raise ValueError("must have exactly one of trace, shares")
        return self


_RUNS = ("static", "chunked", "speculative", "requests")


class Workload(Config):
    """A workload file; see the top of this module.

    Fields
        static, chunked, speculative, requests   The steps: exactly one of them.
        latent_attention   Of models that have it.
        experts   Of mixtures; None: all experts alike, the expected number of distinct ones.
        sparsity : str | None   "N:M": of every M weights N are stored, with their places; router and head stay dense.
    """

    static: Static | None = None
    chunked: Chunked | None = None
    speculative: Speculative | None = None
    requests: Requests | None = None
    latent_attention: LatentAttention | None = None
    experts: ExpertRouting | None = None
    sparsity: str | None = None

    @field_validator("sparsity", mode="before")
    @classmethod
    def _known_sparsity(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError('must be N:M in quotes such as "2:4" (YAML reads 2:4 without them as a number)')
        if isinstance(value, str):
            try:
                sparsity.parse(value)
            except ConfigError as error:
                raise ValueError(f"must be N:M such as 2:4 with N < M ({error})") from None
        return value

    @model_validator(mode="after")
    def _one_run(self) -> Workload:
        given = [name for name in _RUNS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"must have exactly one of {', '.join(_RUNS)}; has {', '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """Which of static, chunked, speculative, requests it has."""
        return next(name for name in _RUNS if getattr(self, name) is not None)

    def fixed_steps(self) -> tuple[Step, ...]:
        """The steps, where no clock is needed to know them (not of requests)."""
        run = self.static or self.chunked or self.speculative
        assert run is not None, "requests are scheduled by batching.continuous"
        return run.steps()

    def read_requests(self, folder: Path) -> tuple[Request, ...]:
        """The requests. Raises ConfigError as `batching.read_requests`."""
        assert self.requests is not None, "only of a file with requests"
        return batching.read_requests(folder / self.requests.file)

    def output_tokens(self, folder: Path) -> int:
        """Of all sequences together."""
        if self.requests is not None:
            return sum(request.output_tokens for request in self.read_requests(folder))
        run = self.static or self.chunked or self.speculative
        assert run is not None, "one of them is there"
        return run.output_tokens * run.batch

    def choices(self, folder: Path) -> Choices:
        """What the model leaves open. Raises ConfigError for a routing trace that cannot be read."""
        latent = self.latent_attention or LatentAttention()
        chosen: routing.Routing = routing.UNIFORM
        if self.experts is not None and self.experts.trace is not None:
            chosen = routing.read_trace(folder / self.experts.trace)
        elif self.experts is not None:
            chosen = routing.StatedRouting(self.experts.shares)
        kept = None if self.sparsity is None else sparsity.parse(self.sparsity)
        return Choices(chosen, latent.prefill, latent.decode, kept)


def load(path: Path) -> Workload:
    """Read a workload file. Raises ConfigError naming the key, the value, the rule and the line."""
    return config.load(Workload, path)
