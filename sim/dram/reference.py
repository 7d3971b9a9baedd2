"""The controller of one DRAM channel, burst by burst: the definition that `sim.dram.channel` must equal.

One step is one burst; times are clocks of the DRAM. Bursts are served in the order in which they come (runs of
consecutive bursts, all of a run there at its `now`). Open page.

    RD, WR     in order, each at the first legal clock.
    ACT, PRE   in order of the bursts that need them, each at the first legal clock at which the burst is in the window:
               burst i enters when it is there, RD or WR of burst i - window_bursts has been issued, and no refresh is
               under way. So rows open while earlier bursts move their data.
    REF        all banks; number k falls due at k * refi. A burst whose RD or WR would be at or after the due clock
               waits with its PRE and ACT too: first PREA (if a row is open) and REF come, each at the first legal clock
               from the due one on. An idle channel refreshes on time; this is counted when the next burst comes.

Not modelled: the one command bus of DDR4 and LPDDR5, on which a PRE or ACT can push a RD or WR by a clock; LPDDR5's CAS
command; reordering of bursts (FR-FCFS), write buffering, refresh by bank, power-down, several ranks; the row buses that
two pseudo channels of HBM share; time in PHY and controller.
Fidelity: every trace is legal by arch.dram.legality (tests/sim/dram); against Ramulator 2 see docs/dram.md.
"""

from __future__ import annotations

from typing import NamedTuple

from bitwright.arch.dram import Command, Device, Kind

NEVER = -(1 << 60)


class Run(NamedTuple):
    """`bursts` consecutive bursts of a channel from number `first`, there at clock `now`."""

    first: int
    bursts: int
    write: bool
    now: int


class Counts(NamedTuple):
    """What a channel has done. Every read and write is a hit, or its row was closed, or another one was open.

    Activates are closed + conflicts. Refreshes are counted up to the last burst served.
    """

    reads: int = 0
    writes: int = 0
    hits: int = 0
    closed: int = 0
    conflicts: int = 0
    refreshes: int = 0

    @property
    def activates(self) -> int:
        """ACT commands."""
        return self.closed + self.conflicts


class _Bank:
    """One bank: its row (None: closed) and the last command of each kind."""

    def __init__(self) -> None:
        self.row: int | None = None
        self.activated = self.precharged = self.read = self.written = NEVER


