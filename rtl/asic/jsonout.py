"""Stable JSON for cost tables: sorted keys, six significant digits, one trailing newline, written at once."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

SIGNIFICANT_DIGITS = 6


def rounded(data: Any) -> Any:
    """The same data with every float rounded to SIGNIFICANT_DIGITS significant digits."""
    if isinstance(data, dict):
        return {key: rounded(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [rounded(value) for value in data]
    if isinstance(data, float):
        return float(f"{data:.{SIGNIFICANT_DIGITS}g}")
    return data


def write_json(path: Path, data: Any) -> None:
    """Write beside the file and rename, so that a reader or a kill never meets half a table, nor two writers each
    other's."""
    text = json.dumps(rounded(data), sort_keys=True, indent=1) + "\n"
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
