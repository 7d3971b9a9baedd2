"""The one exception tree. A message says what was wrong, the value, the rule, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN_CHARACTERS = 80  # of a user's value in a message


class BitwrightError(Exception):
    """Base of every error that bitwright raises on purpose.

    `exit_code` is what the command line returns for it: 1 a check ran and failed, 2 wrong usage, config or
    input file, 3 an external tool is missing or too old.
    """

    exit_code: int = 2


class ConfigError(BitwrightError):
    """A machine, space, workload or option that breaks a rule."""


class FormatError(BitwrightError):
    """A number format that does not exist, or values that it cannot hold."""


class CheckpointError(BitwrightError):
    """A model or text file that is missing, truncated, or not what its hash says."""


class ProgramError(BitwrightError):
    """A program of the accelerator: text that does not assemble, or words that are no instructions."""


class BoardError(BitwrightError):
    """A board that is absent, is another one than expected, or whose line loses too much."""

    exit_code = 3


class StoreError(BitwrightError):
    """A result store that cannot be read, written or locked."""


class ToolError(BitwrightError):
    """An external tool that is missing or too old; the message says how to install it."""

    exit_code = 3


class MismatchError(BitwrightError):
    """Two views that must agree do not; the message shows the first difference and how to replay it."""

    exit_code = 1


LISTED_NAMES = 40  # more than these are not listed in a message


def suggest(value: str, known: Iterable[str]) -> str:
    """The tail of a message for an unknown name: the closest known name, and all of them where they fit a line.

    Returns text such as `did you mean 'int8-mac'? (known: fp16-mac, int8-mac)`.
    """
    names = sorted(known)
    close = difflib.get_close_matches(value, names, n=1)
    listed = f"known: {', '.join(names)}" if len(names) <= LISTED_NAMES else f"{len(names)} names are known"
    return f"did you mean '{close[0]}'? ({listed})" if close else listed


def shown(value: object, *, quote: bool = True, most: int = SHOWN_CHARACTERS) -> str:
    """A user's value for a message: as Python writes it, on one line, printable, and cut to `most` characters.

    With `quote` False, printable text stands without its quotes.
    """
    bare = not quote and isinstance(value, str) and value != "" and value.isprintable()
    text = str(value) if bare else " ".join(repr(value).splitlines())
    return text if len(text) <= most else f"{text[: most - 3]}..."
