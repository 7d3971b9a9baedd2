"""What has no range proof is listed as such, and counts neither as proved nor as failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from bitwright.arch import pe
from bitwright.arch.pe.int8_stream import Int8Stream
from bitwright.arch.pe.lut import Lut
from bitwright.arch.pe.opt_sparse import Opt4c
from bitwright.arch.pe.stream import Cut, StreamSpec
from bitwright.rtl import formal
from bitwright.rtl.formal import coverage, netlist, planes, ranges, tree_wires, trees
from bitwright.rtl.formal.coverage import UNNAMED, UNPROMISED
from bitwright.rtl.formal.model import Result, Setting
from bitwright.rtl.pe import streaming


def gaps(spec: StreamSpec, told: set[str], work: Path) -> dict[str, str]:
    """The properties that are missing, and why."""
    design = netlist.read(streaming.verilog(spec), work)
    results = list(coverage.missing(Setting(spec.name, "", work), spec, design, told))
    assert all(result.result == "not proved" and not result.proved and not result.failed for result in results)
    return {result.property: result.method for result in results}


def named(spec: StreamSpec, *properties: str) -> set[str]:
    return {"cut-range", *(f"{kind}-{name}" for kind in ("exact", "no-wrap") for name in properties)}


@pytest.mark.parametrize("name", pe.stream_names())
def test_every_integer_sum_of_the_library_has_a_proof(name: str, tmp_path: Path) -> None:
    """By its spec: whether that proof holds `bitwright prove` says."""
    spec = pe.stream(name)
    design = netlist.read(streaming.verilog(spec), tmp_path)
    accumulators = ranges.classes(spec, design, ranges.accumulators(spec, design))
    told = named(spec, *(first.register.name for first, *_ in accumulators))
    told |= named(spec, *(first.name for first, *_ in trees.classes(spec, design)))
    if spec.longest_sum is None:
        told = {item for item in told if not item.startswith("no-wrap")} | {"overflow-is-told"}
    integers = coverage.integer_fields(spec)
    assert bool(integers) == (spec.psum.kind == "int")
    assert gaps(spec, told, tmp_path) == {}
    missing = {f"exact-{field.name}" for field in integers}
    assert set(gaps(spec, set(), tmp_path)) == missing | ({"cut-range"} if spec.cuts else set())


@dataclass(frozen=True)
class _Bare(Int8Stream):
    """An integer PE of which nothing says what it adds."""

    @property
    def cuts(self) -> tuple[Cut, ...]:
        return ()


@dataclass(frozen=True)
class _Fewer(Lut):
    """A tile that forgets the cuts of one column and of the activations' sum."""

    @property
    def cuts(self) -> tuple[Cut, ...]:
        return tuple(cut for cut in super().cuts if cut.wire not in ("addend_0_1", "row_addend_0"))


@dataclass(frozen=True)
class _Unpromised(Int8Stream):
    @property
    def longest_sum(self) -> None:  # type: ignore[override]
        return None


def test_a_sum_that_nothing_names_is_listed(tmp_path: Path) -> None:
    assert gaps(_Bare(), set(), tmp_path) == {"exact-psum": UNNAMED}
    assert gaps(_Bare(), {"exact-acc", "no-wrap-acc"}, tmp_path) == {"exact-psum": UNNAMED}


def test_one_sum_of_many_that_nothing_names_is_listed(tmp_path: Path) -> None:
    spec = _Fewer(m=1, n=3, k=2, weight_bits=2)
    expected = {"exact-psum": f"1 of 3: {UNNAMED}", "exact-act_sum": UNNAMED}
    assert gaps(spec, named(spec, "acc_0_0"), tmp_path) == expected


def test_one_row_without_a_tree_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = Opt4c(rows=3)
    found = tree_wires.trees(spec)
    monkeypatch.setattr(trees, "trees", lambda spec: found[:2])
    assert gaps(spec, named(spec, "acc_0"), tmp_path) == {"exact-psum": f"1 of 3: {UNNAMED}"}


def test_a_total_without_a_bound_is_listed(tmp_path: Path) -> None:
    assert gaps(_Unpromised(), {"cut-range", "exact-acc"}, tmp_path) == {"no-wrap-acc": UNPROMISED}
    assert gaps(_Unpromised(), {"cut-range", "exact-acc", "overflow-is-told"}, tmp_path) == {}
    assert gaps(Int8Stream(), {"cut-range", "exact-acc"}, tmp_path) == {"no-wrap-acc": "a step adds up over its cycles"}


def test_cuts_that_only_a_test_bounds_are_listed(tmp_path: Path) -> None:
    """Entries of a table that the PE makes itself, all or quantised, bound one another: no solver has shown how."""
    spec = Lut(m=1, n=1, k=2, weight_bits=2, variant="unpu", precompute=True)
    assert list(planes.cut_ranges(Setting("lut", "", tmp_path), spec, netlist.Design("", {}))) == []
    told = named(spec, "acc_0_0", "act_sum_0") - {"cut-range"}
    assert gaps(spec, told, tmp_path) == {"cut-range": "shown by tests/rtl/pe/test_lut.py alone"}


def test_the_command_lists_it_last(tmp_path: Path) -> None:
    spec = _Bare(psum_bits=20)
    *results, last = formal.prove_in(tmp_path, spec, "yices", streaming.verilog(spec), 60, "bare")
    assert all(result.proved for result in results)
    assert last == Result("int8-mac", "bare", "exact-psum", UNNAMED, 0, "not proved", 0)
    assert not last.proved
    assert not last.failed
