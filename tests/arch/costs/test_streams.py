"""The table of PEs behind streams: a row by its PE, whatever way the PE is named; dynamic energies and leakage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bitwright.arch import costs
from bitwright.arch.errors import ConfigError

STORED: dict[str, Any] = json.loads((Path(costs.__file__).parent / "streams_nangate45.json").read_text())["rows"]


def test_a_row_is_found_by_name_parameters_or_both() -> None:
    name = "int8-mac:lanes=4,pipeline=1"
    ways = [
        (name, {}),
        ("int8-mac", {"pipeline": 1, "lanes": 4}),
        ("int8-mac:lanes=4", {"pipeline": 1, "psum_bits": 32}),
    ]
    found = [costs.stream(given, params) for given, params in ways]
    assert found[0] is not None
    assert found[0].name == name
    assert found == [found[0]] * 3
    assert costs.stream("bit-serial") is not None
    assert costs.stream("int8-mac", {"lanes": 3}) is None


def test_energies_are_dynamic_and_leakage_is_the_trees_too() -> None:
    cost, row = costs.stream("opt4c"), STORED["opt4c"]
    assert cost is not None
    leakage_pj = cost.leakage_uw / cost.clock_mhz  # uW over MHz
    assert cost.leakage_uw == row["leakage_uw"] + row["clock_tree_leakage_uw"]
    assert leakage_pj / row["macs_per_cycle"] == pytest.approx(row["terms_pj_per_mac"]["leakage"], rel=1e-4)
    assert cost.active_pj + leakage_pj == pytest.approx(row["energy_pj_per_mac"] * row["macs_per_cycle"], rel=1e-4)
    assert cost.active_pj_per_mac * cost.macs_per_cycle == cost.active_pj
    assert 0 < cost.idle_pj <= cost.stalled_pj * 1.01 < cost.active_pj
    assert 0 < cost.active_error_pj < 0.02 * cost.active_pj
    assert cost.fmax_mhz == pytest.approx(row["fmax_mhz"], rel=1e-4)


def test_nodes_are_those_with_a_table_and_others_are_refused() -> None:
    assert costs.stream_nodes() == ("asap7", "nangate45", "sg13g2")
    with pytest.raises(ConfigError) as error:
        costs.stream("int8-mac", node="asap5")
    assert str(error.value).startswith("node = asap5: no table of PEs behind streams: ")
