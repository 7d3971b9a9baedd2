"""Reads presets.json: a DRAM's geometry and timings, each timing with its source."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, NamedTuple

from bitwright.arch.errors import ConfigError, suggest

WINDOW_BURSTS = 32
"""Bursts that a channel's controller sees ahead: the 32 entries of DRAMsim3's and Ramulator 2's read queue."""


@dataclass(frozen=True)
class Timing:
    """Timings of one channel in clocks of its command clock; names as in the JEDEC standards.

    Members
        read_latency, write_latency : from RD or WR to the first data (RL, WL)
        burst : data of one RD or WR
        rcd_read, rcd_write : ACT to RD or WR of the bank
        rp, ras, rc : PRE to ACT, ACT to PRE, ACT to ACT of a bank
        rtp : RD to PRE of the bank
        wr : end of write data to PRE of the bank
        ccd_s, ccd_l : RD to RD and WR to WR, other and same bank group
        rrd_s, rrd_l : ACT to ACT, other and same bank group
        faw : no more than four ACT in so many clocks
        wtr_s, wtr_l : end of write data to RD, other and same bank group
        rtw : RD to WR
        ppd : PRE to PRE
        refi, rfc : one REF due every refi; REF to any command
    """

    read_latency: int
    write_latency: int
    burst: int
    rcd_read: int
    rcd_write: int
    rp: int
    ras: int
    rc: int
    rtp: int
    wr: int
    ccd_s: int
    ccd_l: int
    rrd_s: int
    rrd_l: int
    faw: int
    wtr_s: int
    wtr_l: int
    rtw: int
    ppd: int
    refi: int
    rfc: int

    @property
    def write_to_precharge(self) -> int:
        """WR to PRE of the bank: the write's data and its recovery."""
        return self.write_latency + self.burst + self.wr

    @property
    def closing(self) -> int:
        """The longest from any command to a REF: what is open is closed first."""
        return max(self.ras, self.rtp, self.write_to_precharge, self.rc, self.ppd) + self.rp


class Place(NamedTuple):
    """Where a burst of a channel lies."""

    group: int
    bank: int
    row: int
    column: int


