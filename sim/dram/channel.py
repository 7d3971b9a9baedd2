"""One DRAM channel as a function of whole runs: in every clock and count that of `sim.dram.reference`, only faster.

State: the open row of every bank, and for each rule of `arch.dram.Timing` the first clock that it allows, kept where
the rule looks: bank (PRE, ACT), bank group and channel (RD, WR, ACT), the last four ACT; RD and WR of the last bursts,
as pieces with a constant distance, for the window; the clock of the next refresh.

Where a run costs a step of `_serve_one`, and where it does not:
    within a stripe (the same rows of one bank in every group; Device.stripe_bursts) only its first bursts, one a bank
        group, and the run's first, one a bank group, can miss a row or meet a turnaround. Each later one comes ccd_s
        after the one before: bursts i and i - bank_groups are of one bank, so that i keeps ccd_l (as bank_groups *
        ccd_s >= ccd_l), rcd, wtr_l and rtw because i - bank_groups and i - 1 did. What lies between is one sum.
    from one refresh to the next: REF closes every row, and nothing before it binds any more (rfc is the longest time).
        What follows depends only on the clocks to the next due refresh and on the place of the run's next burst among
        the banks; it is worked out once and kept (`_intervals`), for all channels of one device.
    an idle channel: refreshes passed by are one division.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from bitwright.arch.dram import Device
from bitwright.sim.dram.reference import NEVER, Counts, Run


class Interval(NamedTuple):
    """From the end of one refresh to the end of the next, the run going on through both."""

    bursts: int
    to_restart: int
    closed: int
    conflicts: int
    pieces: list[tuple[int, int]]


class Binding(NamedTuple):
    """What of a channel's past still binds commands that come: clocks from the first one in which any can come.

    A rule that binds no longer has 0 (`activates`: its floor, see `Channel.binding`). So channels that will do the
    same have the same one, but for the numbers of the open rows and the next due refresh.

    open        whether a row is, of every bank
    precharges, activates   PRE, ACT of every bank
    groups      RD, WR, ACT of every bank group
    channel     RD, WR, ACT, PRE, the next RD or WR by order, and faw after the last four ACT
    window      pieces (from, to, RD or WR of from) of the bursts before the next one, which is number 0
    lasting     clocks after which none of this binds but `open`
    """

    open: tuple[bool, ...]
    precharges: tuple[int, ...]
    activates: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    channel: tuple[int, ...]
    window: tuple[tuple[int, int, int], ...]
    lasting: int


def _in_pieces(pieces: list[tuple[int, int]], burst: int, spacing: int) -> int:
    """RD or WR of a burst, of pieces (first burst, its clock) in which bursts are `spacing` apart."""
    first, column = pieces[bisect_right(pieces, burst, key=itemgetter(0)) - 1]
    return column + (burst - first) * spacing


class Channel:
    """One channel from power-up at clock 0 with all rows closed. Share `intervals` between channels of one device."""

    __slots__ = (
        "_act_bank",
        "_act_group",
        "_act_next",
        "_bursts",
        "_closed",
        "_conflicts",
        "_device",
        "_due",
        "_four",
        "_intervals",
        "_last",
        "_log",
        "_now",
        "_pieces",
        "_pre_bank",
        "_pre_next",
        "_rd_group",
        "_rd_next",
        "_reads",
        "_refreshes",
        "_restart",
        "_rows",
        "_wr_group",
        "_wr_next",
        "_writes",
    )

    # Set by _close_all.
    _restart: int
    _rows: list[int]
    _pre_bank: list[int]
    _act_bank: list[int]
    _rd_group: list[int]
    _wr_group: list[int]
    _act_group: list[int]
    _rd_next: int
    _wr_next: int
    _act_next: int
    _pre_next: int
    _last: int
    _four: deque[int]
    _bursts: int
    _pieces: deque[tuple[int, int, int]]  # from, to (of the bursts since), first RD or WR

    def __init__(self, device: Device, intervals: dict[tuple[int, int, bool], Interval] | None = None) -> None:
        self._device = device
        self._intervals = {} if intervals is None else intervals
        self._log: list[tuple[int, int]] | None = None  # pieces of the run, (first burst, its RD or WR), if asked for
        self._due = device.timing.refi
        self._now = 0
        self._reads = self._writes = self._closed = self._conflicts = self._refreshes = 0
        self._close_all(0)

    @property
    def counts(self) -> Counts:
        """What it has done so far."""
        hits = self._reads + self._writes - self._closed - self._conflicts
        return Counts(self._reads, self._writes, hits, self._closed, self._conflicts, self._refreshes)

    @property
    def due(self) -> int:
        """Clock of the next refresh."""
        return self._due

    @property
    def rows(self) -> list[int]:
        """Open row of every bank, -1: none."""
        return self._rows.copy()

    def binding(self) -> tuple[int, Binding]:
        """The first clock in which a command can come, and what binds then."""
        t, window = self._device.timing, self._device.window_bursts
        first = max(self._now, self._restart, self._column_of(self._bursts - window))
        after = max(first, self._last + 1)  # no RD or WR comes before
        # A bank's ACT clock is rc after its last ACT, and a RD or WR may come rcd after that ACT.
        act_floor = min(0, t.rc - max(t.rcd_read, t.rcd_write))
        precharges = tuple([max(0, clock - first) for clock in self._pre_bank])
        activates = tuple([max(act_floor, clock - first) for clock in self._act_bank])
        columns = (*self._rd_group, *self._wr_group, self._rd_next, self._wr_next)
        *groups, read, write = [clock - first if clock > after else 0 for clock in columns]
        others = (self._act_next, self._pre_next, self._last + 1, *[clock + t.faw for clock in self._four])
        count = self._device.bank_groups
        act_groups = tuple([max(0, clock - first) for clock in self._act_group])
        channel = (read, write, *[max(0, clock - first) for clock in others])
        pieces = self._recent(first)
        lasting = max(
            *precharges, *activates, max(activates) - act_floor, *groups, *act_groups, *channel,
            *(clock + (end - begin - 1) * t.ccd_s for begin, end, clock in pieces),
        )  # fmt: skip
        opened = tuple([row >= 0 for row in self._rows])
        by_group = (tuple(groups[:count]), tuple(groups[count:]), act_groups)
        return first, Binding(opened, precharges, activates, by_group, channel, tuple(pieces), lasting)

    def _recent(self, first: int) -> list[tuple[int, int, int]]:
        """RD or WR after clock `first` of the last window_bursts bursts, counted back from the next one."""
        spacing, window = self._device.timing.ccd_s, self._device.window_bursts
        found: list[tuple[int, int, int]] = []
        for begin, end, column in self._pieces:
            passed = max(0, self._bursts - window - begin, (first - column) // spacing + 1)
            begin, column = begin + passed, column + passed * spacing
            if begin >= end:
                continue
            if found and found[-1][2] + (begin - self._bursts - found[-1][0]) * spacing == column - first:
                begin, column = found[-1][0] + self._bursts, found.pop()[2] + first
            found.append((begin - self._bursts, end - self._bursts, column - first))
        return found

    @classmethod
    def bound(
        cls, device: Device, intervals: dict[tuple[int, int, bool], Interval], binding: Binding, first: int,
        rows: list[int], due: int,
    ) -> Channel:  # fmt: skip
        """A channel that will do what one of this `binding` from clock `first` on, these rows and refresh will do."""
        channel = cls(device, intervals)
        channel._due, channel._now, channel._restart = due, first, first
        channel._rows = rows.copy()
        channel._pre_bank = [first + clock for clock in binding.precharges]
        channel._act_bank = [first + clock for clock in binding.activates]
        channel._rd_group, channel._wr_group, channel._act_group = (
            [first + clock for clock in clocks] for clocks in binding.groups
        )
        channel._rd_next, channel._wr_next, channel._act_next, channel._pre_next, after, *four = (
            first + clock for clock in binding.channel
        )
        channel._last = after - 1
        channel._four = deque((clock - device.timing.faw for clock in four), maxlen=4)
        channel._pieces = deque((begin, end, first + clock) for begin, end, clock in binding.window)
        return channel

    def serve(self, run: Run) -> tuple[int, int]:
        """(clock at which the last burst enters the window, clock after its last data); as the reference's.

        A run is there no earlier than the one before.
        """
        entered, finish, _ = self.serve_marked(run, ())
        return entered, finish

    def serve_marked(self, run: Run, marks: Sequence[int]) -> tuple[int, int, list[int]]:
        """The same, and the clock after the data of the run's first m bursts for each m of `marks` (rising, from 1)."""
        timing = self._device.timing
        burst, end, write, now = run.first, run.first + run.bursts, run.write, run.now
        self._now = now
        data = (timing.write_latency if write else timing.read_latency) + timing.burst
        columns: list[int] = []
        if write:
            self._writes += run.bursts
        else:
            self._reads += run.bursts
        while True:
            self._log = [] if marks else None
            before, burst = burst, self._to_refresh(burst, end, write, now)
            if self._log is not None and burst > before:
                for mark in marks[len(columns) :]:
                    if run.first + mark > burst:
                        break
                    columns.append(_in_pieces(self._log, run.first + mark - 1, timing.ccd_s))
            if burst == end:
                break
            if now <= self._restart and (end - burst) * timing.ccd_s > timing.refi:
                burst = self._whole_intervals(burst, end, write, [run.first + m - 1 for m in marks], columns)
        self._log = None
        entered = max(now, self._restart, self._column_of(self._bursts - 1 - self._device.window_bursts))
        return entered, self._last + data, [column + data for column in columns]

    def _to_refresh(self, burst: int, end: int, write: bool, now: int) -> int:
        """Serve bursts up to `end`, or up to the next refresh and it too; the first burst not served."""
        device, spacing = self._device, self._device.timing.ccd_s
        groups, stripe = device.bank_groups, device.stripe_bursts
        alone = groups  # bursts that are worked out one by one wherever they lie
        while burst < end:
            in_stripe = burst % stripe
            here = 0
            if alone <= 0 and in_stripe >= groups:
                here = min(end - burst, stripe - in_stripe, (self._due - 1 - self._last) // spacing)
            if here > 0:
                self._hits(burst, here, write)
                burst += here
            elif self._serve_one(burst, write, now):
                burst, alone = burst + 1, alone - 1
            else:
                break
        return burst

    def _serve_one(self, burst: int, write: bool, now: int) -> bool:
        """Serve one burst, unless refreshes come before it: then these only, and False."""
        device, t = self._device, self._device.timing
        group = burst % device.bank_groups
        stripe = burst // device.stripe_bursts
        row, bank = divmod(stripe, device.banks_per_group)
        bank = bank * device.bank_groups + group
        entered = max(now, self._restart, self._column_of(self._bursts - device.window_bursts))
        if write:
            column, wait, rcd = self._wr_next, self._wr_group[group], t.rcd_write
        else:
            column, wait, rcd = self._rd_next, self._rd_group[group], t.rcd_read
        opened, precharge, activate = self._rows[bank], NEVER, NEVER
        if opened != row:
            activate = max(entered, self._act_bank[bank], self._act_group[group], self._act_next, self._four[0] + t.faw)
            if opened >= 0:
                precharge = max(entered, self._pre_bank[bank], self._pre_next)
                activate = max(activate, precharge + t.rp)
            column = max(entered, self._last + 1, column, wait, activate + rcd)
        else:
            column = max(entered, self._last + 1, column, wait, self._act_bank[bank] - t.rc + rcd)
        if column >= self._due:
            self._refresh(entered + rcd)
            return False
        if opened != row:
            if opened >= 0:
                self._pre_next = precharge + t.ppd
                self._conflicts += 1
            else:
                self._closed += 1
            self._rows[bank] = row
            self._act_bank[bank] = activate + t.rc
            self._act_group[group] = activate + t.rrd_l
            self._act_next = activate + t.rrd_s
            self._four.append(activate)
            self._pre_bank[bank] = activate + t.ras
        self._pieces.append((self._bursts, self._bursts + 1, column))
        if self._log is not None:
            self._log.append((burst, column))
        self._bursts += 1
        self._moved(group, bank, column, write)
        self._after(column, write)
        return True

    def _moved(self, group: int, bank: int, column: int, write: bool) -> None:
        """What the bank and its group remember of a RD or WR."""
        t = self._device.timing
        if write:
            closes, reads = column + t.write_to_precharge, column + t.write_latency + t.burst + t.wtr_l
            self._wr_group[group] = column + t.ccd_l
        else:
            closes, reads = column + t.rtp, column + t.ccd_l
        if closes > self._pre_bank[bank]:
            self._pre_bank[bank] = closes
        if reads > self._rd_group[group]:
            self._rd_group[group] = reads

    def _after(self, column: int, write: bool) -> None:
        """What the channel remembers of its last RD or WR."""
        t = self._device.timing
        self._last = column
        if write:
            writes, reads = column + t.ccd_s, column + t.write_latency + t.burst + t.wtr_s
        else:
            writes, reads = column + t.rtw, column + t.ccd_s
        if writes > self._wr_next:
            self._wr_next = writes
        if reads > self._rd_next:
            self._rd_next = reads

    def _hits(self, burst: int, count: int, write: bool) -> None:
        """`count` bursts from `burst` on, each ccd_s after the one before, all in open rows of one stripe."""
        device, spacing = self._device, self._device.timing.ccd_s
        groups = device.bank_groups
        self._pieces.append((self._bursts, self._bursts + count, self._last + spacing))
        if self._log is not None:
            self._log.append((burst, self._last + spacing))
        self._bursts += count
        bank = burst // device.stripe_bursts % device.banks_per_group * groups
        last = self._last + count * spacing
        for back in range(min(count, groups)):
            group = (burst + count - 1 - back) % groups
            self._moved(group, bank + group, last - back * spacing, write)
        self._after(last, write)

    def _column_of(self, burst: int) -> int:
        """RD or WR of burst number `burst` since the last refresh; no call asks for one before the last call's."""
        pieces = self._pieces
        while pieces and pieces[0][1] <= burst:
            pieces.popleft()
        if pieces and pieces[0][0] <= burst:
            return pieces[0][2] + (burst - pieces[0][0]) * self._device.timing.ccd_s
        return NEVER

    def _refresh(self, wanted: int) -> None:
        """The refresh that is due, and if no row is open all further ones up to clock `wanted`."""
        t = self._device.timing
        refresh, passed = self._due, 1
        opened = [bank for bank, row in enumerate(self._rows) if row >= 0]
        if opened:
            close = max(refresh, self._pre_next, *(self._pre_bank[bank] for bank in opened))
            refresh = max(close + t.rp, *(self._act_bank[bank] for bank in opened))
        elif wanted >= self._due:
            passed = (wanted - self._due) // t.refi + 1
            refresh += (passed - 1) * t.refi
        self._refreshes += passed
        self._due += passed * t.refi
        self._close_all(refresh + t.rfc)

    def _close_all(self, restart: int) -> None:
        """After a refresh: rows closed, ACT from `restart` on, nothing older binds."""
        groups, banks = self._device.bank_groups, self._device.bank_groups * self._device.banks_per_group
        self._restart = restart
        self._rows = [-1] * banks
        self._pre_bank, self._act_bank = [NEVER] * banks, [NEVER] * banks
        self._rd_group, self._wr_group, self._act_group = [NEVER] * groups, [NEVER] * groups, [NEVER] * groups
        self._rd_next = self._wr_next = self._act_next = self._pre_next = self._last = NEVER
        self._four = deque([NEVER] * 4, maxlen=4)
        self._bursts = 0
        self._pieces = deque()

    def _whole_intervals(self, burst: int, end: int, write: bool, marked: list[int], columns: list[int]) -> int:
        """After a refresh, the run being there: serve as many whole intervals of it as there are; the next burst.

        RD or WR of each burst of `marked` that is among them is added to `columns`, which has those before.
        """
        device = self._device
        around = device.stripe_bursts * device.banks_per_group
        while True:
            key = (burst % around, self._due - self._restart, write)
            interval = self._intervals.get(key)
            if interval is None:
                interval = self._intervals[key] = self._interval(*key)
            if end - burst <= interval.bursts:
                return burst
            while len(columns) < len(marked) and marked[len(columns)] < burst + interval.bursts:
                offset = marked[len(columns)] - burst
                columns.append(self._restart + _in_pieces(interval.pieces, offset, device.timing.ccd_s))
            burst += interval.bursts
            self._closed += interval.closed
            self._conflicts += interval.conflicts
            self._refreshes += 1
            self._due += device.timing.refi
            self._restart += interval.to_restart

    def _interval(self, burst: int, to_due: int, write: bool) -> Interval:
        """Bursts without end from `burst` on, in a channel whose refresh ended at clock 0, to the next one's end."""
        channel = Channel(self._device)
        channel._due = to_due
        log: list[tuple[int, int]] = []
        channel._log = log
        served = channel._to_refresh(burst, 1 << 62, write, 0) - burst
        pieces = [(first - burst, column) for first, column in log]
        return Interval(served, channel._restart, channel._closed, channel._conflicts, pieces)
