"""One GEMM through scalesim 3.0.0, in its own environment: `python scalesim_driver.py JOB.json`.

JOB: m, k, n, rows, cols, dataflow (ws, os, is), buffers_kib ([act, wgt, out]), bytes_per_cycle, mode:

    calc      InterfaceBandwidth CALC: the whole simulator, its memory model measuring the bandwidth that it would need
    user      InterfaceBandwidth USER at bytes_per_cycle: stalls counted
    compute   its array alone (operand and demand matrices), without its memory model: the least that gives its cycles

Writes no traces (save_disk_space), which its own command line always does. A word is one byte, fixed in its source. In
USER mode 3.0.0 takes the reads' bandwidth from the layout section (IfmapSRAMBankBandwidth, FilterSRAMBankBandwidth) and
only the writes' from Bandwidth: all of them are set, so that each of the three interfaces has the whole bandwidth.

Prints one JSON object: cycles ("Total Cycles", stalls among them), stall_cycles, and cycles_with_prefetch as its
COMPUTE_REPORT.csv names them; of `compute` the number of the last cycle, as its memory model counts.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

CONFIG = """\
[general]
run_name = run

[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {cols}
IfmapSramSzkB = {buffers_kib[0]}
FilterSramSzkB = {buffers_kib[1]}
OfmapSramSzkB = {buffers_kib[2]}
IfmapOffset = 0
FilterOffset = {filter_offset}
OfmapOffset = {out_offset}
Dataflow = {dataflow}
Bandwidth = {bandwidth},{bandwidth},{bandwidth}
ReadRequestBuffer = 512
WriteRequestBuffer = 512

[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = {bandwidth}
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = {bandwidth}
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2

[sparsity]
SparsitySupport = false

[run_presets]
InterfaceBandwidth = {interface}
UseRamulatorTrace = False
"""


def write_inputs(job: dict[str, Any], folder: Path) -> None:
    """run.cfg, gemm.csv and layout.csv; operands lie one after the other, so that no address is two operands'."""
    activations, weights = job["m"] * job["k"], job["k"] * job["n"]
    config = CONFIG.format(
        **job,
        filter_offset=activations,
        out_offset=activations + weights,
        bandwidth=round(job["bytes_per_cycle"]),
        interface="USER" if job["mode"] == "user" else "CALC",
    )
    (folder / "run.cfg").write_text(config)
    (folder / "gemm.csv").write_text("Layer, M, N, K,\ngemm, {m}, {n}, {k},\n".format(**job))
    # Read although both custom layouts are off: a header and one row of ones.
    (folder / "layout.csv").write_text("Layer name," + "x," * 20 + "\ngemm," + "1," * 20 + "\n")


def report(text: str) -> dict[str, float]:
    """What COMPUTE_REPORT.csv says of its one layer."""
    header, *rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    if len(rows) != 1:
        raise ValueError(f"COMPUTE_REPORT.csv has {len(rows)} rows, not 1")
    row = dict(zip(header, rows[0], strict=True))
    return {
        "cycles": int(float(row["Total Cycles"])),
        "stall_cycles": int(float(row["Stall Cycles"])),
        "cycles_with_prefetch": int(float(row["Total Cycles (incl. prefetch)"])),
    }


def run(job: dict[str, Any], folder: Path) -> dict[str, float]:
    """Cycles of `job`, from the whole simulator or its array alone."""
    from scalesim.scale_sim import scalesim  # type: ignore[import-not-found]

    write_inputs(job, folder)
    simulator = scalesim(
        save_disk_space=True,
        verbose=False,
        config=str(folder / "run.cfg"),
        topology=str(folder / "gemm.csv"),
        layout=str(folder / "layout.csv"),
        input_type_gemm=True,
    )
    if job["mode"] != "compute":
        simulator.run_scale(top_path=str(folder))
        return report((folder / "run/COMPUTE_REPORT.csv").read_text())

    from scalesim.single_layer_sim import single_layer_sim  # type: ignore[import-not-found]

    layer = single_layer_sim()
    layer.set_params(0, simulator.config, simulator.topo, simulator.layout, verbose=False)
    matrices = [getattr(layer.op_mat_obj, f"get_{name}_matrix")()[1] for name in ("ifmap", "filter", "ofmap")]
    named = dict(zip(("ifmap_op_mat", "filter_op_mat", "ofmap_op_mat"), matrices, strict=True))
    sparse = (
        {
            "ifmap_op_mat_original": layer.op_mat_obj.ifmap_addr_matrix_original,
            "sparsity_filter_array": layer.op_mat_obj.sparse_filter_array,
        }
        if job["dataflow"] == "ws"
        else {}
    )
    layer.compute_system.set_params(config_obj=simulator.config, **named, **sparse)
    demands = layer.compute_system.get_demand_matrices()
    return {"cycles": demands[0].shape[0] - 1}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        answer = run(json.loads(Path(sys.argv[1]).read_text()), Path(name))
    print(json.dumps(answer))
