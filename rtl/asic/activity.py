"""Bit-parallel simulation of a mapped netlist: toggles of every net on real stimulus, and its output values.

Behind a clock gate registers take their inputs only where its enable was 1 at the end of the cycle before.
One lane is one independent copy of the design with its own operands; 64 lanes share a machine word, so 256 PEs are
simulated in the time of one. In cycle t the registers take what their inputs were at the end of cycle t-1 (rising
edge), the stimulus of cycle t is applied, and the logic settles; then the clock falls. Every net therefore changes
at most once a cycle: glitches are NOT modelled, so energies from these counts are a lower bound on the logic's.
Data settles while the clock is high (true below half a period of logic; the difference is the flip-flop's master
latch moving at the data edge instead of at the falling clock edge, about the same energy).
Fidelity: output values equal the PE's golden arithmetic bit for bit (tests); counts are exact for zero delay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from bitwright.arch.errors import ConfigError
from bitwright.rtl.asic.boolean import Bits, Expression
from bitwright.rtl.asic.liberty import Cell, Library
from bitwright.rtl.asic.netlist import Netlist
from bitwright.rtl.asic.timing import levelise
from numpy.typing import NDArray

Index = NDArray[np.int64]
Counts = NDArray[np.int64]
Ports = NDArray[np.integer]
BINS = 3
ALL_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@dataclass
class FlipFlops:
    """All flip-flops of one cell type, with the counts that their hidden power needs.

    instances : int64[n]                     Instance indices.
    gate : int64[n]                          Number of the clock gate in front; -1 without one.
    hidden_rise, hidden_fall : int64[bins, arcs, n]   (while a run counts: a block of lanes in front)
        Transitions of the input pin of each `internal_power` arc while the arc's `when` holds; arcs in
        `arcs` order, as (pin name, number of the arc within the pin).
    """

    cell: Cell
    instances: Index
    pins: dict[str, Index]
    arcs: tuple[tuple[str, int], ...]
    gate: Index
    hidden_rise: Counts = field(default_factory=lambda: np.zeros((0, 0, 0), np.int64))
    hidden_fall: Counts = field(default_factory=lambda: np.zeros((0, 0, 0), np.int64))


@dataclass(frozen=True)
class Activity:
    """What a run counted, by bin of cycles.

    rises, falls : int64[bins, nets]      Transitions of each net, summed over lanes and cycles of the bin.
    lane_cycles : int64[bins]             Lanes times cycles of the bin.
    flip_flops : tuple[FlipFlops, ...]
    enabled : int64[bins, gates]          Lanes and cycles in which each clock gate let the clock through.
    outputs : dict[str, uint64[cycles, lanes]]   Values of the recorded ports at the end of each cycle.
    """

    rises: Counts
    falls: Counts
    lane_cycles: Counts
    flip_flops: tuple[FlipFlops, ...]
    enabled: Counts
    outputs: dict[str, NDArray[np.uint64]]

    def pooled(self, bins: Sequence[int]) -> Activity:
        """The same run with one bin, which counts what those of `bins` do."""
        chosen = list(bins)
        banks = tuple(
            replace(
                bank,
                hidden_rise=bank.hidden_rise[chosen].sum(axis=0, keepdims=True),
                hidden_fall=bank.hidden_fall[chosen].sum(axis=0, keepdims=True),
            )
            for bank in self.flip_flops
        )
        counts = (self.rises, self.falls, self.lane_cycles, self.enabled)
        rises, falls, lane_cycles, enabled = (each[chosen].sum(axis=0, keepdims=True) for each in counts)
        return Activity(rises, falls, lane_cycles, banks, enabled, self.outputs)


@dataclass(frozen=True)
class _Gates:
    """The instances of one cell type on one logic level."""

    pins: dict[str, Index]
    outputs: tuple[tuple[Expression, Index], ...]


class NetlistSimulator:
    """Levelised evaluation of a netlist with one clock and no latches or asynchronous resets.

    clock   Name of the clock port. Raises ConfigError when it does not exist.
    """

    def __init__(self, netlist: Netlist, library: Library, *, clock: str = "clk") -> None:
        if clock not in netlist.ports:
            raise ConfigError(f"clock = {clock}: module {netlist.name} has no such port")
        self.netlist = netlist
        self.clock = clock
        self._levels = [self._gates(level, library) for level in levelise(netlist, library)]
        gates = [i for i, instance in enumerate(netlist.instances) if library.cell(instance.cell).gate is not None]
        self._enables = self._enable_nets(gates, library)
        self._gate_of = {}
        for number, index in enumerate(gates):
            gate = library.cell(netlist.instances[index].cell).gate
            assert gate is not None, "gates are clock gates"
            self._gate_of[netlist.instances[index].pins[gate.output]] = number
        by_cell: dict[str, list[int]] = {}
        for index, instance in enumerate(netlist.instances):
            if library.cell(instance.cell).ff is not None:
                by_cell.setdefault(instance.cell, []).append(index)
        self._flip_flops = [self._bank(library.cell(name), found) for name, found in sorted(by_cell.items())]

    def _indices(self, instances: Sequence[int], pin: str) -> Index:
        return np.array([self.netlist.instances[i].pins.get(pin, 0) for i in instances], np.int64)

    def _enable_nets(self, gates: Sequence[int], library: Library) -> Index:
        """Enable and test net of each clock gate: int64[2, gates]; the constant 0 where there is no test pin."""
        nets = []
        for index in gates:
            instance = self.netlist.instances[index]
            gate = library.cell(instance.cell).gate
            assert gate is not None, "gates are clock gates"
            nets.append([instance.pins[gate.enable], instance.pins.get(gate.test, 0)])
        return np.array(nets, np.int64).reshape(len(gates), 2).T

    def _passing(self, values: Bits) -> Bits:
        """Lanes in which each clock gate lets the next edge through, last a row of all lanes: [gates + 1, words]."""
        found = values[self._enables[0]] | values[self._enables[1]]
        return np.concatenate([found, np.full_like(values[:1], ALL_ONES)])

    def _gates(self, level: tuple[int, ...], library: Library) -> list[_Gates]:
        by_cell: dict[str, list[int]] = {}
        for index in level:
            by_cell.setdefault(self.netlist.instances[index].cell, []).append(index)
        groups = []
        for name, found in sorted(by_cell.items()):
            cell = library.cell(name)
            outputs = tuple(
                (pin.function, self._indices(found, pin.name))
                for pin in cell.outputs
                if pin.function is not None and pin.name in self.netlist.instances[found[0]].pins
            )
            pins = {pin.name: self._indices(found, pin.name) for pin in cell.inputs}
            groups.append(_Gates(pins, outputs))
        return groups

    def _bank(self, cell: Cell, found: list[int]) -> FlipFlops:
        arcs = tuple((pin.name, k) for pin in cell.inputs for k in range(len(pin.power)))
        pins = {name: self._indices(found, name) for name in cell.pins}
        assert cell.ff is not None, "a bank holds flip-flops only"
        gate = np.array([self._gate_of.get(int(net), -1) for net in pins[cell.ff.clocked_on]], np.int64)
        return FlipFlops(cell, np.array(found, np.int64), pins, arcs, gate)

    def run(self, stimulus: Mapping[str, Ports], *, bins: Sequence[int], record: Sequence[str] = ()) -> Activity:
        """Simulate len(bins) cycles from the all-zero state.

        stimulus   For every input port but the clock, integers [cycles, lanes], lanes a multiple of 64; values are
                   taken modulo 2**width. A port may be given as [cycles, 1]: the same for all lanes; or bit by bit,
                   as 0 and 1 [cycles, lanes, width], lowest first.
        bins       For each cycle the bin that counts it (from 0: there are BINS, more if one says more), or -1 for none
                   (reset, warm-up). Cycle 0 has no predecessor and is never counted.
        record     Output ports whose values are returned.
        Raises ConfigError for missing or unknown ports and for shapes that do not fit.
        """
        return self.run_many([stimulus], bins=bins, record=record)[0]

    def run_many(
        self, stimuli: Sequence[Mapping[str, Ports]], *, bins: Sequence[int], record: Sequence[str] = ()
    ) -> list[Activity]:
        """As `run` for several stimuli with the same bins and number of lanes, side by side in one simulation (a
        pass over the netlist costs the same for 64 lanes as for thousands). Raises ConfigError if lanes differ."""
        cycles, nets, blocks = len(bins), self.netlist.nets, len(stimuli)
        number = max(BINS, 1 + max(bins, default=0))
        made = [self._planes(stimulus, cycles) for stimulus in stimuli]
        lanes = made[0][1]
        if any(other != lanes for _, other in made):
            raise ConfigError(f"stimuli of {self.netlist.name}: lanes {sorted({n for _, n in made})}: must be equal")
        planes = {port: np.concatenate([part[port] for part, _ in made], axis=2) for port in made[0][0]}
        values: Bits = np.zeros((nets, blocks * lanes // 64), np.uint64)
        values[1] = ALL_ONES
        rises = np.zeros((blocks, number, nets), np.int64)
        falls = np.zeros_like(rises)
        banks = [
            FlipFlops(bank.cell, bank.instances, bank.pins, bank.arcs, bank.gate, *_empty(bank, blocks, number))
            for bank in self._flip_flops
        ]
        outputs = {name: np.zeros((cycles, blocks * lanes), np.uint64) for name in record}
        states = [np.zeros((len(bank.instances), values.shape[1]), np.uint64) for bank in banks]
        enabled = np.zeros((blocks, number, self._enables.shape[1]), np.int64)
        for cycle, chosen in enumerate(bins):
            before = values.copy()
            passing = self._passing(before)
            if cycle > 0:
                self._clock(values, states, passing)
            self._settle(values, states, {port: plane[cycle] for port, plane in planes.items()})
            if chosen >= 0 and cycle > 0:
                changed = before ^ values
                rise = changed & values
                up = _count(rise, blocks)
                rises[:, chosen] += up
                falls[:, chosen] += _count(changed, blocks) - up
                enabled[:, chosen] += _count(passing[:-1], blocks)
                for bank in banks:
                    _count_hidden(bank, chosen, before, values, rise, changed ^ rise, passing[bank.gate])
            for name in record:
                outputs[name][cycle] = _unpack(values[list(self.netlist.ports[name].nets)])
        lane_cycles = np.array([sum(b == k for b in bins[1:]) * lanes for k in range(number)], np.int64)
        return [
            Activity(
                rises[block],
                falls[block],
                lane_cycles,
                tuple(
                    replace(bank, hidden_rise=bank.hidden_rise[block], hidden_fall=bank.hidden_fall[block])
                    for bank in banks
                ),
                enabled[block],
                {name: found[:, block * lanes : (block + 1) * lanes] for name, found in outputs.items()},
            )
            for block in range(blocks)
        ]

    def _planes(self, stimulus: Mapping[str, Ports], cycles: int) -> tuple[dict[str, NDArray[np.uint64]], int]:
        """Bit planes [cycles, bits, words] of each input port, and the number of lanes."""
        wanted = {name for name, port in self.netlist.ports.items() if not port.is_output} - {self.clock}
        if wanted != set(stimulus):
            raise ConfigError(
                f"stimulus of {self.netlist.name}: missing {sorted(wanted - set(stimulus))}, "
                f"unknown {sorted(set(stimulus) - wanted)}"
            )
        lanes = max((array.shape[1] for array in stimulus.values()), default=64)
        lanes = 64 if lanes == 1 else lanes
        if lanes % 64:
            raise ConfigError(f"stimulus of {self.netlist.name}: {lanes} lanes: must be a multiple of 64")
        planes = {}
        for name, array in stimulus.items():
            width = len(self.netlist.ports[name].nets)
            given = array.shape[:2] if array.shape[2:] in ((), (width,)) else ()
            if given not in ((cycles, 1), (cycles, lanes)):
                raise ConfigError(
                    f"stimulus of {self.netlist.name}, port {name}: shape {array.shape}, "
                    f"must be ({cycles}, {lanes}) or ({cycles}, 1)"
                )
            if array.ndim == 3:
                packed = np.packbits(array.transpose(0, 2, 1).astype(np.uint8), axis=2, bitorder="little")
                planes[name] = np.ascontiguousarray(packed).view(np.uint64)
                continue
            wide = np.broadcast_to(array.astype(np.int64).view(np.uint64), (cycles, lanes))
            shifted = (wide[:, None, :] >> np.arange(width, dtype=np.uint64)[None, :, None]) & np.uint64(1)
            packed = np.packbits(shifted.astype(np.uint8), axis=2, bitorder="little")
            planes[name] = np.ascontiguousarray(packed).view(np.uint64)
        return planes, lanes

    def _clock(self, values: Bits, states: list[Bits], passing: Bits) -> None:
        """A rising edge: the state of each register that it reaches, in place."""
        for bank, state in zip(self._flip_flops, states, strict=True):
            ff = bank.cell.ff
            assert ff is not None, "a bank holds flip-flops only"
            following = ff.next_state({name: values[bank.pins[name]] for name in ff.next_state.inputs})
            state ^= (state ^ following) & passing[bank.gate]

    def _settle(self, values: Bits, states: list[Bits], inputs: dict[str, Bits]) -> None:
        """Registers' outputs, then ports, then logic, in place."""
        for bank, state in zip(self._flip_flops, states, strict=True):
            ff = bank.cell.ff
            assert ff is not None, "a bank holds flip-flops only"
            for pin in bank.cell.outputs:
                if pin.function is not None:
                    values[bank.pins[pin.name]] = pin.function({ff.state: state, ff.inverted: ~state})
        for port, plane in inputs.items():
            values[list(self.netlist.ports[port].nets)] = plane
        values[0], values[1] = 0, ALL_ONES
        for level in self._levels:
            for gates in level:
                pins = {name: values[index] for name, index in gates.pins.items()}
                for function, index in gates.outputs:
                    values[index] = function(pins)


