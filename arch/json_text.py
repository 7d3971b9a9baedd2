"""Reading JSON that somebody else wrote: bounded in size, no key twice, no NaN, and one message for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bitwright.arch.errors import CheckpointError, shown

# Above what real models need (a 405-billion-parameter model's index has 0.1 MB, packed 0.4 MB), below what hurts:
# parsing takes up to eighty times the text's size (lists in lists).
MOST_BYTES = 2 << 20


def parse(raw: bytes, refuse: Callable[[str], NoReturn]) -> dict[str, Any]:
    """The JSON object in `raw`; anything else ends in `refuse(what is wrong)`, which must raise."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in items:
            if name in found:
                refuse(f"has {shown(name)} twice")
            found[name] = value
        return found

    try:
        text = raw.decode("utf-8")
        found = json.loads(text, object_pairs_hook=pairs, parse_constant=lambda constant: refuse(f"has {constant}"))
    except UnicodeDecodeError:
        refuse("is not UTF-8")
    except json.JSONDecodeError as error:
        refuse(f"is not JSON ({error})")
    except (ValueError, RecursionError):  # an integer of thousands of digits; thousands of nested brackets
        refuse("is not JSON that a model needs (a number too long or brackets too deep)")
    if not isinstance(found, dict):
        refuse(f"is a JSON {type(found).__name__}, not an object")
    return found


def read(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`. Raises CheckpointError for a missing, large or unreadable file."""

    def refuse(what: str) -> NoReturn:
        raise CheckpointError(f"{path}: {what}: not readable (get the file again)")

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    size = path.stat().st_size
    if size > MOST_BYTES:
        refuse(f"has {size} bytes, more than the {MOST_BYTES} that bitwright reads")
    try:
        raw = path.read_bytes()
    except OSError as error:
        refuse(error.strerror or "cannot be read")
    return parse(raw, refuse)
