"""Figures at another node by the scaling equations of Stillmaker and Baas (Integration 58, 2017, 74-81,
doi 10.1016/j.vlsi.2017.02.002), to be labelled as scaled: no cell of the other node is behind them.

    area    times a table's factor
    delay   times d(V') / d(V), d = b3 V**3 + b2 V**2 + b1 V + b0, one polynomial a node
    energy  of an operation times e(V') / e(V), e = a2 V**2 + a1 V + a0

The polynomials are fits to SPICE runs (PTM and ITRS models, high performance or low power) near each node's supply.
Coefficients as in github.com/wromaszkan/nodeScale (MIT), since the paper itself was not at hand; its area and energy
tables agree with those of PyPI's hwcomponents (low power at 45 and 32 nm, high performance below), and the corrigendum
on the authors' page (engineering.fresnostate.edu, 2017-06-vlsij-scaling) with the energies of 65 and 32 nm.
Not modelled: libraries (cell heights, drive strengths, characterised corners), wires, leakage on its own. Checked
against our own netlists on docs/stream-nodes.md: at 7 nm energies come out at a third and clocks at three times what
synthesis gives, energies' ratios of two PEs up to 24 % off; at 130 nm at 1.5 and 1.7 times, ratios up to 50 % off.
The paper's supplies lie near each node's own; far from it a polynomial runs away, and a `Technology` is refused where
it does: see `Technology.supply_range_v`.
A node between two of the table (CACTI's 22 nm) takes the geometric mean of both, weighted by the logarithm of length.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache

from bitwright.arch.costs.records import SramCost
from bitwright.arch.costs.streams import StreamCost
from bitwright.arch.errors import ConfigError, suggest

LABEL = "scaled (Stillmaker and Baas 2017)"
Delay = tuple[float, float, float, float]
Energy = tuple[float, float, float]

AREA_FROM_45 = {180: 19, 130: 6.4, 90: 2.8, 65: 1.5, 45: 1, 32: 0.46, 20: 0.21, 16: 0.19, 14: 0.17, 10: 0.1, 7: 0.059}
"""Area at a node over that at 45 nm."""

BULK: dict[int, tuple[Delay, Energy]] = {
    180: ((0, 97.09, -356.7, 406.5), (0, 24.64, -17.98)),
    130: ((-76.65, 334.9, -493.4, 275.8), (7.171, -6.709, 2.904)),
    90: ((-60.34, 262.5, -384.2, 210.9), (4.762, -4.781, 2.092)),
    65: ((-53.3, 230.4, -333.9, 178.6), (3.755, -4.398, 1.975)),
}
"""(b3, b2, b1, b0), (a2, a1, a0) of nodes without two kinds."""
HIGH_PERFORMANCE: dict[int, tuple[Delay, Energy]] = BULK | {
    45: ((-501.6, 1567, -1619, 566.1), (1.018, -0.3107, 0.1539)),
    32: ((-1047, 2982, -2797, 873.5), (0.8367, -0.4341, 0.1701)),
    20: ((0, 34.63, -66.37, 41.15), (0.373, -0.1582, 0.04104)),
    16: ((0, 24.8, -47.52, 28.87), (0.2958, -0.1241, 0.03024)),
    14: ((-40.66, 109.2, -100.6, 35.92), (0.2363, -0.09675, 0.02239)),
    10: ((-34.95, 93.65, -85.99, 30.4), (0.2068, -0.09311, 0.02375)),
    7: ((-28.58, 76.6, -70.26, 24.69), (0.1776, -0.09097, 0.02447)),
}
LOW_POWER: dict[int, tuple[Delay, Energy]] = BULK | {
    45: ((-285.7, 1239, -1795, 898.8), (1.103, -0.362, 0.2767)),
    32: ((-325.9, 1374, -1922, 913.2), (0.9559, -0.7823, 0.471)),
    20: ((-160.5, 514.1, -558.6, 217.5), (0.2632, -0.14, 0.06841)),
    16: ((-114.6, 366.7, -397.4, 153.6), (0.2139, -0.1187, 0.05639)),
    14: ((-85.37, 271.6, -292.2, 111.4), (0.1556, -0.06472, 0.03066)),
    10: ((-71.76, 228.6, -246.3, 93.91), (0.1261, -0.0518, 0.02769)),
    7: ((-61.79, 196.1, -210.3, 79.55), (0.09365, -0.03409, 0.02043)),
}


SUPPLY_STEP_V, MOST_SUPPLY_V = 0.005, 3.0
"""Supplies are tried in these steps, up to this one."""
DELAY_RISE = 1.15
"""A delay may be this many times a lower supply's: no gate gets slower; the fit of 45 nm does, by 12 % at 1.1 V."""


