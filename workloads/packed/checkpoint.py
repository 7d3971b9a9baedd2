"""A packed checkpoint as a model: `weight` decodes, `stored` gives the codes.

Modules without packed tensors (embedding, norms, those that the config leaves out) are plain floats, as in any folder.
Rows of q and k are in the half-split order already, codes too.
"""

from __future__ import annotations

import numpy as np
from bitwright.arch import formats
from bitwright.arch.errors import CheckpointError, shown
from bitwright.arch.formats.base import Encoded
from bitwright.arch.safetensors_file import SafetensorsFile, TensorInfo
from bitwright.workloads import packed
from bitwright.workloads.checkpoint import matrices_of
from bitwright.workloads.hf_folder import HfCheckpoint, HfFolder, check_tied, expected_tensors, name_of, shape_of
from bitwright.workloads.packed.module import FLOATS, Module, PackedMatrix, Scheme
from numpy.typing import NDArray

_ROTARY = ".rotary_emb.inv_freq"  # old Llama checkpoints carry the frequencies, which the config defines


class PackedCheckpoint(HfCheckpoint):
    """A folder whose matrices are packed as its quantization_config says.

    Members beyond `Checkpoint`
        stored_bits(name)   Bits that the files spend on a matrix, with everything that belongs to it.
    Errors: CheckpointError for another architecture or method, missing, misshapen or unknown tensors; for contents that
    mean nothing (NaN scales, groups that do not exist) when they are read.
    One decoded matrix is kept, for `rows`.
    """

    def __init__(self, folder: HfFolder) -> None:
        self.path, self.name = folder.path, name_of(folder.path)
        self.shape = shape_of(folder.path, folder.config)
        self.matrices = matrices_of(self.shape)
        config = folder.path / "config.json"
        self._packed: dict[str, PackedMatrix] = {}
        self._tensors = {}
        self._sort(folder, packed.scheme(config, folder.config["quantization_config"]))
        self._kept: tuple[str, NDArray[np.float32]] | None = None
        self.sha256 = folder.sha256

    def weight(self, name: str) -> NDArray[np.float32]:
        """As `Checkpoint.weight`: decoded, exactly as the library that wrote the checkpoint would in float32."""
        encoded = self.stored(name)
        if encoded is None:
            return super().weight(name)
        with np.errstate(over="ignore"):  # a scale near float32's end
            return formats.get(encoded.format).decode(encoded)

    def rows(self, name: str, first: int, last: int) -> NDArray[np.float32]:
        """As `Checkpoint.rows`; the order is that of `weight`."""
        if name not in self._packed:
            return super().rows(name, first, last)
        if self._kept is None or self._kept[0] != name:
            self._kept = name, self.weight(name)
        return self._kept[1][first:last].copy()

    def source_type(self, name: str) -> str:
        """Method, format and group, such as "GPTQ int4 g128"; of plain tensors safetensors' name of the type."""
        return self._packed[name].label if name in self._packed else super().source_type(name)

    def stored(self, name: str) -> Encoded | None:
        """As `Checkpoint.stored`."""
        if name in self._packed:
            return self._packed[name].read()
        super()._tensor(name)
        return None

    def stored_bits(self, name: str) -> int:
        """Bits of the tensors that weight `name` is read from."""
        return 8 * self._packed[name].nbytes if name in self._packed else super().stored_bits(name)

    def _sort(self, folder: HfFolder, scheme: Scheme) -> None:
        """Sorts the folder's tensors into plain and packed ones; refuses missing and unknown ones."""
        known: set[str] = set()
        for name, (tensor, size) in expected_tensors(self.shape).items():
            entry = folder.tensors.get(tensor)
            matrix = tensor.endswith(".weight") and len(size) == 2
            if entry is None and not matrix:
                raise CheckpointError(f"{folder.path}: tensor {tensor!r} is missing")
            if entry is not None and (entry[1].type_name in FLOATS or not matrix):
                self._tensors[name] = _plain(entry, tensor, size)
                known.add(tensor)
            else:
                module = Module(folder.path, folder.tensors, tensor.removesuffix(".weight"), (size[0], size[1]))
                self._packed[name] = scheme.matrix(module)
                known.update(self._packed[name].names)
        for tensor in sorted(set(folder.tensors) - known):
            if tensor == "lm_head.weight" and self.shape.tied_embeddings and "embed" in self._tensors:
                check_tied(folder)
            elif not (tensor.endswith(_ROTARY) or scheme.aside(tensor) or _zero_bias(folder, tensor)):
                raise CheckpointError(f"{folder.path}: tensor {shown(tensor)} is not part of such a model")


def _plain(
    entry: tuple[SafetensorsFile, TensorInfo], tensor: str, size: tuple[int, ...]
) -> tuple[SafetensorsFile, TensorInfo]:
    """The entry itself, or CheckpointError for another type or shape."""
    file, info = entry
    if info.type_name not in FLOATS:
        raise CheckpointError(
            f"{file.path}: tensor {tensor!r} has type {info.type_name}: must be {' or '.join(FLOATS)}"
        )
    if info.shape != size:
        raise CheckpointError(f"{file.path}: tensor {tensor!r} has shape {info.shape}: must be {size}")
    return entry


def _zero_bias(folder: HfFolder, tensor: str) -> bool:
    """Whether a tensor is a bias of zeros, which AutoGPTQ stores for every module, with or without a bias."""
    file, info = folder.tensors[tensor]
    if not tensor.endswith("_proj.bias") or info.type_name not in FLOATS or len(info.shape) != 1:
        return False
    return not file.array(tensor).astype(np.float32).any()
