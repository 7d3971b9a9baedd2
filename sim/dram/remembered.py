"""A channel that looks up what it did before: in every clock and count that of `sim.dram.channel`, only faster.

What a run does depends on little: what of the past still binds (`Channel.binding`, in clocks from the first one in
which a command can come), whether the run's rows are open, its place among the banks, its length, its direction, and
how much later it is there. Programs repeat all this again and again. Of a device a `Known` keeps, for as long as the
process lasts, each situation once (`_Situation`) and what each run did from there (`_Outcome`).

A refresh moves with the clock, so few runs that meet one repeat: an outcome found without a refresh holds wherever its
last RD or WR comes before the due clock, one with refreshes only where the next due clock is as far away. Refreshes of
an idle channel are one sum. All else is worked out by a `Channel`.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import compress
from typing import NamedTuple

from bitwright.arch.dram import Device
from bitwright.sim.dram.channel import Binding, Channel, Interval
from bitwright.sim.dram.reference import Counts, Run

_MOST = 1 << 17  # outcomes, situations and reaches together; a model takes thousands


class _Situation:
    """What binds a channel: one object a binding and device, so that equal ones are the same."""

    __slots__ = ("binding", "lasting", "outcomes")

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.lasting = binding.lasting
        self.outcomes: dict[_Key, _Outcome] = {}


# Place among the banks, bursts, write, clocks after the situation's first, rows that are open; clocks to the next
# refresh if the outcome has refreshes, else -1.
_Key = tuple[int, int, bool, int, tuple[bool, ...], int]


class _Outcome(NamedTuple):
    """What a run did; clocks and rows count from where it began.

    rows : (bank, row) that are open after it and were perhaps not before
    """

    entered: int
    column: int
    at: int
    after: _Situation
    closed: int
    conflicts: int
    refreshes: int
    rows: tuple[tuple[int, int], ...]


class _Reach(NamedTuple):
    """(bank, row) in which a run begins and ends in each bank it touches, the run's first row counted as 0."""

    first: tuple[tuple[int, int], ...]
    last: tuple[tuple[int, int], ...]


