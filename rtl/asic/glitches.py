"""How often nets move when cells take time: the mapped netlist in Icarus, against the zero-delay count.

Every cell's output follows its inputs after a rise and a fall delay: the mean over its timing arcs at their slew and
load (timing.analyse). Delays are inertial: a pulse shorter than the delay is swallowed, as a gate does. Clock edges
are ideal; inputs change when the register that drives them would. The vectors are those of the zero-delay simulation,
a lane at a time, and registers must move equally often in both, or the runs are not of the same computation.
Not modelled: wires' own delay, delay by which input moved, partial swings, variation of delays.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bitwright.arch.errors import MismatchError, ToolError
from bitwright.rtl.asic import netlist_verilog
from bitwright.rtl.asic.activity import Activity, NetlistSimulator
from bitwright.rtl.asic.liberty import Library
from bitwright.rtl.asic.netlist import Netlist
from bitwright.rtl.asic.power import PowerModel
from bitwright.rtl.asic.stimulus import ACTIVE, Stimulus
from bitwright.rtl.asic.timing import Conditions, Timing, analyse
from numpy.typing import NDArray

_TABLES = (("cell_rise", "rise"), ("cell_fall", "fall"))


@dataclass(frozen=True)
class Glitches:
    """Of the cycles of one bin, over all lanes.

    toggle_ratio    Toggles of nets that combinational cells drive, with delays over without.
    energy_ratio    Switching plus internal energy, with over without; total_ratio also with the clock pins.
    """

    toggle_ratio: float
    energy_ratio: float
    total_ratio: float


def cell_delays_ps(
    netlist: Netlist, library: Library, timing: Timing, conditions: Conditions
) -> dict[int, tuple[int, int]]:
    """(rise, fall) of every net that a cell drives, at least 1 ps."""
    found = {}
    for instance in netlist.instances:
        cell = library.cell(instance.cell)
        for pin in cell.outputs:
            net = instance.pins.get(pin.name)
            if net is None:
                continue
            delays: dict[str, list[float]] = {"rise": [], "fall": []}
            for arc in pin.timing:
                slew = conditions.clock_slew_ns if cell.ff else timing.slew_ns[instance.pins.get(arc.related, 0)]
                for table, edge in _TABLES:
                    if table in arc.tables and arc.kind not in ("clear", "preset"):
                        delays[edge].append(arc.tables[table].at(slew, timing.load_ff[net]))
            rise, fall = (max(1, round(1e3 * sum(part) / max(len(part), 1))) for part in delays.values())
            found[net] = rise, fall
    return found


def measure(
    netlist: Netlist, library: Library, conditions: Conditions, stimulus: Stimulus, *, period_ps: int, lanes: int
) -> Glitches:
    """Run the first `lanes` lanes of a stimulus with and without delays; ACTIVE cycles count.

    Raises ToolError without Icarus; MismatchError when a register moves differently in the two simulations, as it does
    if the netlist is slower than `period_ps`.
    """
    timing = analyse(netlist, library, conditions)
    delays = cell_delays_ps(netlist, library, timing, conditions)
    simulator, model = NetlistSimulator(netlist, library), PowerModel(netlist, library, timing, conditions)
    logic = _driven(netlist, library, sequential=False)
    registers = _driven(netlist, library, sequential=True)
    input_ps = round(1e3 * max(conditions.clock_slew_ns, 0.001)) * 2
    toggles = np.zeros(2)
    moving, total = np.zeros(2), np.zeros(2)
    for lane in range(lanes):
        ports = {
            name: values[:, lane : lane + 1] if values.shape[1] > 1 else values
            for name, values in stimulus.ports.items()
        }
        still = simulator.run(
            {name: np.repeat(values, 64, axis=1) for name, values in ports.items()}, bins=stimulus.bins
        )
        copies = int(still.lane_cycles[ACTIVE]) // stimulus.bins.count(ACTIVE)
        rises, falls = simulate(netlist, library, delays, ports, stimulus.bins, period_ps=period_ps, input_ps=input_ps)
        settled = still.rises[ACTIVE] // copies, still.falls[ACTIVE] // copies
        for net in registers:
            if (rises[net], falls[net]) != (settled[0][net], settled[1][net]):
                raise MismatchError(
                    f"net n{net} of {netlist.name}, lane {lane}: {rises[net]} rises with delays, {settled[0][net]} "
                    f"without (is it slower than {period_ps} ps?)"
                )
        with_delays = _replaced(still, rises * copies, falls * copies)
        for k, activity in enumerate((with_delays, still)):
            energy = model.energy(activity, ACTIVE)
            toggles[k] += (activity.rises[ACTIVE] + activity.falls[ACTIVE])[logic].sum()
            moving[k] += energy.switching_pj + energy.internal_pj
            total[k] += energy.total_pj
    return Glitches(*(float(both[0] / both[1]) for both in (toggles, moving, total)))


def _driven(netlist: Netlist, library: Library, *, sequential: bool) -> list[int]:
    return [
        instance.pins[pin.name]
        for instance in netlist.instances
        if (library.cell(instance.cell).ff is not None) is sequential
        for pin in library.cell(instance.cell).outputs
        if pin.name in instance.pins
    ]


def _replaced(activity: Activity, rises: NDArray[np.int64], falls: NDArray[np.int64]) -> Activity:
    """The activity with other counts in the bin ACTIVE."""
    both = [counts.copy() for counts in (activity.rises, activity.falls)]
    both[0][ACTIVE], both[1][ACTIVE] = rises, falls
    return replace(activity, rises=both[0], falls=both[1])


def simulate(
    netlist: Netlist,
    library: Library,
    delays_ps: Mapping[int, tuple[int, int]],
    ports: Mapping[str, NDArray[np.int64]],
    bins: tuple[int, ...],
    *,
    period_ps: int,
    input_ps: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rises and falls of each net in the ACTIVE cycles of one lane: int64[nets]. `ports` as [cycles, 1] or bits."""
    with TemporaryDirectory(prefix="bitwright-glitches-") as folder:
        work = Path(folder)
        (work / "netlist.v").write_text(netlist_verilog.delayed(netlist, library, delays_ps))
        (work / "bench.v").write_text(_bench(netlist, ports, len(bins), period_ps, input_ps, work))
        for command in (["iverilog", "-g2005", "-o", "bench.vvp", "bench.v", "netlist.v"], ["vvp", "-n", "bench.vvp"]):
            try:
                done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False, timeout=600)
            except FileNotFoundError:
                raise ToolError(f"{command[0]}: not installed (apt-get install iverilog)") from None
            if done.returncode != 0:
                raise ToolError(f"{command[0]}: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
        return _count(work / "waves.vcd", netlist, bins, period_ps)


def _bench(
    netlist: Netlist, ports: Mapping[str, NDArray[np.int64]], cycles: int, period_ps: int, input_ps: int, work: Path
) -> str:
    lines, names = ["`timescale 1ps/1ps", "module bench;", "  reg clk = 0;"], list(ports)
    for name in names:
        width = len(netlist.ports[name].nets)
        values = ports[name][:, 0]
        rows = values[:, ::-1] if values.ndim == 2 else (values[:, None] >> np.arange(width)[::-1]) & 1
        (work / f"{name}.bits").write_text("\n".join("".join("01"[int(bit)] for bit in row) for row in rows) + "\n")
        lines += [f"  reg [{width - 1}:0] {name}, {name}_all [0:{cycles - 1}];"]
    inside = ", ".join(f".{name}({name})" for name in ["clk", *names])
    lines += [f"  {netlist.name} dut({inside});", "  integer t;", "  initial begin"]
    lines += [f'    $readmemb("{name}.bits", {name}_all);' for name in names]
    lines += ['    $dumpfile("waves.vcd"); $dumpvars(1, dut);', f"    for (t = 0; t < {cycles}; t = t + 1) begin"]
    lines += [f"      if (t > 0) clk = 1; #{input_ps};", *(f"      {name} = {name}_all[t];" for name in names)]
    lines += [f"      #{period_ps // 2 - input_ps} clk = 0; #{period_ps - period_ps // 2};", "    end", "    $finish;"]
    return "\n".join([*lines, "  end", "endmodule", ""])


def _count(
    path: Path, netlist: Netlist, bins: tuple[int, ...], period_ps: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Transitions between 0 and 1 of the wires n<net>, in ACTIVE cycles."""
    head, _, body = path.read_text().partition("$enddefinitions")
    nets: dict[str, list[int]] = {}
    for code, number in re.findall(r"\$var wire 1 (\S+) n(\d+) \$end", head):
        nets.setdefault(code, []).append(int(number))
    rises, falls = (np.zeros(netlist.nets, np.int64) for _ in range(2))
    last: dict[str, str] = {}
    counts = False
    for line in body.splitlines():
        if line.startswith("#"):
            cycle = min(int(line[1:]) // period_ps, len(bins) - 1)
            counts = bins[cycle] == ACTIVE
        elif line[:1] in "01xz" and line[1:] in nets:
            value, code = line[0], line[1:]
            if counts and (last.get(code), value) in (("0", "1"), ("1", "0")):
                for net in nets[code]:
                    (rises if value == "1" else falls)[net] += 1
            last[code] = value
    return rises, falls