@dataclass(frozen=True)
class Technology:
    """A node (nm), its supply (V) and which transistors below 65 nm.

    Raises ConfigError for a node outside the paper's 7 to 180 nm, and for a supply outside `supply_range_v`.
    """

    node_nm: float
    supply_v: float
    low_power: bool = False

    def __post_init__(self) -> None:
        if not min(AREA_FROM_45) <= self.node_nm <= max(AREA_FROM_45):
            raise ConfigError(f"node_nm = {self.node_nm:g}: the scaling equations go from 180 to 7 nm")
        low, high = self.supply_range_v
        if not low <= self.supply_v <= high:
            raise ConfigError(
                f"supply_v = {self.supply_v:g}: the fits of {self.node_nm:g} nm hold from {low:g} to {high:g} V "
                "(outside, energy falls or delay rises with the supply, or delay falls ever faster)"
            )

    @property
    def supply_range_v(self) -> tuple[float, float]:
        """Supplies (to SUPPLY_STEP_V) at which the fits behave like gates: energy and delay are positive, energy rises
        with the supply, delay is at most DELAY_RISE times that of any lower supply, and flattens while it falls. Of a
        node between two: where both do."""
        ranges = [_supply_range_v(*self._fits[size]) for size in self._sizes]
        return max(low for low, _ in ranges), min(high for _, high in ranges)

    @property
    def _sizes(self) -> tuple[int, ...]:
        """The node of the paper, or the two that it lies between."""
        if self.node_nm in AREA_FROM_45:
            return (int(self.node_nm),)
        sizes = sorted(AREA_FROM_45)
        i = bisect_right(sizes, self.node_nm)
        return sizes[i - 1], sizes[i]

    @property
    def area_factor(self) -> float:
        """Over the area at 45 nm."""
        return self._between(AREA_FROM_45)

    @property
    def delay_factor(self) -> float:
        """d(V), the paper's unit."""
        return self._between({nm: _polynomial(delay, self.supply_v) for nm, (delay, _) in self._fits.items()})

    @property
    def energy_factor(self) -> float:
        """e(V), the paper's unit."""
        return self._between({nm: _polynomial(energy, self.supply_v) for nm, (_, energy) in self._fits.items()})

    @property
    def _fits(self) -> dict[int, tuple[Delay, Energy]]:
        return LOW_POWER if self.low_power else HIGH_PERFORMANCE

    def _between(self, factors: dict[int, float] | dict[int, int | float]) -> float:
        sizes = self._sizes
        if len(sizes) == 1:
            return float(factors[sizes[0]])
        below, above = (factors[size] for size in sizes)
        share = math.log(self.node_nm / sizes[0]) / math.log(sizes[1] / sizes[0])
        return float(below ** (1 - share) * above**share)


@lru_cache(maxsize=64)
def _supply_range_v(delay: Delay, energy: Energy) -> tuple[float, float]:
    """The first run of supplies at which a node's fits behave like gates."""
    good: list[float] = []
    least = math.inf
    for step in range(1, round(MOST_SUPPLY_V / SUPPLY_STEP_V) + 1):
        volt = step * SUPPLY_STEP_V
        now, energy_now = _polynomial(delay, volt), _polynomial(energy, volt)
        slope = _polynomial((3 * delay[0], 2 * delay[1], delay[2]), volt)
        flattens = slope >= 0 or _polynomial((6 * delay[0], 2 * delay[1]), volt) >= 0
        rises = _polynomial((2 * energy[0], energy[1]), volt) > 0
        least = min(least, now)
        if 0 < now <= DELAY_RISE * least and energy_now > 0 and rises and flattens:
            good.append(volt)
        elif good:
            break
    assert good, "every node of the paper has supplies at which its fits hold"
    return round(good[0], 3), round(good[-1], 3)


def _polynomial(coefficients: tuple[float, ...], volt: float) -> float:
    """Highest power first."""
    value = 0.0
    for coefficient in coefficients:
        value = value * volt + coefficient
    return value


NANGATE45 = Technology(45, 1.1)
"""Supplies as in the Liberty files; high performance: Nangate45's inverter takes 22 ps at a fan-out of four."""
SG13G2 = Technology(130, 1.2)
ASAP7 = Technology(7, 0.7)
NODES = {"nangate45": NANGATE45, "sg13g2": SG13G2, "asap7": ASAP7}
"""Technology of each node with a table of our own."""
CACTI_22NM = {"itrs-hp": Technology(22, 0.8), "itrs-lstp": Technology(22, 0.8, low_power=True)}
"""By cell type; supplies of CACTI's own parameters."""


def scaled_stream(cost: StreamCost, to: Technology) -> StreamCost:
    """A PE's cost at another node, its `node` saying that it is scaled. Leakage: nan, the equations have none.

    Raises ConfigError where `cost.node` is none of NODES, as one that is scaled already.
    """
    of = NODES.get(cost.node)
    if of is None:
        raise ConfigError(f"node = {cost.node}: no technology to scale from ({suggest(cost.node, NODES)})")
    energy, area = to.energy_factor / of.energy_factor, to.area_factor / of.area_factor
    energies = ("active_pj", "active_error_pj", "stalled_pj", "idle_pj")
    return replace(
        cost,
        node=f"{to.node_nm:g} nm, {LABEL} from {cost.node}",
        clock_mhz=cost.clock_mhz / _slower(of, to),
        area_um2=cost.area_um2 * area,
        sequential_um2=cost.sequential_um2 * area,
        min_period_ns=cost.min_period_ns * _slower(of, to),
        leakage_uw=math.nan,
        **{name: getattr(cost, name) * energy for name in energies},
    )


def scaled_sram(cost: SramCost, to: Technology) -> SramCost:
    """One of CACTI's memories at 22 nm (tables.sram_22nm) at another node; leakage is not scaled (nan).

    CACTI has nothing below 22 nm. The equations are of logic: that SRAM cells have shrunk less since is left out, so
    that the area is too small.
    """
    of = CACTI_22NM[cost.cell_type]
    energy, slower = to.energy_factor / of.energy_factor, _slower(of, to)
    return replace(
        cost,
        cell_type=f"{cost.cell_type}, {to.node_nm:g} nm {LABEL} from 22 nm",
        read_pj=cost.read_pj * energy,
        write_pj=cost.write_pj * energy,
        leakage_mw=math.nan,
        area_mm2=cost.area_mm2 * to.area_factor / of.area_factor,
        access_ns=cost.access_ns * slower,
        cycle_ns=cost.cycle_ns * slower,
    )


def _slower(of: Technology, to: Technology) -> float:
    return to.delay_factor / of.delay_factor
