"""MAESTRO (commit 4eb08d1): the file that it takes and the table that it writes; the program is built by the user.

Weights stay: columns of the array are output channels (N), rows the reduction (K). An outer step takes `m_tile` tokens
at once, so that what it fetches from off-chip, which MAESTRO charges at every outer step and in full, is charged once a
tile of our buffers and not once a token.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

OUT_BYTES = 4
UNBOUNDED = 2**30

MAPPING = """\
Network gemm {{
  Layer gemm {{
    Type: GEMM
    Dimensions {{ K: {k}, M: {m}, N: {n} }}
    Dataflow {{
      SpatialMap(1,1) N;
      TemporalMap({k_tile},{k_tile}) K;
      TemporalMap({m_tile},{m_tile}) M;
      Cluster({rows}, P);
      SpatialMap(1,1) K;
      TemporalMap(1,1) M;
      TemporalMap(1,1) N;
    }}
  }}
}}
"""


def mapping(job: dict[str, Any]) -> str:
    """Its description of `job`'s product, weight-stationary, in the largest tiles that two of fit in our buffers."""
    act, _, out = (kib * 1024 for kib in job["buffers_kib"])
    m_tile = max(1, min(job["m"], act // (2 * job["rows"]), out // (2 * OUT_BYTES * job["cols"])))
    return MAPPING.format(**job, k_tile=min(job["rows"], job["k"]), m_tile=m_tile)


def options(job: dict[str, Any]) -> list[str]:
    """Its command line. Modes: ideal, nothing outside the PEs takes time; offchip, our DRAM's bandwidth; edges, also a
    network that brings one value a row and one a column each cycle."""
    bandwidth = UNBOUNDED if job["mode"] == "ideal" else int(job["bytes_per_cycle"])
    network = job["rows"] + job["cols"] if job["mode"] == "edges" else UNBOUNDED
    return [
        f"--num_pes={job['rows'] * job['cols']}",
        f"--l1_size_cstr={64}",
        f"--l2_size_cstr={sum(job['buffers_kib']) * 1024}",
        f"--noc_bw_cstr={network}",
        f"--offchip_bw_cstr={bandwidth}",
        "--Mapping_file=gemm.m",
        "--print_res=false",
        "--print_res_csv_file=true",
        "--print_log_file=false",
    ]


def write_inputs(job: dict[str, Any], folder: Path) -> None:
    """gemm.m, which its options name."""
    (folder / "gemm.m").write_text(mapping(job))


def report(text: str) -> dict[str, float]:
    """What gemm.csv says of its one layer. Its header has commas that its rows lack: only the first columns agree."""
    rows = list(csv.reader(text.splitlines(), skipinitialspace=True))
    if len(rows) != 2:
        raise ValueError(f"gemm.csv has {len(rows)} lines, not 2")
    row = {name.strip(): value for name, value in zip(rows[0][:4], rows[1][:4], strict=True)}
    return {"cycles": int(float(row["Runtime (Cycles)"]))}