class Known:
    """All that is known of a device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.intervals: dict[tuple[int, int, bool], Interval] = {}
        self.outcomes = 0
        self._size = 0
        self._situations: dict[Binding, _Situation] = {}
        self._reaches: dict[tuple[int, int], _Reach] = {}
        self._rested: dict[tuple[bool, ...], _Situation] = {}
        self.idle = _Situation(Channel(device).binding()[1])
        self._situations[self.idle.binding] = self.idle

    def situation(self, binding: Binding) -> _Situation:
        """The one object of `binding`."""
        found = self._situations.get(binding)
        if found is None:
            self._one_more()
            found = self._situations[binding] = _Situation(binding)
        return found

    def rested(self, situation: _Situation) -> _Situation:
        """The same open rows when nothing else binds any more."""
        opened = situation.binding.open
        found = self._rested.get(opened)
        if found is None:
            found = self._rested[opened] = self.situation(self.idle.binding._replace(open=opened))
        return found

    def keep(self, situation: _Situation, key: _Key, outcome: _Outcome) -> None:
        """Remember it."""
        self._one_more()
        situation.outcomes[key] = outcome
        self.outcomes += 1

    def _one_more(self) -> None:
        """Room for one. When there is too much, all is forgotten but what idle is: channels go on from situations of
        their own, of which nothing is known any more."""
        if self._size >= _MOST:
            for each in self._situations.values():
                each.outcomes.clear()
            for known_ones in (self._situations, self._reaches, self._rested):
                known_ones.clear()
            self._situations[self.idle.binding] = self.idle
            self.outcomes = self._size = 0
        self._size += 1

    def reach(self, offset: int, bursts: int) -> _Reach:
        """Of a run from burst `offset` of a row of all banks on."""
        found = self._reaches.get((offset, bursts))
        if found is None:
            self._one_more()
            found = self._reaches[offset, bursts] = _reach(self.device, offset, bursts)
        return found


def _reach(device: Device, offset: int, bursts: int) -> _Reach:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    burst, end = offset, offset + bursts
    while burst < end:
        row, in_row = divmod(burst // device.stripe_bursts, device.banks_per_group)
        stripe_end = min(end, (burst // device.stripe_bursts + 1) * device.stripe_bursts)
        for one in range(burst, min(stripe_end, burst + device.bank_groups)):
            bank = in_row * device.bank_groups + one % device.bank_groups
            first.setdefault(bank, row)
            last[bank] = row
        burst = stripe_end
    return _Reach(tuple(first.items()), tuple(last.items()))


@lru_cache(maxsize=8)
def known(device: Device) -> Known:
    """What this process knows of a device."""
    return Known(device)


class RememberedChannel:
    """As `Channel`, from power-up at clock 0 with all rows closed."""

    __slots__ = ("_at", "_due", "_known", "_rows", "_situation", "closed", "conflicts", "reads", "refreshes", "writes")

    def __init__(self, known: Known) -> None:
        device = known.device
        self._known = known
        self._situation, self._at = known.idle, 0
        self._due = device.timing.refi
        self._rows = [-1] * (device.bank_groups * device.banks_per_group)
        self.reads = self.writes = self.closed = self.conflicts = self.refreshes = 0

    @property
    def counts(self) -> Counts:
        """What it has done so far."""
        hits = self.reads + self.writes - self.closed - self.conflicts
        return Counts(self.reads, self.writes, hits, self.closed, self.conflicts, self.refreshes)

    def copy(self) -> RememberedChannel:
        """A second channel in the same state."""
        other = object.__new__(RememberedChannel)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        other._rows = self._rows.copy()
        return other

    def same_state(self, other: RememberedChannel) -> bool:
        """Whether both will do the same from now on, whatever comes (counts may differ)."""
        return (
            (self._situation is other._situation or self._situation.binding == other._situation.binding)
            and self._at == other._at
            and self._due == other._due
            and self._rows == other._rows
        )

    def serve(self, run: Run) -> tuple[int, int]:
        """(clock at which the last burst enters the window, clock after its last data); as the reference's."""
        device, timing = self._known.device, self._known.device.timing
        first, bursts, write, now = run
        if bursts * timing.ccd_s > timing.refi:
            entered, finish, _ = self.serve_marked(run, ())
            return entered, finish
        self._refresh_idle(now, timing.rcd_write if write else timing.rcd_read)
        row, offset = divmod(first, device.stripe_bursts * device.banks_per_group)
        situation, at, rows = self._situation, self._at, self._rows
        later = now - at
        if later <= 0:
            later = 0
        elif later >= situation.lasting and now < self._due:  # a refresh may still wait for what was before
            situation, at, later = self._known.rested(situation), now, 0
        reach = self._known.reach(offset, bursts)
        opened = tuple([rows[bank] == row + beyond for bank, beyond in reach.first])
        key = (offset, bursts, write, later, opened, -1)
        outcome = situation.outcomes.get(key)
        if outcome is None or at + outcome.column >= self._due:
            key = (offset, bursts, write, later, opened, self._due - at)
            outcome = situation.outcomes.get(key) or self._work_out(run, situation, at, key, reach)
        if outcome.refreshes:
            self._rows = rows = [-1] * len(rows)
            self.refreshes += outcome.refreshes
            self._due += outcome.refreshes * timing.refi
        for bank, beyond in outcome.rows:
            rows[bank] = row + beyond
        self._situation, self._at = outcome.after, at + outcome.at
        self.closed += outcome.closed
        self.conflicts += outcome.conflicts
        if write:
            self.writes += bursts
            return at + outcome.entered, at + outcome.column + timing.write_latency + timing.burst
        self.reads += bursts
        return at + outcome.entered, at + outcome.column + timing.read_latency + timing.burst

    def serve_marked(self, run: Run, marks: tuple[int, ...] | list[int]) -> tuple[int, int, list[int]]:
        """As `Channel.serve_marked`; always worked out."""
        channel = self._channel(self._situation, self._at)
        served = channel.serve_marked(run, marks)
        self._at, binding = channel.binding()
        self._situation = self._known.situation(binding)
        self._due, self._rows = channel.due, channel.rows
        counts = channel.counts
        self.reads += counts.reads
        self.writes += counts.writes
        self.closed += counts.closed
        self.conflicts += counts.conflicts
        self.refreshes += counts.refreshes
        return served

    def _channel(self, situation: _Situation, at: int) -> Channel:
        """In the same state; counts from 0."""
        return Channel.bound(self._known.device, self._known.intervals, situation.binding, at, self._rows, self._due)

    def _refresh_idle(self, now: int, rcd: int) -> None:
        """Refreshes that surely come before a run that is there at `now`, what was before having ended."""
        timing = self._known.device.timing
        entered = max(now, self._at)
        ended = self._at + self._situation.lasting <= self._due
        if self._situation is not self._known.idle and entered >= self._due and ended:
            self._at = self._due + timing.rp + timing.rfc
            self._after_refreshes(1)
            entered = max(now, self._at)
        while self._situation is self._known.idle and entered + rcd >= self._due:
            passed = (entered + rcd - self._due) // timing.refi + 1
            self._at = self._due + (passed - 1) * timing.refi + timing.rfc
            self._after_refreshes(passed)
            entered = max(now, self._at)

    def _after_refreshes(self, count: int) -> None:
        self.refreshes += count
        self._due += count * self._known.device.timing.refi
        self._situation = self._known.idle
        self._rows = [-1] * len(self._rows)

    def _work_out(self, run: Run, situation: _Situation, at: int, key: _Key, reach: _Reach) -> _Outcome:
        """What `run` does, and remember it by `key`, which has the clocks to the next refresh."""
        channel = self._channel(situation, at)
        row = run.first // (self._known.device.stripe_bursts * self._known.device.banks_per_group)
        entered, finish = channel.serve(run)
        after, binding = channel.binding()
        counts, timing = channel.counts, self._known.device.timing
        data = (timing.write_latency if run.write else timing.read_latency) + timing.burst
        rows = reach.last
        if counts.refreshes:
            opened = [each >= 0 for each in channel.rows]
            rows = tuple((bank, each - row) for bank, each in compress(enumerate(channel.rows), opened))
        outcome = _Outcome(
            entered - at, finish - data - at, after - at, self._known.situation(binding),
            counts.closed, counts.conflicts, counts.refreshes, rows,
        )  # fmt: skip
        self._known.keep(situation, key if counts.refreshes else (*key[:5], -1), outcome)
        return outcome
