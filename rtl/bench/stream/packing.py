"""Steps and sums of a streaming PE as the words of a compiled design's ports, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from bitwright.arch.pe.base import IntArray
from bitwright.arch.pe.stream import FIRST, LAST, Field, Steps, StreamSpec
from bitwright.rtl.bench.words import Words, pack_lanes, unpack_lanes, word_count

_FLAGS = (Field(FIRST, 1), Field(LAST, 1))


def _bits(fields: Sequence[Field]) -> int:
    return sum(field.bits * field.lanes for field in fields)


def step_fields(spec: StreamSpec) -> tuple[Field, ...]:
    """All fields of the step's payload, the flags included."""
    return (*spec.step_fields, *_FLAGS)


def pack(fields: Sequence[Field], values: Steps) -> Words:
    """Values of all fields to words [n, w], as the payload port has them; w = 32-bit words of the whole payload."""
    count = len(values[fields[0].name])
    words = np.zeros((count, word_count(_bits(fields)) + 1), dtype=np.uint32)
    at = 0
    for field in fields:
        lanes = np.asarray(values[field.name], dtype=np.int64).reshape(count, field.lanes)
        _merge(words, pack_lanes(lanes, field.bits), at)
        at += field.bits * field.lanes
    return words[:, : word_count(at)]


def _merge(words: Words, part: Words, at: int) -> None:
    """Or `part` into `words`, `at` bits up."""
    start, shift = divmod(at, 32)
    width = min(part.shape[1], words.shape[1] - start)
    words[:, start : start + width] |= (part[:, :width] << np.uint32(shift)).astype(np.uint32)
    if shift:
        high = (part >> np.uint32(32 - shift)).astype(np.uint32)
        width = min(part.shape[1], words.shape[1] - start - 1)
        words[:, start + 1 : start + 1 + width] |= high[:, :width]


def unpack(fields: Sequence[Field], words: Words) -> dict[str, IntArray]:
    """Words [n, w] of a payload to its fields, int64 [n] or [n, lanes], signed as the fields are."""
    found, at = {}, 0
    for field in fields:
        start, shift = divmod(at, 32)
        count = word_count(field.bits * field.lanes)
        part = words[:, start : start + count]
        if shift:
            above = np.zeros_like(part)
            rest = words[:, start + 1 : start + 1 + count]
            above[:, : rest.shape[1]] = rest
            part = ((part >> np.uint32(shift)) | (above << np.uint32(32 - shift))).astype(np.uint32)
        lanes = unpack_lanes(part, field.bits, field.lanes, field.signed)
        found[field.name] = lanes[:, 0] if field.lanes == 1 else lanes
        at += field.bits * field.lanes
    return found


def step_words(spec: StreamSpec, steps: Steps) -> Words:
    """Steps as beats of the `step` stream."""
    return pack(step_fields(spec), steps)


def step_port(spec: StreamSpec, steps: Steps) -> npt.NDArray[np.uint64] | Words:
    """Steps as a stream of the harness takes them: integers up to 64 bits, words above."""
    return port_values(step_words(spec, steps), _bits(step_fields(spec)))


def port_values(words: Words, bits: int) -> npt.NDArray[np.uint64] | Words:
    """Words of a payload as the harness takes a port of `bits`: integers up to 64 bits, words above."""
    if bits > 64:
        return words
    wide = words[:, 0].astype(np.uint64)
    return wide if words.shape[1] == 1 else wide | words[:, 1].astype(np.uint64) << np.uint64(32)


def sum_words(spec: StreamSpec, outputs: npt.NDArray[np.uint64] | Words) -> Words:
    """The captured `sum__payload` as words [n, w], whatever its width."""
    bits = _bits(spec.sum_fields)
    if bits > 64:
        return np.asarray(outputs, dtype=np.uint32)
    wide = np.asarray(outputs, dtype=np.uint64)
    return np.stack([(wide >> np.uint64(32 * place)).astype(np.uint32) for place in range(word_count(bits))], axis=1)


def as_integer(words: npt.NDArray[np.uint32]) -> int:
    """One payload as a Python integer."""
    return int.from_bytes(np.ascontiguousarray(words.astype("<u4")).tobytes(), "little")
