"""Which number format each operand of a model has, and the PE that multiplies them."""

from __future__ import annotations

from typing import Any, Literal

from bitwright.arch.errors import ConfigError, suggest
from pydantic import BaseModel, ConfigDict, model_validator

_CHOICES: dict[str, tuple[str, ...]] = {
    "acts": ("fp16", "int8", "int8_tensor"),
    "kv": ("fp16", "int8", "int4"),
    "pe": ("fp16-mac", "int8-mac", "shift-add"),
}


class FormatPolicy(BaseModel):
    """The formats of one machine running one model. Frozen; a wrong combination is refused when it is made.

    Fields
        weights : str   Format of every weight matrix but the head's (names of `bitwright.arch.formats`).
        group : int | None   Consecutive input channels that share a scale; None: one scale a matrix row.
        acts : "fp16", "int8" (one scale a token), "int8_tensor" (one scale for a window's whole tensor).
        kv : "fp16", "int8", "int4"   Keys (after rotation) and values, one scale a token and head.
        head : str | None   Format of the head's matrix, with the same group; None: the same as `weights`.
        pe : "fp16-mac", "int8-mac", "shift-add"   Whose arithmetic every matrix product follows.
    Rules: fp16-mac takes fp16 activations and any weights; the integer PEs take int8 activations, weights that the
    PE spec accepts, and an integer KV cache that it accepts as weights (shift-add: int4).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = "fp16"
    group: int | None = None
    acts: Literal["fp16", "int8", "int8_tensor"] = "fp16"
    kv: Literal["fp16", "int8", "int4"] = "fp16"
    head: str | None = None
    pe: Literal["fp16-mac", "int8-mac", "shift-add"] = "fp16-mac"

    @property
    def head_format(self) -> str:
        """Format of the head's matrix."""
        return self.weights if self.head is None else self.head

    def describe(self) -> str:
        """One line for tables: `int4 g64, acts int8, kv int8, int8-mac`."""
        group = "" if self.group is None else f" g{self.group}"
        head = "" if self.head is None else f", head {self.head}"
        return f"{self.weights}{group}{head}, acts {self.acts}, kv {self.kv}, {self.pe}"

    @model_validator(mode="before")
    @classmethod
    def _check_values(cls, data: Any) -> Any:
        """Names and types, with this project's messages instead of pydantic's."""
        from bitwright.arch import formats

        if not isinstance(data, dict):
            raise ConfigError(f"policy = {data!r}: must be a mapping of {', '.join(cls.model_fields)}")
        for key in data:
            if key not in cls.model_fields:
                raise ConfigError(f"policy.{key}: unknown key; {suggest(str(key), cls.model_fields)}")
        for key, known in _CHOICES.items():
            if key in data and data[key] not in known:
                raise ConfigError(f"policy.{key} = {data[key]!r}: no such choice; {suggest(str(data[key]), known)}")
        for key in ("weights", "head"):
            value = data.get(key)
            if value is None and key == "head":
                continue
            if key in data and value not in formats.names():
                raise ConfigError(f"policy.{key} = {value!r}: no such format; {suggest(str(value), formats.names())}")
        group = data.get("group")
        if group is not None and (type(group) is not int or group < 1):
            raise ConfigError(f"policy.group = {group!r}: must be a whole number of at least 1, or null for whole rows")
        return data

    @model_validator(mode="after")
    def _check_machine(self) -> FormatPolicy:
        """Whether the PE can multiply these formats."""
        from bitwright.arch import pe

        spec = pe.get(self.pe)
        wanted = ("fp16",) if self.pe == "fp16-mac" else ("int8", "int8_tensor")
        if self.acts not in wanted:
            raise ConfigError(f"policy.acts = {self.acts!r}: {self.pe} takes {' or '.join(wanted)} activations")
        operands = [("weights", self.weights, self.group), ("head", self.head_format, self.group)]
        operands.append(("kv", self.kv, max(1, spec.shortest_group)))
        for key, name, group in operands:
            answer = spec.accepts(name, group)
            if answer.kind == "refused":
                raise ConfigError(f"policy.{key} = {name!r}: refused by {self.pe}: {answer.reason}")
        return self
