"""Wires by distance: H-trees laid out point by point, buffers and energies by hand."""

from __future__ import annotations

import itertools

import pytest
from bitwright.arch import costs
from bitwright.arch.costs.wires import UTILISATION, Wires, h_tree_um, side_um

WIRES = Wires(
    ff_per_um=0.2, voltage_v=1.0, buffer_pin_ff=2.0, buffer_load_ff=42.0, buffer_fj=10.0, buffer_um2=1.5,
    buffer_leakage_uw=0.03,
)  # fmt: skip


def drawn_um(side: int, pitch_um: float) -> float:
    """An H-tree over side x side sinks, drawn: each four points are joined by an H, then their middles."""
    points = [(x * pitch_um, y * pitch_um) for x, y in itertools.product(range(side), repeat=2)]
    length_um = 0.0
    while len(points) > 1:
        across = int(len(points) ** 0.5)
        grid = [sorted(points)[i * across : (i + 1) * across] for i in range(across)]
        middles = []
        for i, j in itertools.product(range(0, across, 2), repeat=2):
            (x0, y0), (_, y1), (x1, _) = grid[i][j], grid[i][j + 1], grid[i + 1][j]
            length_um += 2 * (y1 - y0) + (x1 - x0)
            middles.append(((x0 + x1) / 2, (y0 + y1) / 2))
        points = middles
    return length_um


@pytest.mark.parametrize("side", [4, 16, 64])
def test_an_h_tree_is_as_long_as_one_drawn(side: int) -> None:
    assert h_tree_um(side * side, 3.0) == pytest.approx(drawn_um(side, 3.0), rel=1e-12)


def test_one_sink_needs_no_wire_and_more_need_more() -> None:
    assert h_tree_um(1, 5.0) == 0.0
    lengths = [h_tree_um(sinks, 5.0) for sinks in range(1, 600)]
    assert lengths == sorted(lengths)


def test_a_cell_takes_more_than_its_area() -> None:
    assert side_um(70.0) == pytest.approx(10.0)
    assert side_um(70.0) ** 2 * UTILISATION == pytest.approx(70.0)


def test_a_toggle_by_hand() -> None:
    assert WIRES.toggle_pj(50.0) == pytest.approx(0.5 * 0.2 * 50.0 / 1e3)


def test_a_tree_by_hand() -> None:
    """16 sinks of 70 um2: 18 sides of 10 um, 36 fF of wire and 32 of pins over 40 fF a buffer."""
    tree = WIRES.tree(16, 16 * 70.0)  # 1.7 buffers, so two
    assert tree.energy_pj == pytest.approx((36 + 2 * 2 + 2 * 10) / 1e3)
    assert (tree.area_um2, tree.leakage_uw) == (pytest.approx(3.0), pytest.approx(0.06))
    assert WIRES.tree(1, 70.0).energy_pj == 0.0


def test_nangate45_charges_its_own_wire() -> None:
    """0.1774 fF/um stands in the library's wire-load table; the supply is 1.1 V."""
    found = costs.load("nangate45").wires()
    assert found.toggle_pj(1000.0) == pytest.approx(0.5 * 0.1774 * 1.21, rel=1e-6)
