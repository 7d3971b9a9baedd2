"""The reader of the cost tables: values, interpolation, DRAM arithmetic, scopes, refusals."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from bitwright.arch import costs
from bitwright.arch.errors import ConfigError


def test_pe_costs_are_in_order() -> None:
    table = costs.load("nangate45")
    for pe in ("fp16-mac", "int8-mac", "shift-add"):
        for dataflow in ("ws", "os"):
            cell = table.pe(pe, dataflow)
            assert 0 < cell.sequential_um2 < cell.area_um2
            assert 0 < cell.idle_energy_pj < cell.pass_energy_pj < cell.energy_pj_per_mac
            assert cell.fmax_mhz == pytest.approx(1e3 / cell.min_period_ns)
            assert (cell.weight_load_pj > 0) == (cell.bus_beat_pj > 0) == (dataflow == "ws")
            assert cell.weight_load_pj >= cell.bus_beat_pj


def test_the_native_format_is_the_default() -> None:
    table = costs.load("nangate45")
    assert table.pe("int8-mac", "ws") == table.pe("int8-mac", "ws", "int8")
    assert table.pe("shift-add", "os").weight_format == "int4"
    assert table.pe("fp16-mac", "os").weight_format == "fp16"


def test_the_cell_of_a_zero_point_column_hears_a_silent_bus() -> None:
    table = costs.load("nangate45")
    found = table.pe("shift-add", "ws", "constant-one")
    assert found.bus_beat_pj == 0.0
    assert 0 < found.weight_load_pj < table.pe("shift-add", "ws").weight_load_pj


def test_int8_mac_at_other_accumulator_widths() -> None:
    table = costs.load("nangate45")
    for dataflow in ("ws", "os"):
        for name in ("int8", "int4"):
            cells = [table.pe("int8-mac", dataflow, name, psum_bits=bits) for bits in (19, 23, 32)]
            assert cells[-1] == table.pe("int8-mac", dataflow, name)
            for what in ("area_um2", "energy_pj_per_mac", "pass_energy_pj", "idle_energy_pj", "leakage_uw"):
                values = [getattr(cell, what) for cell in cells]
                assert values == sorted(values), (dataflow, name, what)
    assert table.pe("shift-add", "ws", psum_bits=19) == table.pe("shift-add", "ws")
    with pytest.raises(ConfigError) as caught:
        table.pe("int8-mac", "ws", psum_bits=20)
    assert str(caught.value).startswith(
        "cost table nangate45: no entry pe/int8-mac/ws/p20: did you mean 'pe/int8-mac/ws/p23'?"
    )


def test_narrower_weights_switch_less() -> None:
    table = costs.load("nangate45")
    for dataflow in ("ws", "os"):
        energies = [table.pe("int8-mac", dataflow, f"int{bits}").energy_pj_per_mac for bits in (8, 6, 4, 2)]
        assert energies == sorted(energies, reverse=True)


def test_units_by_pe_by_format_and_alone() -> None:
    table = costs.load("nangate45")
    below = table.unit("group-dequantiser", "int8-mac")
    assert below.energy_pj_per_op > 0
    wide = table.unit("group-dequantiser", "int8-mac", "bitmod_fp4")
    assert wide.area_um2 > below.area_um2
    assert table.unit("weight-dequantiser", "int2").area_um2 < table.unit("weight-dequantiser", "int8").area_um2
    assert table.unit("fp32-accumulator").area_um2 == table.unit("fp32-accumulator", "fp16-mac").area_um2
    assert table.unit("int-accumulator").energy_pj_per_op < table.unit("fp32-accumulator").energy_pj_per_op


def test_a_register_costs_its_clock_and_its_toggles() -> None:
    register = costs.load("nangate45").register()
    assert register.energy_pj(0.0) == register.clock_pj
    assert register.energy_pj(0.5) == pytest.approx(register.clock_pj + register.toggle_pj / 2)
    assert register.area_um2 == pytest.approx(4.522)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: costs.load("nangate4"),
            "node = nangate4: no cost table: did you mean 'nangate45'? (known: nangate45)",
        ),
        (
            lambda: costs.load("nangate45").pe("int8-mac", "ws", "fp16"),
            "cost table nangate45, PE int8-mac (ws): no energy for weights in fp16; measure it with "
            "python -m bitwright.rtl.asic.costs --format fp16; ",
        ),
        (lambda: costs.load("nangate45").pe("int9-mac", "ws"), "cost table nangate45: no entry pe/int9-mac/ws: "),
        (lambda: costs.load("nangate45").unit("adder"), "cost table nangate45: no entry unit/adder: "),
        (lambda: costs.sram(1024, 64), "sram capacity_bytes = 1024: the table covers 4096 to 4194304"),
        (lambda: costs.sram(65536, 1024), "sram width_bits = 1024: the table covers 64 to 512"),
        (
            lambda: costs.sram(65536, 64, "itrs-lp"),
            "sram cell_type = itrs-lp: not in the table: did you mean 'itrs-lstp'? (known: itrs-hp, itrs-lstp)",
        ),
        (
            lambda: costs.dram("ddr4-3200"),
            "dram = ddr4-3200: no such preset: did you mean 'ddr4-3200-x64'? "
            "(known: ddr4-3200-x16, ddr4-3200-x64, gddr6, hbm2, hbm2e, hbm3, lpddr5-6400-x64)",
        ),
    ],
)
def test_what_the_tables_lack_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as caught:
        call()
    text = str(caught.value)
    assert text == message or (message.endswith((": ", "; ")) and text.startswith(message))


def test_sram_equals_the_independent_run_of_cacti() -> None:
    """Figures of another build of CACTI 7 (hardware-cost.md section 3, 45 nm, itrs-lstp, 64-bit port)."""
    known = {
        64: {"area_mm2": 0.209, "read_pj": 25.9, "write_pj": 19.6, "access_ns": 1.66, "leakage_mw": 0.0017},
        1024: {"area_mm2": 3.263, "read_pj": 93.5, "write_pj": 76.2, "access_ns": 4.02, "leakage_mw": 0.025},
        8: {"read_pj": 6.1},
    }
    for capacity_kib, figures in known.items():
        found = dataclasses.asdict(costs.sram(capacity_kib * 1024, 64))
        for name, value in figures.items():
            assert found[name] == pytest.approx(value, rel=0.02), (capacity_kib, name)


def test_sram_interpolates_between_its_neighbours() -> None:
    low, high = costs.sram(32768, 128), costs.sram(65536, 128)
    middle = costs.sram(32768 * 2**0.5, 128)
    assert middle.read_pj == pytest.approx((low.read_pj * high.read_pj) ** 0.5)
    assert middle.area_mm2 == pytest.approx((low.area_mm2 * high.area_mm2) ** 0.5)
    corner = costs.sram(4 * 2**20, 512)
    assert corner.read_pj == pytest.approx(939.941)


@pytest.mark.parametrize(
    ("name", "streaming_pj_per_bit", "activate_pj", "bandwidth"),
    [("ddr4-3200-x16", 7.1, 2500, 6.4), ("ddr4-3200-x64", 7.1, 4 * 2500, 25.6), ("hbm2", 1.8, 830, 256.0)],
)
def test_dram_energies_from_currents(
    name: str, streaming_pj_per_bit: float, activate_pj: float, bandwidth: float
) -> None:
    """Against the arithmetic of hardware-cost.md section 4: VDD x IDD4R over the rate; row energies."""
    found = costs.dram(name)
    row_bits = 1024 * 16 if name.startswith("ddr4") else 64 * 128
    per_device = found.activate_pj / (4 if name == "ddr4-3200-x64" else 1)
    assert found.activate_pj == pytest.approx(activate_pj, rel=0.02)
    assert found.pj_per_bit - per_device / row_bits == pytest.approx(streaming_pj_per_bit, rel=0.02)
    assert found.bandwidth_gbytes_per_s == pytest.approx(bandwidth)
    assert 27.0 <= found.latency_ns <= 28.5


@pytest.mark.parametrize("name", ["gddr6", "hbm2e"])
def test_one_published_figure_stands_for_reads_and_writes(name: str) -> None:
    found = costs.dram(name)
    assert found.pj_per_bit == found.write_pj_per_bit
    assert (found.activate_pj, found.background_mw) == (0.0, 0.0)
    assert found.bandwidth_gbytes_per_s == {"gddr6": 56, "hbm2e": 410}[name]


def test_scopes_are_kept_apart() -> None:
    scopes = {name: costs.dram(name).scope for name in costs.dram_names()}
    assert scopes == {
        "ddr4-3200-x16": "device-core",
        "ddr4-3200-x64": "device-core",
        "hbm2": "device-core",
        "gddr6": "device-average",
        "hbm2e": "device-average",
        "hbm3": "none",
        "lpddr5-6400-x64": "none",
    }
    assert all(costs.dram(name).source for name in scopes)
    assert [name for name in scopes if not costs.dram(name).has_energy] == ["hbm3", "lpddr5-6400-x64"]


def test_the_reader_loads_no_tool() -> None:
    code = (
        "import sys; from bitwright.arch import costs; costs.load('nangate45'); "
        "print([name for name in ('numpy', 'amaranth', 'simpy', 'pandas', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_hash_covers_node_and_memories() -> None:
    table = costs.load("nangate45")
    assert len(table.content_hash) == 64
    assert table.content_hash == costs.load("nangate45").content_hash
