"""What a machine's parts cost: area of each part, energy of each event, leakage; from cost tables, never typed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bitwright.arch import costs, formats, pe
from bitwright.arch.costs.records import BlockCost, PECost, RegisterCost, SramCost, TreeCost, UnitCost
from bitwright.arch.costs.tables import CostTable
from bitwright.arch.costs.wires import Wires, side_um
from bitwright.arch.errors import ConfigError
from bitwright.arch.machine import Dataflow, Machine

SUM_BITS = 32  # a word of the output buffer, one column
MAX_PORT_BITS, MIN_PORT_BITS = 512, 64
MIN_BANK_BYTES = 4096  # the SRAM table's smallest
RANDOM_TOGGLES = 0.5  # changes a bit and word of uniform random data
SLOTS = 2  # of a double buffer, each its own memory with its own port


@dataclass(frozen=True)
class Sram:
    """One buffer: energy of a word access, leakage and area of the whole capacity."""

    width_bits: int
    read_pj: float
    write_pj: float
    leakage_uw: float
    area_um2: float


@dataclass(frozen=True)
class Worker:
    """Energy of one of several equal units: `op_pj` in a cycle with work, `idle_pj` in one without (clock still on)."""

    op_pj: float
    idle_pj: float

    def energy_pj(self, ops: float, unit_cycles: float) -> float:
        """`ops` cycles of work among `unit_cycles` (units x cycles)."""
        return ops * self.op_pj + max(0.0, unit_cycles - ops) * self.idle_pj


NOTHING = Worker(0.0, 0.0)


@dataclass(frozen=True)
class WireCosts:
    """Wires between the blocks of an array, by distance, pJ.

    cell_pj, pass_pj   what reaches a cell from its neighbours in a cycle with work, and in one that passes sums on
    weight_load_pj     the same for one weight into a cell, its beat on the other rows' bus included
    act_pj, wgt_pj_per_bit, out_pj   a word of activations to the array's edge, a bit of weights, a sum of one column
    """

    cell_pj: float
    pass_pj: float
    weight_load_pj: float
    act_pj: float
    wgt_pj_per_bit: float
    out_pj: float


@dataclass(frozen=True)
class MachineCosts:
    """Every unit cost of one machine with one weight format at its border.

    cell            a PE cell, an active cycle against an idle one (weight loads left out)
    pass_pj         a cell whose row has no operand while the array streams
    weight_load_pj  loading one weight into a cell (weight-stationary), its beat on the other rows' bus included
    group, partial, border   one a column: the unit that takes finished groups, the one that adds unfinished ones (None:
                    the same unit, as for fp16-mac), the decoder of these weights (NOTHING if native)
    bypassed_pj     idle energy a cycle and column of decoders installed for other formats
    skew_bits       flip-flops of the skew and deskew triangles, each skew_clock_pj a cycle and skew_toggle_pj a change
    vector          a lane of the vector unit
    wires           energy of wires by distance
    clock_tree_pj   a cycle of the whole clock tree, from the root to every block's flip-flops
    Areas in um2, leakage in uW, energies in pJ.
    """

    cell: Worker
    pass_pj: float
    weight_load_pj: float
    group: Worker
    partial: Worker | None
    border: Worker
    bypassed_pj: float
    act: Sram
    wgt: Sram
    out: Sram
    dram_read_pj_per_bit: float
    dram_write_pj_per_bit: float
    dram_background_mw: float
    skew_bits: int
    skew_clock_pj: float
    skew_toggle_pj: float
    vector: Worker
    wires: WireCosts
    clock_tree_pj: float
    array_um2: float
    edge_um2: float
    vector_um2: float
    clock_tree_um2: float
    logic_leakage_uw: float

    def edge_pj(self, group_results: int, partial_sums: int, decoded: int, unit_cycles: int) -> float:
        """Energy of all column-edge units and decoders over `unit_cycles` (columns x cycles)."""
        if self.partial is None:
            sums = self.group.energy_pj(group_results + partial_sums, unit_cycles)
        else:
            sums = self.group.energy_pj(group_results, unit_cycles) + self.partial.energy_pj(partial_sums, unit_cycles)
        return sums + self.border.energy_pj(decoded, unit_cycles) + self.bypassed_pj * unit_cycles

    @property
    def sram_um2(self) -> float:
        """Area of the three buffers."""
        return self.act.area_um2 + self.wgt.area_um2 + self.out.area_um2

    @property
    def leakage_uw(self) -> float:
        """Leakage of everything on the chip."""
        return self.logic_leakage_uw + self.act.leakage_uw + self.wgt.leakage_uw + self.out.leakage_uw


def table(machine: Machine) -> CostTable:
    """The cost table of the machine's node."""
    return costs.load(machine.node)


