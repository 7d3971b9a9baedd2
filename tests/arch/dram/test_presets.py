"""The presets: peak rates and capacities by hand, the rules of a device, a source for each timing."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from bitwright.arch import costs, dram
from bitwright.arch.dram import Place, Timing
from bitwright.arch.errors import ConfigError

BY_HAND = {
    # data rate in MT/s times data lines / 8, in MB/s; capacity in GiB
    "ddr4-3200-x16": (3200 * 16 // 8, 1),
    "ddr4-3200-x64": (3200 * 64 // 8, 4),
    "lpddr5-6400-x64": (6400 * 64 // 8, 8),
    "hbm2": (2000 * 1024 // 8, 8),
    "hbm2e": (3200 * 1024 // 8, 16),
    "hbm3": (6400 * 1024 // 8, 16),
}


@pytest.mark.parametrize("name", dram.names())
def test_peak_and_capacity_are_those_of_the_data_lines_and_cells(name: str) -> None:
    memory = dram.load(name)
    mbytes_per_s, gibibytes = BY_HAND[name]
    assert memory.peak_bytes_per_s == pytest.approx(mbytes_per_s * 1e6, rel=1e-12)
    assert memory.capacity_bytes == gibibytes << 30
    assert memory.interleave_bytes % memory.device.burst_bytes == 0


@pytest.mark.parametrize("name", [name for name in dram.names() if name in costs.dram_names()])
def test_peak_is_that_of_the_energy_table(name: str) -> None:
    assert dram.load(name).peak_bytes_per_s / 1e9 == pytest.approx(
        costs.dram(name).bandwidth_gbytes_per_s,
        rel=2e-3,  # hbm2e: its vendor's 410 of 409.6
    )


@pytest.mark.parametrize("name", dram.names())
def test_every_timing_names_its_source(name: str) -> None:
    sources = dram.sources(name)
    assert set(sources) == {"geometry"} | {member.name for member in fields(Timing)}
    assert all(len(text) >= 4 for text in sources.values())


def test_times_in_ns_are_rounded_up_and_the_refresh_interval_down() -> None:
    t = dram.load("lpddr5-6400-x64").device.timing
    assert (t.refi, t.rfc, t.faw, t.rrd_s) == (3124, 224, 16, 4)  # 3906, 280, 20, 5 ns at 1.25 ns; 4 clocks at least
    t = dram.load("hbm2e").device.timing
    assert (t.rcd_read, t.rp, t.ras, t.refi) == (23, 23, 55, 6240)  # 14, 14, 34, 3900 ns at 0.625 ns


def test_bursts_go_to_groups_then_columns_then_banks_then_rows() -> None:
    device = dram.load("ddr4-3200-x64").device  # 2 groups of 4 banks, 128 bursts a page
    assert [device.place(x) for x in (0, 1, 2, 255, 256, 1024, 1027)] == [
        Place(0, 0, 0, 0),
        Place(1, 0, 0, 0),
        Place(0, 0, 0, 1),
        Place(1, 0, 0, 127),
        Place(0, 1, 0, 0),
        Place(0, 0, 1, 0),
        Place(1, 0, 1, 1),
    ]


def test_places_are_a_bijection() -> None:
    device = replace(dram.load("hbm3").device, page_bytes=128, rows=8)
    count = device.capacity_bytes // device.burst_bytes
    places = {device.place(burst) for burst in range(count)}
    assert len(places) == count
    assert max(place.row for place in places) == device.rows - 1


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        dram.load("hbm3e")
    assert str(caught.value) == (
        "dram = hbm3e: no rows and banks are known of it (dram_timing: banks): did you mean 'hbm3'? "
        "(known: ddr4-3200-x16, ddr4-3200-x64, hbm2, hbm2e, hbm3, lpddr5-6400-x64)"
    )


@pytest.mark.parametrize(
    ("timings", "message"),
    [
        ({"ccd_s": 1}, "dram timing ccd_s = 1: must not be below burst = 2"),
        ({"ccd_l": 1}, "dram timing ccd_l = 1: must not be below ccd_s = 2"),
        ({"ccd_l": 9}, "dram timing bank_groups * ccd_s = 8: must not be below ccd_l = 9"),
        ({"rrd_l": 3}, "dram timing rrd_l = 3: must not be below rrd_s = 4"),
        ({"rfc": 90}, "dram timing rfc = 90: must not be below every other time, the longest of which = 98"),
        ({"refi": 600}, "dram timing refi = 600: must not be below the least = 692"),
        ({"rtw": 11}, "dram timing rtw = 11: must not be below read_latency + burst - write_latency = 12"),
        ({"rp": 0}, "dram.rp = 0: must be a whole number of 1 or more"),
    ],
)
def test_timings_that_break_a_rule_are_refused(timings: dict[str, int], message: str) -> None:
    device = dram.load("hbm3").device
    with pytest.raises(ConfigError) as caught:
        replace(device, timing=replace(device.timing, **timings))
    assert str(caught.value) == message


def test_a_page_must_hold_whole_bursts() -> None:
    with pytest.raises(ConfigError) as caught:
        replace(dram.load("hbm3").device, page_bytes=1000)
    assert str(caught.value) == "dram.page_bytes = 1000: no multiple of burst_bytes = 32"
