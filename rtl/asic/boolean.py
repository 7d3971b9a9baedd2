"""Liberty boolean expressions (`function`, `when`, `next_state`) compiled for bit-parallel evaluation.

Operators, tightest first: postfix ' and prefix ! (not), ^ (xor), & * or a blank (and), | + (or).
Source: Liberty Reference Manual, "function" attribute.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any

import numpy as np
from bitwright.arch.errors import ConfigError
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
_TOKEN = re.compile(r"\s*([A-Za-z_]\w*(?:\[\d+\])?|[01!'^&*|+()])")


@dataclass(frozen=True)
class Expression:
    """A boolean expression over named pins.

    text : str                  As in the library.
    inputs : tuple[str, ...]    Pin names it reads, in order of first use.
    """

    text: str
    inputs: tuple[str, ...]
    _code: CodeType
    _python: str

    def __call__(self, pins: Mapping[str, Bits]) -> Bits:
        """Evaluate on arrays of bit planes (uint64, any common shape); returns the same shape.

        A constant expression returns a uint64 scalar array of all zeros or all ones.
        """
        value: Bits = np.asarray(eval(self._code, {"__builtins__": {}}, {"pins": pins, **_CONSTANTS}))
        return value

    def at(self, **pins: bool) -> bool:
        """Evaluate on single bits."""
        planes = {name: np.asarray(np.uint64(0xFFFF_FFFF_FFFF_FFFF if bit else 0)) for name, bit in pins.items()}
        return bool(int(self(planes)) & 1)

    def verilog(self, pins: Mapping[str, str]) -> str:
        """The expression in Verilog, with `pins` in the places of the pin names."""
        text = re.sub(
            r"\bone\b", "1'b1", re.sub(r"\bzero\b", "1'b0", re.sub(r"pins\['([^']*)'\]", r"<\1>", self._python))
        )
        return re.sub(r"<([^>]*)>", lambda found: pins[found.group(1)], text)


_CONSTANTS: dict[str, Any] = {"zero": np.uint64(0), "one": np.uint64(0xFFFF_FFFF_FFFF_FFFF)}


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> Expression:
    """Compile one Liberty expression. Raises ConfigError when it does not parse."""
    tokens = _tokens(text)
    names: list[str] = []
    python, rest = _or(tokens, 0, names, text)
    if rest != len(tokens):
        raise ConfigError(f"liberty expression = {text!r}: cannot read it from token {tokens[rest]!r} on")
    return Expression(text, tuple(names), compile(python, f"<liberty {text}>", "eval"), python)


def _tokens(text: str) -> list[str]:
    tokens, position, text = [], 0, text.strip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ConfigError(f"liberty expression = {text!r}: unknown character {text[position:].strip()[0]!r}")
        tokens.append(found.group(1))
        position = found.end()
    return tokens


_Rule = Callable[[list[str], int, list[str], str], tuple[str, int]]


def _chain(
    tokens: list[str], at: int, names: list[str], text: str, lower: _Rule, signs: str, python: str
) -> tuple[str, int]:
    """One level of left-associative operators; a blank counts as `and`."""
    left, at = lower(tokens, at, names, text)
    while at < len(tokens):
        if tokens[at] in signs:
            at += 1
        elif not (python == "&" and (tokens[at] in "!(01" or tokens[at][0].isalpha() or tokens[at][0] == "_")):
            break
        right, at = lower(tokens, at, names, text)
        left = f"({left} {python} {right})"
    return left, at


def _or(tokens: list[str], at: int, names: list[str], text: str) -> tuple[str, int]:
    return _chain(tokens, at, names, text, _and, "|+", "|")


def _and(tokens: list[str], at: int, names: list[str], text: str) -> tuple[str, int]:
    return _chain(tokens, at, names, text, _xor, "&*", "&")


def _xor(tokens: list[str], at: int, names: list[str], text: str) -> tuple[str, int]:
    return _chain(tokens, at, names, text, _not, "^", "^")


def _not(tokens: list[str], at: int, names: list[str], text: str) -> tuple[str, int]:
    if at >= len(tokens):
        raise ConfigError(f"liberty expression = {text!r}: ends too early")
    token = tokens[at]
    if token == "!":
        inner, at = _not(tokens, at + 1, names, text)
        return f"(~{inner})", at
    if token == "(":
        inner, at = _or(tokens, at + 1, names, text)
        if at >= len(tokens) or tokens[at] != ")":
            raise ConfigError(f"liberty expression = {text!r}: a bracket is not closed")
        at += 1
    elif token in "01":
        inner, at = ("one" if token == "1" else "zero"), at + 1
    elif token[0].isalpha() or token[0] == "_":
        if token not in names:
            names.append(token)
        inner, at = f"pins[{token!r}]", at + 1
    else:
        raise ConfigError(f"liberty expression = {text!r}: {token!r} stands where a pin should")
    while at < len(tokens) and tokens[at] == "'":
        inner, at = f"(~{inner})", at + 1
    return inner, at
