"""Reading a safetensors file: every length, offset and shape is checked before anything is mapped.

The `safetensors` package is not used: without torch it gives no bfloat16, float8 or float4 array, whole or sliced
("data type 'bfloat16' not understood", 0.8.0), it takes the last of two tensors of one name, and its errors do not name
the file or the tensor's numbers. The tests compare this reader with it, tensor by tensor.
Source: huggingface/safetensors, README, section "Format"; types and the rule that ranges touch: safetensors 0.8.0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
from bitwright.arch import json_text
from bitwright.arch.errors import CheckpointError, shown
from numpy.typing import NDArray

# Name -> bits a value and numpy's type; None where numpy has no packed type: `array` gives the bytes.
_TYPES: dict[str, tuple[int, Any]] = {
    "BOOL": (8, np.bool_),
    "U8": (8, np.uint8),
    "I8": (8, np.int8),
    "U16": (16, np.uint16),
    "I16": (16, np.int16),
    "U32": (32, np.uint32),
    "I32": (32, np.int32),
    "U64": (64, np.uint64),
    "I64": (64, np.int64),
    "F16": (16, np.float16),
    "BF16": (16, ml_dtypes.bfloat16),
    "F32": (32, np.float32),
    "F64": (64, np.float64),
    "C64": (64, np.complex64),
    "F8_E4M3": (8, ml_dtypes.float8_e4m3fn),
    "F8_E5M2": (8, ml_dtypes.float8_e5m2),
    "F8_E8M0": (8, ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": (8, ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": (8, ml_dtypes.float8_e5m2fnuz),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "F4": (4, None),
}
_MOST_AXES = 8


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor of the file: `offset` from byte 0, `nbytes` of data, the reduction axis of `shape` last."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class SafetensorsFile:
    """A checked safetensors file: `tensors`, `metadata` (text to text), and rows of any tensor.

    Errors: CheckpointError for anything unreadable, naming the file and the first thing that is wrong.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        size = path.stat().st_size
        if size < 8:
            raise CheckpointError(f"{path}: {size} bytes: too short for a safetensors header's length of 8 bytes")
        try:
            self._data = np.memmap(path, np.uint8, "r")
        except OSError as error:
            self._refuse(error.strerror or "cannot be read")
        length = int.from_bytes(bytes(self._data[:8]), "little")
        if length > size - 8:
            self._refuse(f"the header ends at byte {8 + length}, past the end of the file at byte {size}")
        if length > json_text.MOST_BYTES:
            self._refuse(f"the header has {length} bytes, more than the {json_text.MOST_BYTES} that bitwright reads")
        header = json_text.parse(bytes(self._data[8 : 8 + length]), lambda what: self._refuse(f"the header {what}"))
        self.metadata = self._metadata(header.pop("__metadata__", {}))
        found = [self._tensor(name, entry, 8 + length, size) for name, entry in header.items()]
        self._check_ranges(found, 8 + length, size)
        self.tensors = {info.name: info for info in found}

    def array(self, name: str, first: int = 0, last: int | None = None) -> NDArray[Any]:
        """Rows first..last (exclusive; all by default) of tensor `name` in its own type, as a new aligned array.

        Rows are along the first axis. Of types below 8 bits (F4, F6) the packed bytes: uint8, one axis.
        """
        info = self.tensors[name]
        count = info.shape[0] if info.shape else 1
        last = count if last is None else last
        assert 0 <= first <= last <= count, f"rows {first}..{last} of {count}"
        per_row = info.nbytes // count if count else 0
        raw = np.array(self._data[info.offset + first * per_row : info.offset + last * per_row])
        dtype = _TYPES[info.type_name][1]
        if dtype is None:
            return raw
        values: NDArray[Any] = raw.view(dtype)
        return values.reshape((last - first, *info.shape[1:]) if info.shape else ())

    def _refuse(self, what: str) -> NoReturn:
        raise CheckpointError(f"{self.path}: {what}: not a readable safetensors file (get the file again)")

    def _metadata(self, entry: Any) -> dict[str, str]:
        if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
            self._refuse("__metadata__ is not a map from text to text")
        return entry

    def _tensor(self, name: str, entry: Any, start: int, size: int) -> TensorInfo:
        """One entry of the header, checked alone: its type, shape and byte range agree and lie in the file."""
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            self._refuse(f"tensor {shown(name)} must have dtype, shape and data_offsets, and nothing else")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in _TYPES:
            self._refuse(f"tensor {shown(name)} has dtype {shown(kind)}, which safetensors does not define")
        if not _whole_numbers(shape) or len(shape) > _MOST_AXES:
            self._refuse(f"tensor {shown(name)} has shape {shown(shape)}: must be at most {_MOST_AXES} whole numbers")
        if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            self._refuse(f"tensor {shown(name)} has data_offsets {shown(offsets)}: must be a first and a last byte")
        first, last = offsets
        if start + last > size:
            self._refuse(f"tensor {shown(name)} ends at byte {start + last}, past the end of the file at byte {size}")
        bits = math.prod(shape) * _TYPES[kind][0]
        if bits != 8 * (last - first):
            self._refuse(
                f"tensor {shown(name)} has {last - first} bytes, which is not what {kind} of shape {shown(shape)} needs"
            )
        return TensorInfo(name, kind, tuple(shape), start + first, last - first)

    def _check_ranges(self, tensors: list[TensorInfo], start: int, size: int) -> None:
        """The tensors' bytes must follow one another without overlap or gap up to the end of the file."""
        end = start
        for info in sorted(tensors, key=lambda info: (info.offset, info.nbytes)):
            if info.offset != end:
                what = "overlaps the one before it" if info.offset < end else "leaves a gap before it"
                self._refuse(f"tensor {shown(info.name)} at byte {info.offset} {what}, which ends at byte {end}")
            end += info.nbytes
        if end != size:
            self._refuse(f"the last tensor ends at byte {end}, the file at byte {size}")


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
