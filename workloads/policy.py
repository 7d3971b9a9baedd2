"""Which number format each operand of a model has, how its codes are chosen, and the PE that multiplies them."""

from __future__ import annotations

from typing import Any, Literal

from bitwright.arch.errors import ConfigError, FormatError, shown, suggest
from pydantic import BaseModel, ConfigDict, model_validator

TRANSFORMS = ("smooth", "hadamard")
ROUNDINGS = ("rtn", "mse", "gptq", "awq")
METHODS = (*ROUNDINGS, *TRANSFORMS, *(f"{first}+{second}" for first in TRANSFORMS for second in ROUNDINGS))
KIVI = ("kivi2", "kivi4")
_PLAIN_ACTS = ("fp32", "int8_tensor")
OF_TILES = ("bit-serial", "lut", "outlier-victim")
"""PEs of broadcast tiles, which are simulated; a perplexity does not follow their arithmetic (`rules`)."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "acts": ("fp16", "int8", "int8_tensor"),
    "kv": ("fp16", "int8", "int4"),
    "pe": ("fp16-mac", "int8-mac", "shift-add", *OF_TILES, "float32"),
    "method": METHODS,
    "product": ("exact", "lmul", "lmul_carry", "mitchell"),
}


class FormatPolicy(BaseModel):
    """The formats of one machine running one model. Frozen; a wrong combination is refused when it is made.

    Fields
        weights : str   Format of every weight matrix but the head's (names of `bitwright.arch.formats`), or "stored":
            the checkpoint's own codes as they are.
        group : int | "tensor" | None   Consecutive input channels that share a scale; None: one scale a matrix row, or
            a block format's own block; "tensor" (float32, method rtn): one scale a matrix.
        acts : "fp16", "int8" (one scale a token), "int8_tensor" (one scale for a window's whole tensor); "ovp4", "ovp8"
            of outlier-victim, as wide as its weights; with float32 any format (one scale a token, or a block format's
            own; what a format has one of an array, one a token) or "fp32" (not quantised).
        kv : "fp16", "int8", "int4"   Keys (after rotation) and values, one scale a token and head; of a tile's PE any
            format that the tile takes; with float32 any format, "fp32" (not quantised), "kivi2" or "kivi4" (see
            `bitwright.workloads.quantise.kivi`).
        head : str | None   Format of the head's matrix, with the same group unless it has a block of its own; None: the
            same as `weights`.
        pe : "fp16-mac", "int8-mac", "shift-add", "bit-serial", "lut", "outlier-victim", "float32"   Whose arithmetic
            every matrix product follows; float32: no PE, decoded values with float32 products and sums; in the
            attention only the cache is quantised. bit-serial, lut and outlier-victim are for cycles: `rules`
            refuses their arithmetic.
        method : str   How weights get their codes: "rtn" (round to nearest), "mse", "gptq", "awq", after a transform
            "smooth" or "hadamard" of the model if one is named first: "hadamard+gptq". See workloads/quantise.
        product : "exact", "lmul", "lmul_carry", "mitchell"   What a multiplication is (`bitwright.arch.products`).
    Rules: fp16-mac takes fp16 activations and any weights; the integer PEs take int8 activations, weights that the
    PE spec accepts, and an integer KV cache that it accepts as weights (shift-add: int4); bit-serial fp16 activations,
    outlier-victim those of its weights' width, and KV and head of that width too. Stored weights take method
    rtn, a stored head no hadamard. mse, gptq and awq need a format with scales (a head without scales is rounded).
    Other products than exact need float32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = "fp16"
    group: int | Literal["tensor"] | None = None
    acts: str = "fp16"
    kv: str = "fp16"
    head: str | None = None
    pe: Literal["fp16-mac", "int8-mac", "shift-add", "bit-serial", "lut", "outlier-victim", "float32"] = "fp16-mac"
    method: str = "rtn"
    product: Literal["exact", "lmul", "lmul_carry", "mitchell"] = "exact"

    @property
    def head_format(self) -> str:
        """Format of the head's matrix."""
        return self.weights if self.head is None else self.head

    @property
    def head_group(self) -> int | Literal["tensor"] | None:
        """`group` of the head's matrix: None where the head alone has a format with a block of its own."""
        from bitwright.arch import formats

        if self.head in (None, "stored"):
            return self.group
        block = getattr(formats.get(self.head_format), "fixed_group", None)
        return self.group if block in (None, self.group) else None

    @property
    def group_size(self) -> int | None:
        """`group` of a policy for a PE, which has no scale a matrix."""
        assert self.group != "tensor", "refused when the policy was made"
        return self.group

    @property
    def act_bits(self) -> int:
        """Bits of one activation; its scale, one a token, is left out."""
        from bitwright.arch import formats

        plain = {"fp32": 32, "int8_tensor": 8}
        return plain[self.acts] if self.acts in plain else formats.get(self.acts).bits

    @property
    def transform(self) -> str | None:
        """The method's transform of the model: "smooth", "hadamard" or None."""
        first = self.method.split("+")[0]
        return first if first in TRANSFORMS else None

    @property
    def rounding(self) -> str:
        """How the method chooses codes: "rtn", "mse", "gptq" or "awq"."""
        last = self.method.split("+")[-1]
        return last if last in ROUNDINGS else "rtn"

    def describe(self) -> str:
        """One line for tables: `int4 g64, acts int8, kv int8, int8-mac`; method and product where not the default."""
        group = "" if self.group is None else " tensor" if self.group == "tensor" else f" g{self.group}"
        head = "" if self.head is None else f", head {self.head}"
        method = "" if self.method == "rtn" else f", {self.method}"
        product = "" if self.product == "exact" else f", {self.product}"
        return f"{self.weights}{group}{head}, acts {self.acts}, kv {self.kv}, {self.pe}{method}{product}"

    @model_validator(mode="before")
    @classmethod
    def _check_values(cls, data: Any) -> Any:
        """Names and types, with this project's messages instead of pydantic's."""
        if not isinstance(data, dict):
            raise ConfigError(f"policy = {shown(data)}: must be a mapping of {', '.join(cls.model_fields)}")
        for key in data:
            if key not in cls.model_fields:
                raise ConfigError(
                    f"policy.{shown(key, quote=False)}: unknown key; {suggest(str(key), cls.model_fields)}"
                )
        for key, known in _CHOICES.items():
            free = data.get("pe") in ("float32", *OF_TILES) and key in ("acts", "kv")  # checked as formats below
            if key in data and not free and data[key] not in known:
                raise ConfigError(
                    f"policy.{key} = {shown(data[key])}: no such choice; {suggest(str(data[key]), known)}"
                )
        others = {"weights": ("stored",), "head": ("stored",), "acts": _PLAIN_ACTS, "kv": ("fp32", *KIVI)}
        for key, more in others.items():
            value = data.get(key)
            if key in data and not (value is None and key == "head") and value not in more:
                _check_format(key, value, more)
        group = data.get("group")
        if group not in (None, "tensor") and (type(group) is not int or group < 1):
            raise ConfigError(
                f"policy.group = {shown(group)}: must be a whole number of at least 1, 'tensor', or null for whole rows"
            )
        return data

    @model_validator(mode="after")
    def _check_machine(self) -> FormatPolicy:
        """Whether the PE can multiply these formats."""
        from bitwright.arch import pe

        self._check_method()
        if self.group == "tensor" and (self.pe != "float32" or self.rounding != "rtn"):
            raise ConfigError("policy.group = 'tensor': needs pe float32 and method rtn (use null: one scale a row)")
        if self.product != "exact":
            self._check_product()
        if self.pe == "float32":
            return self
        wanted: tuple[str, ...] = ("int8", "int8_tensor")
        if self.pe in ("fp16-mac", "bit-serial"):
            wanted = ("fp16",)
        elif self.pe == "lut":
            wanted = ("int8",)
        elif self.pe == "outlier-victim":
            wanted = (f"ovp{_width(self.weights)}",)
        if self.acts not in wanted:
            raise ConfigError(f"policy.acts = {self.acts!r}: {self.pe} takes {' or '.join(wanted)} activations")
        for key, name in (("head", self.head_format), ("kv", self.kv)):
            if self.pe == "outlier-victim" and _width(name) != _width(self.weights):
                raise ConfigError(
                    f"policy.{key} = {name!r}: {self.pe} multiplies pairs of one width, activations are {self.acts} "
                    f"(name a format of {_width(self.weights)} bits)"
                )
        if self.pe in OF_TILES:
            return self  # what a tile takes depends on its parameters too: `mapping` refuses
        spec = pe.get(self.pe)
        head_group = None if self.head_group is None else self.group_size
        operands = [("weights", self.weights, self.group_size), ("head", self.head_format, head_group)]
        operands.append(("kv", self.kv, max(1, spec.shortest_group)))
        for key, name, group in operands:
            if name == "stored":
                continue  # known only when the checkpoint is read: refused there
            answer = spec.accepts(name, group)
            if answer.kind == "refused":
                raise ConfigError(f"policy.{key} = {name!r}: refused by {self.pe}: {answer.reason}")
        return self

    def _check_product(self) -> None:
        """Whether the product rule can multiply the weights' and the head's elements with the activations'."""
        from bitwright.workloads.product_rules import ProductRule

        if self.pe != "float32":
            raise ConfigError(f"policy.product = {self.product!r}: {self.pe} multiplies exactly (use pe = 'float32')")
        for key, name in (("weights", self.weights), ("head", self.head_format), ("acts", self.acts)):
            if name in ("stored", "int8_tensor"):
                raise ConfigError(f"policy.{key} = {name!r}: product {self.product} takes a format's name")
        for name in dict.fromkeys((self.weights, self.head_format)):
            try:
                ProductRule(self.product, name, self.group, self.acts)
            except FormatError as error:
                raise ConfigError(f"policy.{error}") from None

    def _check_method(self) -> None:
        """Whether the quantiser can choose codes of the weights' format."""
        from bitwright.workloads.quantise import checks

        if self.method != "rtn" and self.weights == "stored":
            raise ConfigError(f"policy.method = {self.method!r}: stored weights have their codes already; use 'rtn'")
        if self.transform == "hadamard" and self.head_format == "stored":
            raise ConfigError(
                f"policy.head = 'stored': method {self.method!r} rotates the head, whose stored codes are then another "
                "matrix's; name a format for the head, or use no hadamard"
            )
        try:
            checks.check_rounding(self.rounding, self.weights)
        except FormatError as error:
            raise ConfigError(f"policy.{error}") from None


def _width(name: str) -> int:
    """Bits of a value of outlier-victim's weights."""
    from bitwright.arch import formats

    return 4 if formats.get(name).bits <= 4 else 8


def _check_format(key: str, value: Any, more: tuple[str, ...]) -> None:
    """Refuse what is no format's name, saying what was close."""
    from bitwright.arch import formats

    try:
        formats.get(value if isinstance(value, str) else repr(value))
    except FormatError as error:
        if isinstance(value, str) and ":" in value:  # a variant or a file: the message says more
            raise ConfigError(f"policy.{key} = {shown(value)}: {error}") from None
        known = (*formats.names(), *more)
        raise ConfigError(f"policy.{key} = {shown(value)}: no such format; {suggest(str(value), known)}") from None


FLOAT_MODEL = FormatPolicy(weights="stored", acts="fp32", kv="fp32", pe="float32")
"""The checkpoint as it is, in float32 throughout: what calibration runs."""
