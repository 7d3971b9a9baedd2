"""Number formats: codes, scales and exact values. `formats.get("int4").encode(w, group=128)`."""

from bitwright.arch.formats.base import Encoded, Format, IntegerCodes, StorageBits
from bitwright.arch.formats.registry import get, names, register

__all__ = ["Encoded", "Format", "IntegerCodes", "StorageBits", "get", "names", "register"]
