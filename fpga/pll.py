"""Settings of the ECP5's PLL and of AMD's clock managers: the clock of a design from a board's crystal.

Source: Lattice FPGA-TN-02200 (ECP5 sysCLOCK PLL): with feedback from CLKOP, out = in * feedback / reference and
VCO = out * divider; the VCO runs at 400 to 800 MHz, the phase detector at 3.125 to 400 MHz.
AMD UG472 and DS181 (7 series, slowest grade): VCO = in * multiply at 600 to 1200 MHz, out = VCO / divider; UG572 and
DS925 (UltraScale+): 800 to 1600 MHz. The documents were not at hand; Vivado checks the ranges against the part.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from bitwright.arch.errors import ConfigError

_VCO_HZ = (400_000_000, 800_000_000)
_LEAST_DETECTOR_HZ = 3_125_000
_MOST_DIVIDER = 128


@dataclass(frozen=True)
class Pll:
    """CLKI_DIV, CLKFB_DIV, CLKOP_DIV and the frequency of the VCO."""

    reference: int
    feedback: int
    divider: int
    vco_hz: int


def ecp5_pll(input_hz: int, output_hz: int) -> Pll:
    """The settings that give `output_hz` exactly, with the VCO nearest the middle of its range.

    ConfigError where no setting does.
    """
    ratio = Fraction(output_hz, input_hz)
    reference, feedback = ratio.denominator, ratio.numerator
    dividers = [n for n in range(1, _MOST_DIVIDER + 1) if _VCO_HZ[0] <= n * output_hz <= _VCO_HZ[1]]
    if not dividers or max(reference, feedback) > _MOST_DIVIDER or input_hz < reference * _LEAST_DETECTOR_HZ:
        raise ConfigError(f"clock_hz = {output_hz}: the PLL cannot make it exactly of {input_hz} Hz")
    middle = sum(_VCO_HZ) // 2
    divider = min(dividers, key=lambda n: abs(n * output_hz - middle))
    return Pll(reference, feedback, divider, divider * output_hz)


@dataclass(frozen=True)
class Mmcm:
    """The primitive, CLKFBOUT_MULT_F, CLKOUT0_DIVIDE_F (both whole) and the frequency of the VCO."""

    cell: str
    multiply: int
    divider: int
    vco_hz: int


_MMCM_VCO_HZ = {"xc7": ("MMCME2_BASE", 600_000_000, 1_200_000_000), "xcup": ("MMCME4_BASE", 800_000_000, 1_600_000_000)}
_MOST_MULTIPLY = 64


def amd_mmcm(family: str, input_hz: int, output_hz: int) -> Mmcm:
    """The settings that give `output_hz` exactly, with the VCO nearest 1 GHz. ConfigError where no setting does."""
    cell, least, most = _MMCM_VCO_HZ[family]
    found = [
        Mmcm(cell, multiply, input_hz * multiply // output_hz, input_hz * multiply)
        for multiply in range(2, _MOST_MULTIPLY + 1)
        if least <= input_hz * multiply <= most
        and input_hz * multiply % output_hz == 0
        and input_hz * multiply // output_hz <= _MOST_DIVIDER
    ]
    if not found:
        raise ConfigError(f"clock_hz = {output_hz}: the clock manager cannot make it exactly of {input_hz} Hz")
    return min(found, key=lambda settings: abs(settings.vco_hz - 10**9))
