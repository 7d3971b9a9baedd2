"""Row-hit rate and bandwidth of one channel against Ramulator 2.1, at equal timings: `make campaign-dram`.

RAMULATOR is a checkout of CMU-SAFARI/ramulator2 (commit c5b1c3a when last run); it is copied to build/ramulator and
built there with the system's yaml-cpp and fmt and pip's nanobind instead of the copies that its own build fetches.

Every pattern is played through one channel of each preset, all bursts there from the start: by our channel in order, by
Ramulator's controller (open page, all-bank refresh, first-ready first-come, 32 reads and 32 writes buffered), which
takes one a clock as long as it has room. Printed: a table in Markdown, ours, Ramulator's, and the difference.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BURSTS = 40_000
SEED = 20261123
FOUND = {
    # package of CMake -> the folder that stands in for the fetched one, its CMakeLists.txt
    "YAML-CPP": "find_package(yaml-cpp REQUIRED)\nset_target_properties(yaml-cpp PROPERTIES IMPORTED_GLOBAL TRUE)\n"
    "if(NOT TARGET yaml-cpp::yaml-cpp)\n  add_library(yaml-cpp::yaml-cpp ALIAS yaml-cpp)\nendif()\n",
    "FMT": "find_package(fmt REQUIRED)\nset_target_properties(fmt::fmt PROPERTIES IMPORTED_GLOBAL TRUE)\n",
    "NANOBIND": "find_package(nanobind CONFIG REQUIRED)\n",
}
SIMULATORS = {
    # preset -> standard, organisation, timings, controller of Ramulator
    "ddr4-3200-x64": ("DDR4", "DDR4_8Gb_x16", "DDR4_3200AA", "GenericDDR"),
    "lpddr5-6400-x64": ("LPDDR5", "LPDDR5_16Gb_x16", "LPDDR5_6400", "LPDDR5"),
    "hbm2e": ("HBM2", "HBM2_8Gb", "HBM2_2400Mbps", "HBM12"),
    "hbm3": ("HBM3", "HBM3_4Gb", "HBM3_6400Mbps", "HBM34"),
}
NAMES = {
    # ours -> theirs, where a standard has it; LPDDR5's BL/n_max - BL/n_min is in our wtr_l and apart in theirs
    "read_latency": "nCL", "write_latency": "nCWL", "burst": "nBL", "rcd_read": "nRCDRD", "rcd_write": "nRCDWR",
    "rp": "nRP", "ras": "nRAS", "rc": "nRC", "wr": "nWR", "ccd_s": "nCCDS", "ccd_l": "nCCDL", "rrd_s": "nRRDS",
    "rrd_l": "nRRDL", "faw": "nFAW", "wtr_s": "nWTRS", "wtr_l": "nWTRL", "refi": "nREFI", "rfc": "nRFC",
}  # fmt: skip


def patterns(stripe: int, banks: int, groups: int) -> Iterator[tuple[str, list[tuple[int, bool]]]]:
    """(name, [(burst, write)]) of every pattern."""
    rng = random.Random(SEED)
    span = 4096 * stripe
    yield "stream, read", [(x, False) for x in range(BURSTS)]
    yield "stream, write", [(x, True) for x in range(BURSTS)]
    yield (
        "stream, 64 reads then 64 writes elsewhere",
        [(x // 128 * 64 + x % 64 + span * (x // 64 % 2), x // 64 % 2 == 1) for x in range(BURSTS)],
    )
    yield "stride 2 bursts", [(2 * x, False) for x in range(BURSTS)]
    yield "stride of all bank groups", [(groups * x, False) for x in range(BURSTS)]
    yield "stride of a page in all groups", [(stripe * x, False) for x in range(BURSTS // 4)]
    yield "stride of a row, one bank", [(stripe * banks * x % span, False) for x in range(BURSTS // 8)]
    yield (
        "random runs of 64 bursts",
        [(start + x, False) for start in (rng.randrange(span) for _ in range(BURSTS // 64)) for x in range(64)],
    )
    yield (
        "random runs of 8 bursts",
        [(start * 8 + x, False) for start in (rng.randrange(span // 8) for _ in range(BURSTS // 8)) for x in range(8)],
    )
    yield "random bursts, read", [(rng.randrange(span), False) for _ in range(BURSTS // 2)]
    yield "random bursts, a third written", [(rng.randrange(span), rng.random() < 1 / 3) for _ in range(BURSTS // 2)]


def build(checkout: Path, folder: Path) -> Path:
    """Copy and build Ramulator; the Python that can import it."""
    python = folder / "venv/bin/python"
    if (folder / "built").exists():
        return python
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(checkout, source, ignore=shutil.ignore_patterns(".git"))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "nanobind==2.*"], check=True)
    nanobind = subprocess.run([python, "-m", "nanobind", "--cmake_dir"], check=True, capture_output=True, text=True)
    options = [f"-DPython_EXECUTABLE={python.resolve().parent / 'python'}", f"-Dnanobind_DIR={nanobind.stdout.strip()}"]
    for name, text in FOUND.items():
        stand_in = folder / name.lower()
        stand_in.mkdir(exist_ok=True)
        (stand_in / "CMakeLists.txt").write_text(text)
        options.append(f"-DFETCHCONTENT_SOURCE_DIR_{name}={stand_in}")
    made = folder / "cmake"
    subprocess.run(["cmake", "-S", source, "-B", made, "-DCMAKE_BUILD_TYPE=Release", *options], check=True)
    subprocess.run(["cmake", "--build", made, "-j2"], check=True)
    (folder / "built").touch()
    return python


def theirs(source: Path) -> None:
    """Played inside Ramulator's own Python: jobs as JSON on stdin, results on stdout."""
    sys.path.insert(0, str(source / "python"))
    import ramulator  # type: ignore[import-not-found]

    job = json.load(sys.stdin)
    standard, organisation, timing, controller = job["simulator"]
    dram_class = getattr(ramulator.dram, standard)
    known = {name: value for name, value in job["timings"].items() if name in dram_class.timing_params}
    device = dram_class(org_preset=organisation, timing_preset=timing, **known)
    control = getattr(ramulator.controller, controller)(
        dram=device,
        scheduler=ramulator.scheduler.FRFCFS(),
        refresh_manager=ramulator.refresh_manager.AllBank(),
        row_policy=ramulator.row_policy.Open(),
        addr_mapper=ramulator.addr_mapper.RoBaRaCoCh(),
    )
    memory = ramulator.memory_system.GenericDRAM(
        clock_ratio=1, controllers=[control], channel_mapper=ramulator.channel_mapper.CacheLineInterleave()
    )
    front = ramulator.frontend.LoadStoreTrace(clock_ratio=1, path=job["trace"])
    simulation = ramulator.Simulation(front, memory)
    simulation.run()
    stats = simulation.stats["memory_system"]["controller"]
    print(json.dumps({key: value for key, value in stats.items() if isinstance(value, int | float)}))


