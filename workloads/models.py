"""A model by name or by the path of its folder, config.json or .gguf file: its shape, and the hash of its weights."""

from __future__ import annotations

from pathlib import Path

from bitwright.workloads import shapes
from bitwright.workloads.shapes import ModelShape

WITH_WEIGHTS = ("smollm2-135m",)  # named models whose checkpoint a package carries


def shape_of(model: str) -> ModelShape:
    """Shape of a named model, or of what stands at the path `model`: a Hugging Face folder, its config.json, a GGUF.

    Raises ConfigError for an unknown name, CheckpointError for a folder or file that is no such model.
    """
    if model in shapes.names():
        return shapes.get(model)
    if model and Path(model).is_dir():  # "" would be the folder that one is in
        from bitwright.workloads import hf_folder

        return hf_folder.shape_of(Path(model))
    if model.endswith(".gguf"):
        from bitwright.workloads import gguf_shape

        return gguf_shape.shape_of(Path(model))
    if model.endswith(".json"):
        from bitwright.arch import json_text
        from bitwright.workloads import config_shape

        path = Path(model)
        return config_shape.shape(path.resolve().parent.name or "model", path, json_text.read(path))
    return shapes.get(model)


def weights_sha256(model: str) -> str | None:
    """sha256 of the model's checkpoint; None for a named model of which only the shape is known.

    Raises CheckpointError when the checkpoint is missing, truncated, or not the published one.
    """
    if model in shapes.names() and model not in WITH_WEIGHTS:
        return None
    from bitwright.workloads import checkpoint

    return checkpoint.load(model).sha256