def blocks(machine: Machine, installed: tuple[str, ...]) -> dict[str, PECost | UnitCost]:
    """The synthesised blocks of the array: its cell, and one of each edge unit a column.

    `installed` are the weight formats whose decoders stand at the border. Keys: `cell`, `edge`, `partial`,
    `border <format>`.
    """
    tables, spec = table(machine), pe.get(machine.pe)
    found: dict[str, PECost | UnitCost] = {
        "cell": tables.pe(machine.pe, machine.array.dataflow.value),
        "edge": tables.unit(spec.edge_unit, machine.pe, _edge_format(installed, installed[0])),
    }
    if spec.psum.kind == "int":
        found["partial"] = tables.unit("int-accumulator")
    for name in installed:
        unit = spec.accepts(name, spec.params.get("group", 1)).unit
        if unit is not None:
            found[f"border {name}"] = tables.unit(unit, name)
    return found


def _edge_format(installed: tuple[str, ...], weight_format: str) -> str:
    """Whose results the installed edge unit is charged for: a unit for two-level scales has no energy for others."""
    two_level = [name for name in installed if formats.get(name).default_scale_format == "int8"]
    return weight_format if not two_level or weight_format in two_level else two_level[0]


def check_clock(machine: Machine, installed: tuple[str, ...]) -> None:
    """Refuse a clock that a block of the machine does not reach: cell, edge units, decoders, or a buffer's SRAM.

    Raises ConfigError naming the clock, the slowest block and its fmax at the node. Of a broadcast tile only the PE
    behind its streams is known, and that where the table has one of its parameters.
    """
    if machine.tile is not None:
        _check_stream(machine)
        return
    tables, spec = table(machine), pe.get(machine.pe)
    names = {
        "cell": f"PE {machine.pe} ({machine.array.dataflow.value} cell)",
        "edge": f"the {spec.edge_unit} of {machine.pe}",
        "partial": "the int-accumulator",
    }
    fmax_mhz = {
        names.get(name, f"the {name.removeprefix('border ')} decoder"): block.fmax_mhz
        for name, block in blocks(machine, installed).items()
    }
    for tensor, bits in _port_bits(machine, installed).items():
        capacity = machine.buffers.capacity_bytes(tensor)
        bank, _ = _slots(tables, capacity, bits)
        fmax_mhz[f"the {tensor} buffer ({capacity / 1024:g} KiB, {bits} bits wide)"] = 1e3 / bank.cycle_ns
    slowest = min(fmax_mhz, key=lambda name: fmax_mhz[name])
    _refuse_faster(machine, slowest, fmax_mhz[slowest])


def _check_stream(machine: Machine) -> None:
    found = costs.stream(machine.spec.name, machine.spec.params, node=machine.node)
    if found is not None:
        _refuse_faster(machine, f"PE {machine.pe} behind its streams", found.fmax_mhz)


def _refuse_faster(machine: Machine, block: str, fmax_mhz: float) -> None:
    if machine.clock_mhz > fmax_mhz:
        raise ConfigError(
            f"clock_mhz = {machine.clock_mhz:g}: {block} reaches {fmax_mhz:.0f} MHz at {machine.node}; "
            f"choose a lower clock; machine {machine.name}"
        )


