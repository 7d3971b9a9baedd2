"""One linear module of a packed checkpoint: its tensors, checked before they are read, and what is read from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
from bitwright.arch.errors import CheckpointError, shown
from bitwright.arch.formats.base import Encoded
from bitwright.arch.safetensors_file import SafetensorsFile, TensorInfo
from numpy.typing import NDArray

FLOATS = ("F16", "BF16", "F32")
Tensors = Mapping[str, tuple[SafetensorsFile, TensorInfo]]
Scales = NDArray[np.float16] | NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class PackedMatrix:
    """A matrix whose tensors are there and have the right types and shapes.

    label : str            How it is stored, for people: "GPTQ int4 g128".
    names : tuple of str   The tensors that it is read from.
    nbytes : int           Their bytes in the files.
    read                   Gives codes and scales; CheckpointError for contents that mean nothing.
    """

    label: str
    names: tuple[str, ...]
    nbytes: int
    read: Callable[[], Encoded]


class Scheme(Protocol):
    """One quantisation config: how the modules of a checkpoint are packed."""

    def matrix(self, module: Module) -> PackedMatrix:
        """The matrix of a module. Raises CheckpointError for missing or misshapen tensors."""
        ...

    def aside(self, name: str) -> bool:
        """Whether a tensor of this name belongs to the scheme but not to any weight (activation scales)."""
        ...


class Module:
    """The tensors `<name>.<part>` of one linear module that should be a matrix [N, K].

    Fields
        path : Path            The checkpoint's folder.
        name : str             "model.layers.0.self_attn.q_proj".
        rows, width : int      N and K.
    """

    def __init__(self, path: Path, tensors: Tensors, name: str, size: tuple[int, int]) -> None:
        self.path, self.name = path, name
        self.rows, self.width = size
        self._tensors = tensors
        self._used: dict[str, TensorInfo] = {}

    def has(self, part: str) -> bool:
        """Whether there is such a tensor."""
        return f"{self.name}.{part}" in self._tensors

    def need(self, part: str, types: tuple[str, ...], *shapes: tuple[int, ...]) -> TensorInfo:
        """The tensor's entry, which must be there in one of these types and shapes (any shape if none is given)."""
        name = f"{self.name}.{part}"
        if name not in self._tensors:
            raise CheckpointError(f"{self.path}: tensor {name!r} is missing: the module is packed without it")
        file, info = self._tensors[name]
        if info.type_name not in types:
            raise CheckpointError(
                f"{file.path}: tensor {name!r} has type {info.type_name}: must be {' or '.join(types)}"
            )
        if shapes and info.shape not in shapes:
            must = " or ".join(map(str, dict.fromkeys(shapes)))
            raise CheckpointError(f"{file.path}: tensor {name!r} has shape {info.shape}: must be {must}")
        self._used[name] = info
        return info

    def take(self, part: str) -> NDArray[Any]:
        """The tensor's values; `need` must have seen it."""
        file, info = self._tensors[f"{self.name}.{part}"]
        return file.array(info.name)

    def words(self, part: str) -> NDArray[np.uint32]:
        """An I32 tensor as unsigned words."""
        words: NDArray[np.uint32] = self.take(part).view(np.uint32)
        return words

    def refuse(self, part: str, what: str) -> NoReturn:
        """CheckpointError about one tensor."""
        file, _ = self._tensors[f"{self.name}.{part}"]
        raise CheckpointError(f"{file.path}: tensor {f'{self.name}.{part}'!r} {what}")

    def packed(self, label: str, read: Callable[[], Encoded]) -> PackedMatrix:
        """The matrix made of every tensor that was needed."""
        return PackedMatrix(label, tuple(self._used), sum(info.nbytes for info in self._used.values()), read)

    def scales(self, part: str) -> tuple[Scales, str]:
        """A float tensor as Encoded.scales has it, and the name of its scale format.

        float32 stays; float16 stays; bfloat16 becomes float16 where that changes no number (both take 16 bits), else
        float32. CheckpointError for NaN or infinity.
        """
        values = self.take(part)
        if not np.isfinite(values.astype(np.float32)).all():
            self.refuse(part, "has a NaN or infinite scale (get the folder again)")
        if values.dtype == np.float16:
            return values, "fp16"
        wide = values.astype(np.float32)
        if values.dtype != np.float32:
            with np.errstate(over="ignore"):
                half = wide.astype(np.float16)
            if np.array_equal(half.astype(np.float32), wide):
                return half, "fp16"
        return wide, "fp32"

    def group_of_inputs(self, part: str, groups: int) -> NDArray[np.int32] | None:
        """The group of each input, int32 [K]; None for runs of equal length, in order (or -1: not set).

        CheckpointError for a group that does not exist.
        """
        index: NDArray[np.int32] = self.take(part).astype(np.int32)
        if (index == -1).any():
            return None
        if index.min() < 0 or index.max() >= groups:
            worst = index.max() if index.max() >= groups else index.min()
            self.refuse(part, f"has group {worst}: must be in 0..{groups - 1}")
        return index


@dataclasses.dataclass(frozen=True)
class Settings:
    """Typed look-ups in a part of quantization_config; every error names config.json and the key."""

    path: Path
    entries: Mapping[str, Any]
    prefix: str = "quantization_config."

    def refuse(self, key: str, rule: str) -> NoReturn:
        raise CheckpointError(f"{self.path}: {self.prefix}{key} = {shown(self.entries.get(key))}: {rule}")

    def whole(self, key: str, least: int, most: int) -> int:
        """A whole number in least..most."""
        value = self.entries.get(key)
        if type(value) is not int or not least <= value <= most:
            self.refuse(key, f"must be a whole number in {least}..{most}")
        return value

    def group_size(self, key: str = "group_size") -> int | None:
        """Inputs that share a scale; None for -1, null or no entry: whole rows."""
        value = self.entries.get(key)
        if value is None or value == -1:
            return None
        return self.whole(key, 1, 1 << 31)

    def text(self, key: str, default: str) -> str:
        """A text, in lower case."""
        value = self.entries.get(key, default)
        if value is None:
            return default
        if not isinstance(value, str):
            self.refuse(key, "must be a text")
        return value.lower()

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.entries.get(key, default)
        if type(value) is not bool:
            self.refuse(key, "must be true or false")
        return value
