"""The store keeps whole entries or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bitwright.arch.errors import StoreError
from bitwright.sim.store import Store, content_hash


def test_entry_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.write("rows", "k1", {"a": 1.5, "b": [1, 2]})
    assert store.read("rows", "k1") == {"a": 1.5, "b": [1, 2]}


@pytest.mark.parametrize("broken", ["", "{", "[1]", '{"a": 1', "\x00\x00"])
def test_broken_entry_counts_as_missing(tmp_path: Path, broken: str) -> None:
    store = Store(tmp_path)
    store.path("rows", "k1").write_text(broken)
    assert not store.has("rows", "k1")
    assert store.read("rows", "k1") is None


def test_interrupted_write_leaves_the_old_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write("rows", "k1", {"a": 1})

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        store.write("rows", "k1", {"a": 2})
    path = store.path("rows", "k1")
    assert str(caught.value) == f"{path}: cannot be written (No space left on device); what was stored before is kept"
    assert store.read("rows", "k1") == {"a": 1}
    assert [item.name for item in path.parent.iterdir()] == ["k1.json"]


def test_store_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(StoreError) as caught:
        Store(path)
    assert str(caught.value) == (
        f"store = {path}: cannot be written (Not a directory); choose a folder that you may write"
    )


def test_folder_without_results_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Store(tmp_path, create=False)
    assert str(caught.value) == f"store = {tmp_path}: is not a result store; run `bitwright sweep` into it first"


def test_hash_does_not_depend_on_key_order() -> None:
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