def compare(source: Path, python: Path, folder: Path) -> None:
    """Print the table."""
    from bitwright.arch import dram
    from bitwright.sim.dram import Channel, Run

    print(
        "| preset | pattern | GB/s a channel, ours | Ramulator | difference | row hits, ours | Ramulator | difference |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, simulator in SIMULATORS.items():
        memory = dram.load(name)
        device, t = memory.device, memory.device.timing
        timings = {NAMES[key]: value for key, value in vars(t).items() if key in NAMES}
        timings |= {"nRTP": t.rtp, "nRTPL": t.rtp, "nRTW": t.rtw, "nPPD": t.ppd, "nRCD": t.rcd_read, "nRPab": t.rp}
        timings |= {"nBL_min": t.burst, "nCCDS_WR": t.ccd_s, "nCCDL_WR": t.ccd_l, "tCK_ps": memory.clock_ps}
        if simulator[0] == "LPDDR5":
            timings["nWTRL"] -= 4 - t.burst  # from BL/n_max, 4, on
        units = 2 if simulator[0].startswith("HBM") else 1  # pseudo channels; all is played on the first
        for pattern, moves in patterns(device.stripe_bursts, device.banks_per_group, device.bank_groups):
            channel, finish = Channel(device), 0
            for burst, write in moves:
                finish = channel.serve(Run(burst, 1, write, 0))[1]
            counts = channel.counts
            trace = folder / "pattern.trace"
            with trace.open("w") as file:
                for burst, write in moves:
                    place = device.place(burst)
                    number = (
                        place.row % 16384 * device.banks_per_group + place.bank
                    ) * device.bank_groups + place.group
                    number = number * units * device.page_bursts + place.column
                    file.write(f"{'ST' if write else 'LD'} {number * device.burst_bytes}\n")
            job = {"simulator": simulator, "timings": timings, "trace": str(trace)}
            played = subprocess.run(
                [python, __file__, "--inside", source],
                input=json.dumps(job),
                check=True,
                capture_output=True,
                text=True,
            )
            found = json.loads(played.stdout.strip().splitlines()[-1])
            rows = [found[f"row_{kind}"] for kind in ("hits", "misses", "conflicts")]
            ours = len(moves) * device.burst_bytes / (finish * memory.clock_ps) * 1e3
            other = found["total_throughput_MBps"] / 1e3
            hits, other_hits = counts.hits / len(moves), rows[0] / sum(rows)
            print(
                f"| {name} | {pattern} | {ours:.2f} | {other:.2f} | {100 * (ours / other - 1):+.1f} % "
                f"| {100 * hits:.1f} % | {100 * other_hits:.1f} % | {100 * (hits - other_hits):+.1f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ramulator", type=Path, nargs="?", help="a checkout of Ramulator 2.1")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        theirs(options.inside)
        return
    if options.ramulator is None or not (options.ramulator / "CMakeLists.txt").exists():
        print(
            f"{options.ramulator}: no checkout of Ramulator; run: make campaign-dram RAMULATOR=folder", file=sys.stderr
        )
        raise SystemExit(3)
    folder = Path("build/ramulator").resolve()
    python = build(options.ramulator.resolve(), folder)
    compare(folder / "source", python, folder)


if __name__ == "__main__":
    main()