def _slots(tables: CostTable, capacity_bytes: int, width_bits: int) -> tuple[SramCost, int]:
    """One memory of a buffer and how many there are: two slots, each as parallel banks of at most 512 bits.

    A bank below the table's smallest capacity costs what the smallest does; a port under 64 bits has 64.
    """
    banks = -(-width_bits // MAX_PORT_BITS)
    bank_bytes = max(MIN_BANK_BYTES, capacity_bytes / SLOTS / banks)
    return tables.sram(bank_bytes, max(MIN_PORT_BITS, width_bits / banks)), SLOTS * banks


def _sram(tables: CostTable, capacity_bytes: int, width_bits: int) -> Sram:
    """A whole buffer; an access reads or writes one slot. A port under 64 bits uses its word over several accesses."""
    bank, count = _slots(tables, capacity_bytes, width_bits)
    share = min(1.0, width_bits / MIN_PORT_BITS) * count / SLOTS
    return Sram(
        width_bits,
        bank.read_pj * share,
        bank.write_pj * share,
        bank.leakage_mw * 1e3 * count,
        bank.area_mm2 * 1e6 * count,
    )


def _port_bits(machine: Machine, installed: tuple[str, ...]) -> dict[str, int]:
    """Width of each buffer's word: a lane for every row, the widest code for every column, a sum for every column."""
    rows, cols = machine.array.rows, machine.array.cols
    return {
        "act": rows * pe.get(machine.pe).act.bits,
        "wgt": cols * max(formats.get(name).bits for name in installed),
        "out": cols * SUM_BITS,
    }


@lru_cache(maxsize=1024)
def machine_costs(machine: Machine, installed: tuple[str, ...], weight_format: str) -> MachineCosts:
    """Unit costs of `machine`, built for the weight formats `installed`, while its weights are `weight_format`.

    The weight port is the widest installed code a column. A weight that needs no decoder passes the installed ones by.
    """
    tables, spec = table(machine), pe.get(machine.pe)
    found = blocks(machine, installed)
    cell = tables.pe(machine.pe, machine.array.dataflow.value, weight_format)
    edge = tables.unit(spec.edge_unit, machine.pe, _edge_format(installed, weight_format))
    lane, register, dram = tables.pe("fp16-mac", "os"), tables.register(), tables.dram(machine.dram)
    rows, cols, lanes = machine.array.rows, machine.array.cols, machine.vector.lanes
    skew_bits = skew_register_bits(machine)
    units = [unit for name, unit in found.items() if name != "cell"]
    logic = [(machine.cells, cell), *((cols, unit) for unit in units), (skew_bits, register), (lanes, lane)]
    roots = machine.cells + cols * len(units) + -(-skew_bits // register.block_bits) + lanes
    tree = _tree(logic, roots, tables.wires())
    borders = {name: unit for name, unit in found.items() if name.startswith("border ")}
    ports = _port_bits(machine, installed)
    buffers = {name: _sram(tables, machine.buffers.capacity_bytes(name), bits) for name, bits in ports.items()}
    return MachineCosts(
        cell=Worker(_over_columns(machine, cell, lambda one: one.energy_pj_per_mac), cell.idle_energy_pj),
        pass_pj=cell.pass_energy_pj,
        weight_load_pj=cell.weight_load_pj + (rows - 1) * cell.bus_beat_pj,
        group=_worker(edge),
        partial=_worker(found["partial"]) if "partial" in found else None,
        border=_worker(borders.get(f"border {weight_format}")),
        bypassed_pj=sum(unit.idle_energy_pj for name, unit in borders.items() if name != f"border {weight_format}"),
        act=buffers["act"],
        wgt=buffers["wgt"],
        out=buffers["out"],
        dram_read_pj_per_bit=dram.pj_per_bit,
        dram_write_pj_per_bit=dram.write_pj_per_bit,
        dram_background_mw=dram.background_mw,
        skew_bits=skew_bits,
        skew_clock_pj=register.clock_pj,
        skew_toggle_pj=register.toggle_pj,
        vector=Worker(lane.energy_pj_per_mac, lane.idle_energy_pj),
        wires=_wire_costs(machine, cell, tables.wires(), ports["act"]),
        clock_tree_pj=tree.energy_pj,
        array_um2=machine.cells * cell.area_um2,
        edge_um2=cols * sum(unit.area_um2 for unit in units) + skew_bits * register.area_um2,
        vector_um2=lanes * lane.area_um2,
        clock_tree_um2=tree.area_um2,
        logic_leakage_uw=tree.leakage_uw + sum(count * block.leakage_uw for count, block in logic),
    )


def _wire_costs(machine: Machine, cell: PECost, wires: Wires, act_word_bits: int) -> WireCosts:
    """Hops of one cell's side, and words from buffers that stand at the middle of the sides they feed.

    Input ports' transitions are counted on real operands; of a word between buffer and array half of the bits change,
    as of uniform random data.
    """
    rows, cols = machine.array.rows, machine.array.cols
    hop_pj = wires.toggle_pj(side_um(cell.area_um2 + cell.clock_tree.area_um2))
    bit_pj = hop_pj * RANDOM_TOGGLES
    along_rows, along_cols = rows / 4, cols / 4
    return WireCosts(
        cell_pj=_over_columns(machine, cell, lambda one: one.hops) * hop_pj,
        pass_pj=cell.pass_hops * hop_pj,
        weight_load_pj=(cell.weight_load_hops + (rows - 1) * cell.bus_beat_hops) * hop_pj,
        act_pj=act_word_bits * bit_pj * along_rows,
        wgt_pj_per_bit=bit_pj * along_cols,
        out_pj=SUM_BITS * bit_pj * along_cols,
    )


def _tree(logic: Sequence[tuple[int, BlockCost | RegisterCost]], roots: int, wires: Wires) -> TreeCost:
    """The clock tree of a whole machine: inside its blocks, so many of each, and above their `roots` clock pins."""
    trees = [(count, block.clock_tree) for count, block in logic]
    inside_um2 = sum(count * one.area_um2 for count, one in trees)
    above = wires.tree(roots, inside_um2 + sum(count * block.area_um2 for count, block in logic))
    trees.append((1, above))
    return TreeCost(
        sum(count * one.energy_pj for count, one in trees),
        inside_um2 + above.area_um2,
        sum(count * one.leakage_uw for count, one in trees),
    )


def _worker(unit: PECost | UnitCost | None) -> Worker:
    return Worker(unit.energy_pj_per_op, unit.idle_energy_pj) if isinstance(unit, UnitCost) else NOTHING


def _over_columns(machine: Machine, cell: PECost, figure: Callable[[PECost], float]) -> float:
    """Mean of a cell's figure: the zero-point column's weight is constantly 1."""
    extra = machine.physical_cols - machine.array.cols
    if not extra:
        return figure(cell)
    ones = figure(table(machine).pe(cell.pe, cell.dataflow, "constant-one"))
    return (machine.array.cols * figure(cell) + extra * ones) / machine.physical_cols


def skew_register_bits(machine: Machine) -> int:
    """Flip-flops around the cells: skew and deskew triangles and the lines of marks; not the tile sequencer's state.

    Equal to the array's Verilog but for that state (tests/cross/test_skew_registers.py).
    """
    spec = pe.get(machine.pe)
    rows, cols, physical = machine.array.rows, machine.array.cols, machine.physical_cols
    triangles = (
        (spec.act.bits + 1) * rows * (rows - 1)  # activations and their valid bits
        + spec.wgt.bits * cols * (cols - 1)
        + spec.psum.bits * physical * (physical - 1)
    ) // 2
    if machine.array.dataflow is Dataflow.WEIGHT_STATIONARY:
        return triangles + (rows - 1) + 2 * (rows + physical - 1)  # swap; result valid and last
    return triangles + 2 * (rows - 1) + 2 * (physical - 1)  # first and last; result valid and last
