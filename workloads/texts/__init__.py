"""The committed evaluation and calibration text: two disjoint slices of the Jargon File 4.4.7 (public domain).

Provenance: Debian package dict-jargon 4.4.7-3.1, file jargon.dict.dz (gzip); uncompressed 1,418,350 bytes, sha256
6c8118c277d0b00736d406d4941b77b69932d6ab125f7179ff88fe12939cc19e, decoded as UTF-8. `jargon` is characters
400,000..656,000, `jargon-calibration` characters 0..256,000; in each slice every run of white space is then folded
to one space and the ends are stripped (243,718 and 245,143 bytes of UTF-8). The Jargon File states that it is in the
public domain, to be freely used, shared and modified.
"""

from __future__ import annotations

import dataclasses
import hashlib
from importlib import resources
from pathlib import Path

from bitwright.arch.errors import CheckpointError, suggest

_SLICES = {
    "jargon": ("jargon_eval.txt", "0212ad099389a792dc516c66ed37f1b5f049f77b6cd1733ab6fd87a324cf2879"),
    "jargon-calibration": (
        "jargon_calibration.txt",
        "e4d60bbc29a1a814ad0ad06600b2cffef8f8bb7723367177f619c5103cf89f21",
    ),
}


@dataclasses.dataclass(frozen=True)
class Text:
    """A text with the sha256 of its UTF-8 bytes."""

    name: str
    content: str
    sha256: str


def names() -> tuple[str, ...]:
    """Names of the committed texts."""
    return tuple(_SLICES)


def load(text: str | Path) -> Text:
    """The committed text of that name, or the UTF-8 file at that path (taken as it is, white space included).

    Raises CheckpointError when there is neither, when a committed slice is not the one its hash names, or when
    the file is not UTF-8.
    """
    if str(text) in _SLICES:
        filename, expected = _SLICES[str(text)]
        raw = resources.files(__name__).joinpath(filename).read_bytes()
        found = hashlib.sha256(raw).hexdigest()
        if found != expected:
            raise CheckpointError(
                f"text {text} = sha256 {found}: must be {expected} (the installed file was changed; install "
                f"bitwright again); workloads/texts/{filename}"
            )
        return Text(str(text), raw.decode("utf-8"), found)
    path = Path(text)
    if not path.is_file():
        raise CheckpointError(
            f"text = {str(text)!r}: neither a committed text nor a file; {suggest(str(text), _SLICES)}"
        )
    raw = path.read_bytes()
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"text = {str(text)!r}: byte {error.start} is not UTF-8") from None
    return Text(path.name, content, hashlib.sha256(raw).hexdigest())
