"""What every page is made of: a template with {{names}}, inlined assets, and a file written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from bitwright.arch.errors import ConfigError


def asset(name: str) -> str:
    """A file of this package as text."""
    return resources.files("bitwright.reports").joinpath(name).read_text(encoding="utf-8").strip()


def fill(page: str, parts: Mapping[str, str]) -> str:
    """The template with every `{{name}}` replaced, in one pass: text of a part is never taken for a placeholder."""
    pieces = page.split("{{")
    return pieces[0] + "".join(
        parts[name.strip()] + rest for name, rest in (piece.split("}}", 1) for piece in pieces[1:])
    )


def inline_script(code: str) -> str:
    """JavaScript that may stand inside a script element: no text in it can end the element."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def json_text(data: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character, code in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(character, code)
    return text


def write_whole(out: Path, text: str, option: str = "out") -> Path:
    """Write `text` to `out`, whole or not at all. Raises ConfigError, which names `option`, for a path that cannot be
    written."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, out)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{option} = {out}: must be a writable file in an existing folder ({error.strerror or error})"
        ) from error
    return out