class ReferenceChannel:
    """One channel from power-up at clock 0 with all rows closed. `trace` has every command, in order of issue."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.commands: list[Command] = []
        self.counts = Counts()
        self._banks = {
            (group, bank): _Bank() for group in range(device.bank_groups) for bank in range(device.banks_per_group)
        }
        self._columns: list[int] = []  # RD or WR of every burst
        self._activates: list[int] = []
        self._activated: dict[int, int] = {}  # last ACT of each group
        self._last_precharge = NEVER
        self._refreshed = NEVER
        self._reads: dict[int, int] = {}  # last RD of each group
        self._writes: dict[int, int] = {}
        self._refreshes = 0

    @property
    def trace(self) -> list[Command]:
        """All commands by clock."""
        return sorted(self.commands, key=lambda command: command.clock)

    def serve(self, run: Run) -> tuple[int, int]:
        """(clock at which the last burst enters the window, clock after its last data)."""
        t = self.device.timing
        entered = run.now
        for burst in range(run.first, run.first + run.bursts):
            entered = self._burst(burst, run.write, run.now)
        data = t.write_latency if run.write else t.read_latency
        return entered, self._columns[-1] + data + t.burst

    def _burst(self, burst: int, write: bool, now: int) -> int:
        window = self.device.window_bursts
        entered = max(now, self._columns[-window]) if len(self._columns) >= window else now
        place = self.device.place(burst)
        bank = self._banks[place.group, place.bank]
        while True:
            precharge, activate = self._open(place.group, bank, place.row, entered)
            opened = bank.activated if activate is None else activate
            column = self._column(place.group, opened, write, entered)
            if column < (self._refreshes + 1) * self.device.timing.refi:
                break
            self._refresh()
        entered = max(entered, self._refreshed + self.device.timing.rfc)
        if precharge is not None:
            self._say(precharge, Kind.PRECHARGE, place.group, place.bank)
            bank.precharged = self._last_precharge = precharge
        if activate is not None:
            self._say(activate, Kind.ACTIVATE, place.group, place.bank, place.row)
            bank.activated, bank.row = activate, place.row
            self._activates.append(activate)
            self._activated[place.group] = activate
        self._say(column, Kind.WRITE if write else Kind.READ, place.group, place.bank, place.row)
        self._columns.append(column)
        if write:
            bank.written = self._writes[place.group] = column
        else:
            bank.read = self._reads[place.group] = column
        self._count(write, hit=activate is None, conflict=precharge is not None)
        return entered

    def _open(self, group: int, bank: _Bank, row: int, entered: int) -> tuple[int | None, int | None]:
        """First legal clocks of PRE and ACT, None for one that is not needed."""
        t = self.device.timing
        if bank.row == row:
            return None, None
        precharge = None
        activate = max(
            entered, bank.activated + t.rc, self._refreshed + t.rfc, self._activated.get(group, NEVER) + t.rrd_l
        )
        if bank.row is not None:
            precharge = max(entered, self._bank_closes(bank), self._last_precharge + t.ppd)
            activate = max(activate, precharge + t.rp)
        if self._activates:
            activate = max(activate, self._activates[-1] + t.rrd_s)
        if len(self._activates) >= 4:
            activate = max(activate, self._activates[-4] + t.faw)
        return precharge, activate

    def _bank_closes(self, bank: _Bank) -> int:
        t = self.device.timing
        return max(bank.activated + t.ras, bank.read + t.rtp, bank.written + t.write_latency + t.burst + t.wr)

    def _column(self, group: int, activated: int, write: bool, entered: int) -> int:
        t = self.device.timing
        read, written = max(self._reads.values(), default=NEVER), max(self._writes.values(), default=NEVER)
        read_same, written_same = self._reads.get(group, NEVER), self._writes.get(group, NEVER)
        data_end = t.write_latency + t.burst
        legal: tuple[int, ...]
        if write:
            legal = (activated + t.rcd_write, written + t.ccd_s, written_same + t.ccd_l, read + t.rtw)
        else:
            legal = (
                activated + t.rcd_read,
                read + t.ccd_s,
                read_same + t.ccd_l,
                written + data_end + t.wtr_s,
                written_same + data_end + t.wtr_l,
            )
        in_order = self._columns[-1] + 1 if self._columns else NEVER
        return max(entered, in_order, *legal)

    def _refresh(self) -> None:
        t = self.device.timing
        self._refreshes += 1
        refresh = self._refreshes * t.refi
        opened = [bank for bank in self._banks.values() if bank.row is not None]
        if opened:
            close = max(refresh, self._last_precharge + t.ppd, *(self._bank_closes(bank) for bank in opened))
            refresh = max(close + t.rp, *(bank.activated + t.rc for bank in opened))
            self._say(close, Kind.PRECHARGE_ALL)
            self._last_precharge = close
        self._say(refresh, Kind.REFRESH)
        self._refreshed = refresh
        for bank in opened:
            bank.row = None
        self.counts = self.counts._replace(refreshes=self._refreshes)

    def _say(self, clock: int, kind: Kind, group: int = -1, bank: int = -1, row: int = -1) -> None:
        self.commands.append(Command(clock, kind, group, bank, row))

    def _count(self, write: bool, *, hit: bool, conflict: bool) -> None:
        c = self.counts
        self.counts = Counts(
            c.reads + (not write),
            c.writes + write,
            c.hits + hit,
            c.closed + (not hit and not conflict),
            c.conflicts + conflict,
            c.refreshes,
        )
