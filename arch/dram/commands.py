"""What a controller says to one DRAM channel."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """A command; LPDDR5's two-part activate counts as one, at its first part."""

    ACTIVATE = "ACT"
    PRECHARGE = "PRE"
    PRECHARGE_ALL = "PREA"
    READ = "RD"
    WRITE = "WR"
    REFRESH = "REF"


class Command(NamedTuple):
    """One command: its clock, kind, and bank (group, bank in the group) and row where it has them, else -1."""

    clock: int
    kind: Kind
    group: int = -1
    bank: int = -1
    row: int = -1
