"""Operands for energy measurements: a real model's values in any format, or uniform random codes.

Both kinds have one shape, so that a stimulus is built the same way from either: `MATRICES` weight matrices, 64 tokens,
16 rows (output channels), 256 input channels in groups of GROUP.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError
from bitwright.arch.pe import PESpec
from bitwright.arch.pe.units import WeightDequantiser
from bitwright.arch.pe.weight_codes import weight_code
from numpy.typing import NDArray

GROUP = 64
SEED = 20260522
OPERANDS_FILE = "operands.gz"
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """The committed operands of a real model (see workloads.operand_sample, which writes them).

    acts : float32 [L, T, K+1], weights : float32 [L, N, K+1]; the last channel is the row's largest value.
    """

    acts: NDArray[np.float32]
    weights: NDArray[np.float32]
    origin: dict[str, Any]
    sha256: str


@lru_cache(maxsize=1)
def sample() -> Sample:
    """Read the committed sample. Raises ConfigError when it is not the file its header describes."""
    data = resources.files("bitwright.arch.costs").joinpath(OPERANDS_FILE).read_bytes()
    header, _, body = gzip.decompress(data).partition(b"\n")
    described = json.loads(header)
    arrays, offset = {}, 0
    for array in described["arrays"]:
        dtype, count = np.dtype(array["dtype"]), int(np.prod(array["shape"]))
        if offset + count * dtype.itemsize > len(body):
            raise ConfigError(f"{OPERANDS_FILE}: array {array['name']} is cut short (write the file again)")
        values = np.frombuffer(body, dtype, count, offset).reshape(array["shape"])
        arrays[array["name"]] = values.astype(np.float32)
        offset += count * dtype.itemsize
    digest = hashlib.sha256(body).hexdigest()
    return Sample(arrays["acts"], arrays["weights"], described["origin"], digest)


@dataclass(frozen=True)
class Weights:
    """Weights in one format, [L, N, K] codes with [L, N, G] metadata; int64, 0 where the format has none.

    integers         integer - zero of each code; None for fp16 and bf16.
    unsigned_codes   The codes are plain integers with a zero point.
    scales           float16 [L, N, G]; the second-level code, where there is one, is in scale_codes (else 1).
    """

    format: str
    codes: IntArray
    integers: IntArray | None
    zeros: IntArray
    selectors: IntArray
    scales: NDArray[np.float16]
    scale_codes: IntArray
    unsigned_codes: bool

    def per_value(self, metadata: NDArray[Any]) -> NDArray[Any]:
        """[L, N, G] to [L, N, K]."""
        return np.repeat(metadata, GROUP, axis=2)

    def fp16(self) -> NDArray[np.float16]:
        """The weights as an fp16 PE takes them [L, N, K]: fp16 itself, or out of the dequantiser."""
        if self.format == "fp16":
            return self.codes.astype(np.uint16).view(np.float16)
        unit = WeightDequantiser(self.format, scale_code_bits(self.format))
        return unit.dequantise(
            self.codes,
            self.per_value(self.scales),
            zero=self.per_value(self.zeros),
            selector=self.per_value(self.selectors),
            scale_code=self.per_value(self.scale_codes),
        )


def group_of(format_name: str) -> int | None:
    """GROUP, or None for the formats that by nature have one scale a row or none."""
    return GROUP if formats.get(format_name).default_group is not None else None


def scale_code_bits(format_name: str) -> int:
    """8 for formats whose scales have a second level, else 0."""
    return 8 if formats.get(format_name).default_scale_format == "int8" else 0


def weights(format_name: str, *, random: bool) -> Weights:
    """The sample's weights in a format; or, with the same scales, uniform random codes and metadata.

    Random fp16 and bf16 codes are finite and normal with uniform exponents (bf16: those of fp16's range); random
    symmetric integers leave out the code that the encoder never makes.
    """
    codec = formats.get(format_name)
    encoded = codec.encode(sample().weights, group=group_of(format_name))
    channels = encoded.codes.shape[-1] - 1
    groups = channels // GROUP

    def metadata(values: NDArray[Any] | None, default: int) -> NDArray[Any]:
        if values is None:
            return np.full((*encoded.codes.shape[:-1], groups), default, np.int64)
        wide = np.repeat(values, groups, axis=-1) if values.shape[-1] == 1 else values[..., :groups]
        return np.ascontiguousarray(wide)

    codes = encoded.codes[..., :channels].astype(np.int64)
    zeros = metadata(encoded.zeros, 0).astype(np.int64)
    selectors = metadata(encoded.selectors, 0).astype(np.int64)
    if random:
        rng = np.random.default_rng([SEED, *format_name.encode()])
        codes = _random_codes(format_name, codes.shape, rng)
        zeros = rng.integers(0, 1 << codec.zero_bits, zeros.shape)
        selectors = rng.integers(0, 1 << codec.selector_bits, selectors.shape)
    two_level = encoded.channel_scales is not None
    scales = metadata(encoded.channel_scales if two_level else encoded.scales, 1).astype(np.float16)
    scale_codes = metadata(encoded.scale_codes, 1).astype(np.int64)
    integers = None
    if format_name not in ("fp16", "bf16"):
        spread = (np.repeat(zeros, GROUP, axis=2), np.repeat(selectors, GROUP, axis=2))
        integers = weight_code(format_name).integers(codes, *spread)
    return Weights(
        format_name, codes, integers, zeros, selectors, scales, scale_codes, unsigned_codes=codec.zero_bits > 0
    )


def _random_codes(format_name: str, shape: tuple[int, ...], rng: np.random.Generator) -> IntArray:
    if format_name in ("fp16", "bf16"):
        return _random_floats(format_name, shape, rng)
    codec = formats.get(format_name)
    codes = rng.integers(0, 1 << codec.bits, shape)
    if codec.family == "integer":
        half = 1 << (codec.bits - 1)
        codes = rng.integers(1 - half, half, shape) & ((1 << codec.bits) - 1)
    return codes


def _random_floats(format_name: str, shape: tuple[int, ...], rng: np.random.Generator) -> IntArray:
    fraction_bits, low, high = (10, 1, 30) if format_name == "fp16" else (7, 113, 142)
    exponent = rng.integers(low, high + 1, shape) << fraction_bits
    return (rng.integers(0, 2, shape) << 15) | exponent | rng.integers(0, 1 << fraction_bits, shape)


def activations(spec: PESpec, *, random: bool) -> NDArray[Any]:
    """Activations [L, T, K] as a PE takes them: float16, or int64 with one int8 scale a token."""
    real = sample().acts
    shape = (*real.shape[:-1], real.shape[-1] - 1)
    rng = np.random.default_rng([SEED, *spec.act.name.encode()])
    if spec.act.kind == "float":
        if random:
            return _random_floats("fp16", shape, rng).astype(np.uint16).view(np.float16)
        return real[..., :-1].astype(np.float16)
    if random:
        return rng.integers(-127, 128, shape)
    codec = formats.get("int8")
    encoded = codec.encode(real, group=None, scale_format="fp32")
    return codec.integers(encoded).ints[..., :-1].astype(np.int64)


def pe_weights(spec: PESpec, found: Weights) -> NDArray[Any]:
    """Weights [L, N, K] as the PE's `wgt` port takes them: float16, integers, or codes.

    Raises ConfigError when the format has no such form for the PE.
    """
    if spec.wgt.kind == "float":
        return found.fp16()
    if found.integers is None:
        raise ConfigError(f"{found.format}: no integer values for {spec.name}")
    if spec.wgt.kind == "code" and found.unsigned_codes:
        return found.codes
    return found.integers
