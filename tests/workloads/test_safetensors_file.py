"""The safetensors reader against the safetensors package, and every way a header can lie.

4 stored types whole and by rows, against numpy and (where it can) the package; 36 damaged headers, each with its whole
message; every truncation of a file (some 300), and 500 files with one byte changed: read or refused, nothing else.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bitwright.arch import json_text
from bitwright.arch.errors import CheckpointError
from bitwright.arch.safetensors_file import SafetensorsFile

MATRIX = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
TAIL = ": not a readable safetensors file (get the file again)"


def header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def entry(kind: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        SafetensorsFile(path)
    return str(error.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.uint8])
def test_arrays_whole_and_by_rows(dtype: Any, tmp_path: Path, to_safetensors: Callable[..., bytes]) -> None:
    path = tmp_path / "x.safetensors"
    odd = np.zeros(1, np.uint8)  # moves the next tensor to an odd offset
    matrix = (MATRIX * 10).astype(dtype)
    path.write_bytes(to_safetensors({"odd": odd, "matrix": matrix, "row": matrix[0]}, {"format": "pt"}))
    file = SafetensorsFile(path)
    assert file.metadata == {"format": "pt"}
    assert [info.shape for info in file.tensors.values()] == [(1,), (6, 5), (5,)]
    assert file.array("matrix").dtype == dtype
    for first, last in ((0, 6), (2, 5), (3, 3), (5, 6)):
        found = file.array("matrix", first, last)
        assert found.tobytes() == matrix[first:last].tobytes()
        assert found.shape == (last - first, 5)
    assert file.array("row").tobytes() == matrix[0].tobytes()
    found[:] = 0  # a new array: the file does not change
    assert file.array("matrix").tobytes() == matrix.tobytes()


def test_files_of_the_package_and_for_the_package(tmp_path: Path, to_safetensors: Callable[..., bytes]) -> None:
    package = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed (pip install safetensors)")
    rng = np.random.default_rng(1)
    arrays = {f"t{i}": rng.standard_normal((i, 7)).astype((np.float32, np.float16)[i % 2]) for i in range(1, 9)}
    arrays |= {
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.array(4, np.float32),
        "codes": np.arange(9, dtype=np.int32),
    }
    theirs = tmp_path / "theirs.safetensors"
    package.save_file(arrays, theirs)
    file = SafetensorsFile(theirs)
    assert set(file.tensors) == set(arrays)
    for name, array in arrays.items():
        assert np.array_equal(file.array(name), array)
        assert file.array(name).shape == array.shape
    mine = package.load(to_safetensors(arrays))
    assert all(np.array_equal(mine[name], array) for name, array in arrays.items())


def test_types_without_a_packed_numpy_type_give_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        header(a=entry("F4", [2, 4], [0, 4]), b=entry("F8_E8M0", [2], [4, 6])) + bytes([1, 2, 3, 4, 127, 128])
    )
    file = SafetensorsFile(path)
    assert file.array("a").tolist() == [1, 2, 3, 4]
    assert file.array("a", 1, 2).tolist() == [3, 4]
    assert file.array("b").astype(np.float32).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": 5}, "tensor 'a' must have dtype, shape and data_offsets, and nothing else"),
        ({"a": {"dtype": "F32"}}, "tensor 'a' must have dtype, shape and data_offsets, and nothing else"),
        ({"a": entry() | {"more": 1}}, "tensor 'a' must have dtype, shape and data_offsets, and nothing else"),
        ({"a": entry("F33")}, "tensor 'a' has dtype 'F33', which safetensors does not define"),
        ({"a": entry(["F32"])}, "tensor 'a' has dtype ['F32'], which safetensors does not define"),
        ({"a": entry(shape=2)}, "tensor 'a' has shape 2: must be at most 8 whole numbers"),
        ({"a": entry(shape=[-2])}, "tensor 'a' has shape [-2]: must be at most 8 whole numbers"),
        ({"a": entry(shape=[2.0])}, "tensor 'a' has shape [2.0]: must be at most 8 whole numbers"),
        ({"a": entry(shape=[True, 2])}, "tensor 'a' has shape [True, 2]: must be at most 8 whole numbers"),
        ({"a": entry(shape=[1] * 9)}, f"tensor 'a' has shape {[1] * 9}: must be at most 8 whole numbers"),
        ({"a": entry(offsets=[0])}, "tensor 'a' has data_offsets [0]: must be a first and a last byte"),
        ({"a": entry(offsets=[8, 0])}, "tensor 'a' has data_offsets [8, 0]: must be a first and a last byte"),
        ({"a": entry(offsets=[0, "8"])}, "tensor 'a' has data_offsets [0, '8']: must be a first and a last byte"),
        ({"a": entry(shape=[1])}, "tensor 'a' has 8 bytes, which is not what F32 of shape [1] needs"),
        ({"a": entry(shape=[3])}, "tensor 'a' has 8 bytes, which is not what F32 of shape [3] needs"),
        (
            {"a": entry(shape=[1 << 62, 4], offsets=[0, 0])},
            "tensor 'a' has 0 bytes, which is not what F32 of shape [4611686018427387904, 4] needs",
        ),
        ({"a": entry("F4", [3], [0, 1])}, "tensor 'a' has 1 bytes, which is not what F4 of shape [3] needs"),
        ({"__metadata__": {"a": 1}}, "__metadata__ is not a map from text to text"),
        ({"__metadata__": ["a"]}, "__metadata__ is not a map from text to text"),
    ],
)
def test_lying_entries(entries: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    assert refused(path, header(**entries) + bytes(8)) == f"{path}: {message}{TAIL}"


def test_byte_ranges_that_leave_the_file_overlap_or_leave_gaps(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"

    def message(data: int, **entries: Any) -> tuple[int, str]:
        head = header(**entries)
        found = refused(path, head + bytes(data))
        assert found.startswith(f"{path}: ")
        assert found.endswith(TAIL)
        return len(head), found[len(f"{path}: ") : -len(TAIL)]

    start, found = message(8, a=entry(shape=[1 << 40], offsets=[0, 1 << 42]))
    assert found == f"tensor 'a' ends at byte {start + (1 << 42)}, past the end of the file at byte {start + 8}"
    start, found = message(12, a=entry(), b=entry(offsets=[4, 12]))
    assert found == f"tensor 'b' at byte {start + 4} overlaps the one before it, which ends at byte {start + 8}"
    start, found = message(8, a=entry(), b=entry())
    assert found == f"tensor 'b' at byte {start} overlaps the one before it, which ends at byte {start + 8}"
    start, found = message(20, a=entry(), b=entry(offsets=[12, 20]))
    assert found == f"tensor 'b' at byte {start + 12} leaves a gap before it, which ends at byte {start + 8}"
    start, found = message(9, a=entry())
    assert found == f"the last tensor ends at byte {start + 8}, the file at byte {start + 9}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the header is not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"{", "the header is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (b"[]", "the header is a JSON list, not an object"),
        (b"\xff{}", "the header is not UTF-8"),
        (b'{"a": 1, "a": 2}', "the header has 'a' twice"),
        (b'{"a": NaN}', "the header has NaN"),
        (b"[" * 100_000, "the header is not JSON that a model needs (a number too long or brackets too deep)"),
        (
            b'{"a": 1' + b"0" * 9999 + b"}",
            "the header is not JSON that a model needs (a number too long or brackets too deep)",
        ),
    ],
)
def test_headers_that_are_no_object(text: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    assert refused(path, struct.pack("<Q", len(text)) + text) == f"{path}: {message}{TAIL}"


def test_header_lengths_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    assert refused(path, b"1234567") == f"{path}: 7 bytes: too short for a safetensors header's length of 8 bytes"
    assert refused(path, struct.pack("<Q", 3) + b"{}") == (
        f"{path}: the header ends at byte 11, past the end of the file at byte 10{TAIL}"
    )
    assert refused(path, struct.pack("<Q", 2**64 - 1) + b"{}") == (
        f"{path}: the header ends at byte {2**64 + 7}, past the end of the file at byte 10{TAIL}"
    )
    most = json_text.MOST_BYTES
    with path.open("wb") as file:
        file.write(struct.pack("<Q", most + 1))
        file.truncate(most + 100)
    with pytest.raises(CheckpointError) as error:
        SafetensorsFile(path)
    assert str(error.value) == (
        f"{path}: the header has {most + 1} bytes, more than the {most} that bitwright reads{TAIL}"
    )
    with pytest.raises(CheckpointError) as error:
        SafetensorsFile(tmp_path / "none")
    assert str(error.value) == f"{tmp_path / 'none'}: no such file"


def test_every_truncation_is_refused(tmp_path: Path, to_safetensors: Callable[..., bytes]) -> None:
    whole = to_safetensors({"a": MATRIX, "b": MATRIX[0]})
    path = tmp_path / "x.safetensors"
    for length in range(len(whole)):
        assert refused(path, whole[:length]).startswith(f"{path}: ")


def test_one_changed_byte_is_read_or_refused(tmp_path: Path, to_safetensors: Callable[..., bytes]) -> None:
    whole = to_safetensors({"a": MATRIX, "b": MATRIX[0]})
    path = tmp_path / "x.safetensors"
    rng = np.random.default_rng(2)
    start, read = len(whole) - 140, 0
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[rng.integers(start)] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            file = SafetensorsFile(path)
            assert sum(file.array(name).nbytes for name in file.tensors) == 140
            read += 1
    assert 0 < read < 500, "both ends must be seen (seed 2)"
