"""Scaling equations: the authors' corrected example, hand arithmetic, and what is labelled or refused."""

from __future__ import annotations

import itertools
import math

import pytest
from bitwright.arch import costs
from bitwright.arch.costs import scaling
from bitwright.arch.costs.scaling import ASAP7, NANGATE45, Technology
from bitwright.arch.errors import ConfigError


def test_the_example_of_the_authors_corrigendum() -> None:
    """1 pJ at 65 nm and 1.3 V is 0.1755 pJ at 32 nm and 0.9 V."""
    of, to = Technology(65, 1.3), Technology(32, 0.9)
    assert to.energy_factor == pytest.approx(0.4571, abs=5e-5)
    assert of.energy_factor == pytest.approx(2.604, abs=5e-4)
    assert to.energy_factor / of.energy_factor == pytest.approx(0.1755, abs=1e-4)  # theirs cuts digits off


def test_factors_by_hand() -> None:
    assert NANGATE45.delay_factor == pytest.approx(-501.6 * 1.331 + 1567 * 1.21 - 1619 * 1.1 + 566.1, rel=1e-12)
    assert ASAP7.energy_factor == pytest.approx(0.1776 * 0.49 - 0.09097 * 0.7 + 0.02447, rel=1e-12)
    low_power = Technology(7, 0.7, low_power=True)
    assert low_power.energy_factor == pytest.approx(0.09365 * 0.49 - 0.03409 * 0.7 + 0.02043, rel=1e-12)
    between = Technology(22, 0.8)
    share = math.log(22 / 20) / math.log(32 / 20)
    assert between.area_factor == pytest.approx(0.21 ** (1 - share) * 0.46**share, rel=1e-12)
    assert Technology(20, 0.8).energy_factor < between.energy_factor < Technology(32, 0.8).energy_factor


def test_a_scaled_cost_says_so() -> None:
    cost = costs.stream("int8-mac")
    assert cost is not None
    found = scaling.scaled_stream(cost, ASAP7)
    slower = ASAP7.delay_factor / NANGATE45.delay_factor
    assert found.node == "7 nm, scaled (Stillmaker and Baas 2017) from nangate45"
    assert found.area_um2 == pytest.approx(0.059 * cost.area_um2, rel=1e-12)
    assert found.fmax_mhz == pytest.approx(cost.fmax_mhz / slower, rel=1e-12)
    assert found.clock_mhz == pytest.approx(cost.clock_mhz / slower, rel=1e-12)
    energy = ASAP7.energy_factor / NANGATE45.energy_factor
    assert found.active_pj_per_mac == pytest.approx(cost.active_pj_per_mac * energy, rel=1e-12)
    assert math.isnan(found.leakage_uw)
    assert found.rtl_sha256 == cost.rtl_sha256


def test_memory_at_seven_nm_is_scaled_from_twenty_two_and_says_so() -> None:
    memory = costs.sram_22nm(65536, 64)
    assert (memory.read_pj, memory.area_mm2) == pytest.approx((5.67, 0.0586), rel=0.01)  # another run of CACTI
    found = scaling.scaled_sram(memory, ASAP7)
    assert found.cell_type == "itrs-lstp, 7 nm scaled (Stillmaker and Baas 2017) from 22 nm"
    of = Technology(22, 0.8, low_power=True)
    assert (
        found.read_pj / memory.read_pj
        == found.write_pj / memory.write_pj
        == pytest.approx(ASAP7.energy_factor / of.energy_factor, rel=1e-12)
    )
    assert found.area_mm2 / memory.area_mm2 == pytest.approx(0.059 / of.area_factor, rel=1e-12)
    assert found.access_ns / memory.access_ns == pytest.approx(ASAP7.delay_factor / of.delay_factor, rel=1e-12)
    assert math.isnan(found.leakage_mw)


def test_a_cost_is_scaled_from_its_own_node_once() -> None:
    cost = costs.stream("int8-mac", node="sg13g2")
    assert cost is not None
    found = scaling.scaled_stream(cost, ASAP7)
    assert found.area_um2 == pytest.approx(cost.area_um2 * 0.059 / 6.4, rel=1e-12)
    assert found.active_pj == pytest.approx(
        cost.active_pj * ASAP7.energy_factor / Technology(130, 1.2).energy_factor, rel=1e-12
    )
    assert set(scaling.NODES) == set(costs.stream_nodes())
    with pytest.raises(ConfigError) as error:
        scaling.scaled_stream(found, NANGATE45)
    assert str(error.value) == (
        "node = 7 nm, scaled (Stillmaker and Baas 2017) from sg13g2: no technology to scale from "
        "(known: asap7, nangate45, sg13g2)"
    )


WHY = "(outside, energy falls or delay rises with the supply, or delay falls ever faster)"


@pytest.mark.parametrize(
    ("node_nm", "supply_v", "message"),
    [
        (5, 0.7, "node_nm = 5: the scaling equations go from 180 to 7 nm"),
        # 34.63 (V - 0.9583)**2 + 9.35 is 1.15 * 9.35 at 1.1595 V; 0.373 V**2 - 0.1582 V rises from 0.2121 V on.
        (20, 2.0, f"supply_v = 2: the fits of 20 nm hold from 0.215 to 1.155 V {WHY}"),
        # The cubic has its inflection at 76.6 / (3 * 28.58) = 0.8934 V; energy rises from 0.09097 / 0.3552 = 0.2561 V.
        (7, 0.1, f"supply_v = 0.1: the fits of 7 nm hold from 0.26 to 0.89 V {WHY}"),
        (45, 1.2, f"supply_v = 1.2: the fits of 45 nm hold from 0.155 to 1.13 V {WHY}"),
        # Of 32 nm: 8.63 at 0.91 V and 8.78 at 0.915 V, where the least is 7.55 at 0.8453 V; from 0.4341 / 1.6734 V on.
        (22, 1.2, f"supply_v = 1.2: the fits of 22 nm hold from 0.26 to 0.91 V {WHY}"),
    ],
)
def test_what_the_equations_do_not_cover_is_refused(node_nm: float, supply_v: float, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Technology(node_nm, supply_v)
    assert str(error.value) == message


@pytest.mark.parametrize("low_power", [False, True])
@pytest.mark.parametrize("node_nm", scaling.AREA_FROM_45)
def test_fits_behave_like_gates_in_their_range_and_not_beyond(node_nm: int, low_power: bool) -> None:
    """By differences of the factors themselves, in steps of 10 mV."""
    nominal = {180: 1.8, 130: 1.2, 90: 1.1, 65: 1.1, 45: 1.0, 32: 0.9, 20: 0.9, 16: 0.8, 14: 0.8, 10: 0.75, 7: 0.7}
    low, high = Technology(node_nm, nominal[node_nm], low_power=low_power).supply_range_v
    steps = [round(low + 0.01 * i, 3) for i in range(int((high - low) / 0.01) + 1)]
    inside = [Technology(node_nm, volt, low_power=low_power) for volt in steps]
    delays, energies = [one.delay_factor for one in inside], [one.energy_factor for one in inside]
    assert energies == sorted(energies)
    assert energies[0] > 0
    assert all(delay <= 1.151 * min(delays[: i + 1]) for i, delay in enumerate(delays))
    falls = [before - after for before, after in itertools.pairwise(delays)]
    assert all(after < before + 1e-9 or after < 0 for before, after in itertools.pairwise(falls))
    for volt in (low - 0.01, high + 0.01):
        with pytest.raises(ConfigError, match=f"supply_v = {volt:g}: the fits of {node_nm} nm hold from"):
            Technology(node_nm, volt, low_power=low_power)
