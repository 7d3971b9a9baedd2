"""Random DRAM devices and runs of bursts."""

from __future__ import annotations

from bitwright.arch import dram
from bitwright.arch.dram import Device, Timing
from bitwright.sim.dram import Run
from hypothesis import strategies as st

RUNS = st.lists(
    st.builds(
        Run,
        first=st.one_of(st.integers(0, 8), st.integers(0, 300), st.integers(0, 1 << 20)),
        bursts=st.one_of(st.integers(1, 6), st.integers(1, 150), st.integers(1, 900)),
        write=st.booleans(),
        now=st.sampled_from([0, 0, 0, 1, 17, 80, 700, 25_000]),  # after the run before
    ),
    min_size=1,
    max_size=10,
)


@st.composite
def devices(draw: st.DrawFn) -> Device:
    """A preset, or one with other timings, small pages and short refresh intervals."""
    device = dram.load(draw(st.sampled_from(dram.names()))).device
    if draw(st.booleans()):
        return device
    few = st.integers(1, 40)
    burst, groups = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    ccd_s, rrd_s = burst + draw(st.integers(0, 3)), draw(st.integers(1, 12))
    rp, ras = draw(few), draw(few)
    read_latency, write_latency = draw(few), draw(few)
    timing = Timing(
        read_latency=read_latency,
        write_latency=write_latency,
        burst=burst,
        rcd_read=draw(few),
        rcd_write=draw(few),
        rp=rp,
        ras=ras,
        rc=ras + rp + draw(st.integers(0, 20)),
        rtp=draw(few),
        wr=draw(few),
        ccd_s=ccd_s,
        ccd_l=draw(st.integers(ccd_s, groups * ccd_s)),
        rrd_s=rrd_s,
        rrd_l=rrd_s + draw(st.integers(0, 8)),
        faw=draw(st.integers(1, 80)),
        wtr_s=draw(few),
        wtr_l=draw(few),
        rtw=max(draw(few), read_latency + burst - write_latency),
        ppd=draw(st.integers(1, 4)),
        rfc=draw(st.integers(300, 400)),
        refi=draw(st.integers(800, 4000)),
    )
    page = draw(st.integers(1, 9))
    return Device(
        groups, draw(st.integers(1, 4)), 1 << 20, 64 * page, 64, timing, window_bursts=draw(st.integers(1, 40))
    )


def in_time(runs: list[Run]) -> list[Run]:
    """The same, `now` counted from the run before."""
    now, timed = 0, []
    for run in runs:
        now += run.now
        timed.append(run._replace(now=now))
    return timed