def _empty(bank: FlipFlops, blocks: int, bins: int) -> tuple[Counts, Counts]:
    shape = (blocks, bins, len(bank.arcs), len(bank.instances))
    return np.zeros(shape, np.int64), np.zeros(shape, np.int64)


def _count(planes: Bits, blocks: int) -> Counts:
    """Bits set in planes [n, words], for each of `blocks` equal runs of words: int64 [blocks, n]."""
    shape = (len(planes), blocks, planes.shape[1] // blocks)
    counts: Counts = np.bitwise_count(planes).reshape(shape).sum(axis=2, dtype=np.int64).T
    return counts


def _count_hidden(
    bank: FlipFlops, chosen: int, before: Bits, after: Bits, rise: Bits, fall: Bits, clocked: Bits
) -> None:
    """Add one cycle to the hidden-power counts of a bank; `clocked` are the lanes whose clock moves.

    The rising clock edge sees the pins before it; data moves while the clock is high, after the outputs; the
    falling clock edge sees the settled pins.
    """
    ff = bank.cell.ff
    assert ff is not None, "a bank holds flip-flops only"
    blocks = len(bank.hidden_rise)
    old = {name: before[index] for name, index in bank.pins.items()}
    new = {name: after[index] for name, index in bank.pins.items()}
    everything = np.full_like(new[ff.clocked_on], ALL_ONES)
    new[ff.clocked_on] = everything
    for k, (pin, number) in enumerate(bank.arcs):
        when = bank.cell.pins[pin].power[number].when
        if pin == ff.clocked_on:
            up = clocked & (everything if when is None else when(old))
            down = clocked & (everything if when is None else when(new))
        else:
            held = everything if when is None else when(new)
            up, down = rise[bank.pins[pin]] & held, fall[bank.pins[pin]] & held
        bank.hidden_rise[:, chosen, k] += _count(up, blocks)
        bank.hidden_fall[:, chosen, k] += _count(down, blocks)


def _unpack(planes: Bits) -> NDArray[np.uint64]:
    """Bit planes [bits, words] to unsigned values [lanes]."""
    bits = np.unpackbits(np.ascontiguousarray(planes).view(np.uint8), axis=1, bitorder="little")
    weights = np.uint64(1) << np.arange(len(planes), dtype=np.uint64)
    values: NDArray[np.uint64] = (bits.astype(np.uint64) * weights[:, None]).sum(axis=0, dtype=np.uint64)
    return values
