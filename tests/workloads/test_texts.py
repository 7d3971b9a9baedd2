"""The committed slices of the Jargon File."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from bitwright.arch.errors import CheckpointError
from bitwright.workloads import texts


@pytest.mark.parametrize(("name", "size"), [("jargon", 243_718), ("jargon-calibration", 245_143)])
def test_slice_is_the_committed_one(name: str, size: int) -> None:
    text = texts.load(name)
    raw = text.content.encode()
    assert len(raw) == size
    assert hashlib.sha256(raw).hexdigest() == text.sha256
    assert text.content == " ".join(text.content.split())


def test_slices_are_disjoint() -> None:
    """The whole of neither, and no passage of 300 characters of one, is in the other."""
    evaluation, calibration = (texts.load(name).content for name in texts.names())
    passages = {evaluation[start : start + 300] for start in range(len(evaluation) - 300)}
    assert not any(calibration[start : start + 300] in passages for start in range(len(calibration) - 300))


def test_a_changed_slice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts.load("jargon").sha256
    monkeypatch.setitem(texts._SLICES, "jargon", ("jargon_eval.txt", "0" * 64))
    with pytest.raises(CheckpointError) as error:
        texts.load("jargon")
    assert str(error.value) == (
        f"text jargon = sha256 {found}: must be {'0' * 64} (the installed file was changed; install bitwright again); "
        "workloads/texts/jargon_eval.txt"
    )


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"two  spaces\n")
    text = texts.load(path)
    assert (text.name, text.content) == ("mine.txt", "two  spaces\n")
    assert text.sha256 == hashlib.sha256(b"two  spaces\n").hexdigest()


def test_neither_name_nor_file() -> None:
    with pytest.raises(CheckpointError) as error:
        texts.load("jargo")
    assert str(error.value) == (
        "text = 'jargo': neither a committed text nor a file; did you mean 'jargon'? "
        "(known: jargon, jargon-calibration)"
    )


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(CheckpointError) as error:
        texts.load(path)
    assert str(error.value) == f"text = '{path}': byte 3 is not UTF-8"