@dataclass(frozen=True)
class Device:
    """One channel (of HBM: one pseudo channel): its banks, its timing, and how bursts lie in it.

    Burst number x of a channel (its bytes / burst_bytes), from the fastest changing part: bank group, column, bank,
    row. Bursts one after another so go to all bank groups in turn, which lets them follow at ccd_s.

    ConfigError for a part below 1, and for timings for which the rules of `sim.dram` do not hold:
    ccd_s >= burst; ccd_l >= ccd_s; rrd_l >= rrd_s; bank_groups * ccd_s >= ccd_l (bursts in turn keep ccd_l by
    themselves); rtw >= read_latency + burst - write_latency (data do not meet); rfc >= every other time (nothing older
    than a refresh binds); refi > rfc + closing + rcd + burst (every interval serves a burst).
    """

    bank_groups: int
    banks_per_group: int
    rows: int
    page_bytes: int
    burst_bytes: int
    timing: Timing
    window_bursts: int = WINDOW_BURSTS

    def __post_init__(self) -> None:
        parts = [(self, member.name) for member in fields(self) if member.name != "timing"]
        for owner, name in (*parts, *((self.timing, member.name) for member in fields(Timing))):
            value: object = getattr(owner, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"dram.{name} = {value!r}: must be a whole number of 1 or more")
        if self.page_bytes % self.burst_bytes:
            raise ConfigError(f"dram.page_bytes = {self.page_bytes}: no multiple of burst_bytes = {self.burst_bytes}")
        t = self.timing
        longest = max(
            t.closing,
            t.faw,
            t.rrd_l,
            t.ccd_l,
            t.rtw,
            t.write_latency + t.burst + max(t.wtr_s, t.wtr_l),
            t.rcd_read,
            t.rcd_write,
        )
        rules = (
            ("ccd_s", t.ccd_s, "burst", t.burst),
            ("ccd_l", t.ccd_l, "ccd_s", t.ccd_s),
            ("rrd_l", t.rrd_l, "rrd_s", t.rrd_s),
            ("bank_groups * ccd_s", self.bank_groups * t.ccd_s, "ccd_l", t.ccd_l),
            ("rtw", t.rtw, "read_latency + burst - write_latency", t.read_latency + t.burst - t.write_latency),
            ("rfc", t.rfc, "every other time, the longest of which", longest),
            ("refi", t.refi, "the least", t.rfc + t.closing + max(t.rcd_read, t.rcd_write) + t.burst + 1),
        )
        for name, value, least_name, least in rules:
            if value < least:
                raise ConfigError(f"dram timing {name} = {value}: must not be below {least_name} = {least}")

    @cached_property
    def page_bursts(self) -> int:
        """Bursts of one row of one bank."""
        return self.page_bytes // self.burst_bytes

    @cached_property
    def stripe_bursts(self) -> int:
        """Consecutive bursts in the same rows: a page of one bank in every bank group."""
        return self.bank_groups * self.page_bursts

    @property
    def capacity_bytes(self) -> int:
        """Of the channel."""
        return self.bank_groups * self.banks_per_group * self.rows * self.page_bytes

    def place(self, burst: int) -> Place:
        """Where burst number `burst` of the channel lies."""
        group, column = burst % self.bank_groups, burst // self.bank_groups % self.page_bursts
        stripe = burst // self.stripe_bursts
        return Place(group, stripe % self.banks_per_group, stripe // self.banks_per_group, column)


@dataclass(frozen=True)
class Dram:
    """A whole memory: equal channels, between which addresses change every `interleave_bytes`."""

    name: str
    device: Device
    channels: int
    interleave_bytes: int
    clock_ps: int

    @property
    def capacity_bytes(self) -> int:
        """Of all channels."""
        return self.channels * self.device.capacity_bytes

    @property
    def peak_bytes_per_s(self) -> float:
        """Data lines always busy: burst_bytes every `burst` clocks, in every channel."""
        return self.channels * self.device.burst_bytes / (self.device.timing.burst * self.clock_ps * 1e-12)


@lru_cache(maxsize=1)
def _file() -> dict[str, Any]:
    text = resources.files("bitwright.arch.dram").joinpath("presets.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def names() -> tuple[str, ...]:
    """Names of the presets."""
    return tuple(_file()["presets"])


def _preset(name: str) -> dict[str, Any]:
    presets = _file()["presets"]
    if name not in presets:
        raise ConfigError(
            f"dram = {name}: no rows and banks are known of it (dram_timing: banks): {suggest(name, presets)}"
        )
    preset: dict[str, Any] = dict(presets[name])
    if "like" in preset:
        preset = _preset(preset["like"]) | preset
    return preset


def _clocks(name: str, entry: dict[str, Any], clock_ps: int) -> int:
    """Whole clocks of a timing: of time that must pass rounded up, of refi, which must not pass, down."""
    least = int(entry.get("clocks", 0))
    if "ns" not in entry:
        return least
    time_ps = round(float(entry["ns"]) * 1000)
    return time_ps // clock_ps if name == "refi" else max(least, -(-time_ps // clock_ps))


@lru_cache(maxsize=16)
def load(name: str) -> Dram:
    """A preset by name. ConfigError for a name that there is not."""
    preset = _preset(name)
    clock_ps = preset["clock_ps"]
    timing = Timing(**{key: _clocks(key, entry, clock_ps) for key, entry in preset["timings"].items()})
    device = Device(**preset["geometry"], timing=timing)
    return Dram(name, device, preset["channels"], preset["interleave_bytes"], clock_ps)


def sources(name: str) -> dict[str, str]:
    """Where each timing of a preset comes from, by its name in Timing, and `geometry`."""
    preset, texts = _preset(name), _file()["sources"]
    found = {key: f"{texts[entry['source']]}{_note(entry)}" for key, entry in preset["timings"].items()}
    return {"geometry": texts[preset["geometry_source"]]} | found


def _note(entry: dict[str, Any]) -> str:
    return f"; {entry['note']}" if "note" in entry else ""
