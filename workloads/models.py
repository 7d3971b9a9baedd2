"""A model by name or by the path of its .gguf file: its shape, and the hash of its weights where they are here."""

from __future__ import annotations

from bitwright.workloads import shapes
from bitwright.workloads.shapes import ModelShape

WITH_WEIGHTS = ("smollm2-135m",)  # named models whose checkpoint a package carries


def shape_of(model: str) -> ModelShape:
    """Shape of a named model, or of the checkpoint at the path `model`.

    Raises ConfigError for an unknown name, CheckpointError for a file that is no llama-architecture GGUF.
    """
    if model.endswith(".gguf"):
        from bitwright.workloads import checkpoint

        return checkpoint.load(model).shape
    return shapes.get(model)


def weights_sha256(model: str) -> str | None:
    """sha256 of the model's checkpoint; None for a named model of which only the shape is known.

    Raises CheckpointError when the checkpoint is missing, truncated, or not the published one.
    """
    if model in shapes.names() and model not in WITH_WEIGHTS:
        return None
    from bitwright.workloads import checkpoint

    return checkpoint.load(model).sha256
