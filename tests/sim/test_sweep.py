"""Sweeps: resumed after kill -9, shared by two processes, interrupted, and refused before any work."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch import formats
from bitwright.arch import space as spaces
from bitwright.arch import workers as pools
from bitwright.arch.errors import BitwrightError, FormatError
from bitwright.arch.machine import DramTiming
from bitwright.arch.space import Space
from bitwright.sim import accuracy
from bitwright.sim import sweeping as sweeps
from bitwright.sim.inference import simulate
from bitwright.sim.store import Store

# Shape-only models measure no perplexity, so these spaces are quick.
TINY = """\
name: tiny
model: opt-1.3b
workload: {prompt_tokens: 4, output_tokens: 1}
machines: {array: [[16, 16], [32, 32]], buffers_kib: [512]}
designs:
  - {pe: int8-mac, formats: [{weights: int8, acts: int8, kv: int8}]}
  - {pe: fp16-mac, formats: [{weights: fp16}]}
"""
LONG = TINY.replace("[512]", "[64, 96, 128, 192, 256]").replace("opt-1.3b", "llama-2-7b")
# For a test that stops the sweep at its first row: on a busy machine 20 points can be done before the signal comes.
ENDLESS = TINY.replace("[512]", str(list(range(64, 832, 32)))).replace("opt-1.3b", "llama-2-7b")


@pytest.fixture
def tiny(tmp_path: Path) -> Space:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return spaces.load(path)


def command(space: Path, store: Path) -> list[str]:
    return [sys.executable, "-m", "bitwright.cli", "sweep", str(space), "--store", str(store)]


def test_sweep_gives_a_table_in_the_order_of_the_space(tiny: Space, tmp_path: Path) -> None:
    table = sweeps.sweep(tiny, tmp_path / "store", workers=2)
    assert list(table["machine"]) == [
        "int8-mac-16x16-ws", "int8-mac-32x32-ws", "fp16-mac-16x16-ws", "fp16-mac-32x32-ws",
    ]  # fmt: skip
    assert table["perplexity"].isna().all()
    assert set(table["space_name"]) == {"tiny"}
    assert (table["cycles"] > 0).all()


def test_second_sweep_runs_nothing_and_gives_the_same_rows(
    tiny: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    first = sweeps.sweep(tiny, store, workers=2)
    monkeypatch.setattr(sweeps, "_run", lambda *_: pytest.fail("nothing was missing"))
    second = sweeps.sweep(tiny, store)
    assert first.to_dict("records") == second.to_dict("records")
    assert sweeps.status(store) == sweeps.SweepStatus(points=4, done=4, failed=0)


def test_failed_point_is_kept_apart_and_can_be_retried(tiny: Space, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    sweeps.sweep(tiny, store, workers=2)
    item = sweeps.plan(tiny)[1]
    store.remove("rows", item.key)
    store.write("failed", item.key, {"key": item.key, "message": "m", "point": item.point.model_dump(mode="json")})
    assert sweeps.status(store) == sweeps.SweepStatus(points=4, done=3, failed=1)
    assert list(sweeps.failures(store)) == [
        "int8-mac-32x32-ws (acts int8, kv int8, weights int8, 512 KiB, ddr4-3200-x16): m"
    ]
    assert len(sweeps.sweep(tiny, store)) == 3
    assert sweeps.retry(store) == 1
    assert len(sweeps.sweep(tiny, store)) == 4


def wait_for_rows(store: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if len(list((store / "rows").glob("*.json"))) >= count:
            return
        time.sleep(0.05)
    pytest.fail("no rows within two minutes")


def hear_interrupts() -> None:
    """What a shell starts with & ignores SIGINT, and so does all that it starts: CI may be run so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def test_killed_sweep_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path, store = tmp_path / "long.yaml", tmp_path / "store"
    path.write_text(LONG)
    process = subprocess.Popen(command(path, store), stderr=subprocess.DEVNULL)
    wait_for_rows(store, 2)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {item.name: item.read_bytes() for item in (store / "rows").glob("*.json")}
    assert 2 <= len(before) < 20
    deadline = time.monotonic() + 15
    while any(alive(int(child)) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(int(child)) for child in children), "workers end with their parent"
    done = subprocess.run(command(path, store), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = {item.name: item.read_bytes() for item in (store / "rows").glob("*.json")}
    assert len(after) == 20
    assert {name: after[name] for name in before} == before


def test_two_sweeps_on_one_store_at_once(tmp_path: Path) -> None:
    path, store = tmp_path / "tiny.yaml", tmp_path / "store"
    path.write_text(TINY)
    both = [subprocess.Popen(command(path, store), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    rows = [json.loads(item.read_text()) for item in (store / "rows").iterdir()]
    assert len(rows) == 4
    assert all(row["key"] + ".json" in {item.name for item in (store / "rows").iterdir()} for row in rows)


def test_interrupt_ends_with_130_and_keeps_rows(tmp_path: Path) -> None:
    path, store = tmp_path / "long.yaml", tmp_path / "store"
    path.write_text(ENDLESS)
    process = subprocess.Popen(command(path, store), stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts)
    wait_for_rows(store, 1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "bitwright: interrupted; what was finished is kept"
    assert all(json.loads(item.read_text()) for item in (store / "rows").glob("*.json"))


def test_sweep_returns_its_own_points_whatever_else_is_in_the_store(tiny: Space, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = sweeps.sweep(tiny, store, workers=2)
    other = tiny.model_copy(update={"name": "other", "designs": tiny.designs[1:]})
    assert list(sweeps.sweep(other, store)["key"]) == list(first["key"])[2:]
    assert {row["space_name"] for row in sweeps.stored_rows(store)} == {"other"}
    assert sweeps.status(store, list(first["key"])).done == 4


def test_format_hash_tells_formats_of_one_class_apart() -> None:
    names = ["int4", "int8", "int4_asym", "bitmod_fp4", "bitmod_fp4_er", "fp16", "bf16"]
    assert len({accuracy.format_hash(name) for name in names}) == len(names)
    assert accuracy.format_hash("int4") == accuracy.format_hash("int4")


def test_format_hash_does_not_change_when_a_format_is_used() -> None:
    """In another process, where nothing has been used, every hash is the same."""
    values = np.abs(np.random.default_rng(2).standard_normal((2, 512))).astype(np.float32)
    for name in formats.names():
        with contextlib.suppress(FormatError):
            formats.get(name).decode(formats.get(name).encode(values))
    code = "from bitwright.sim import accuracy; from bitwright.arch import formats; import json; "
    code += "print(json.dumps({name: accuracy.format_hash(name) for name in formats.names()}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(other) == {name: accuracy.format_hash(name) for name in formats.names()}


def fail(point: object) -> dict[str, object]:
    raise KeyError("a slip in the engine")


def test_unexpected_error_fails_its_point_only(tiny: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Inline(ThreadPoolExecutor):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(1)

    monkeypatch.setattr(pools, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(sweeps, "run_point", fail)
    store = Store(tmp_path / "store")
    assert len(sweeps.sweep(tiny, store)) == 0
    assert sweeps.status(store).failed == 4
    assert next(iter(sweeps.failures(store))).endswith("KeyError: 'a slip in the engine'")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("buffers_kib: [512]", "buffers_kib: [0.25]"),
            "buffers.wgt_kib = 0.25: one tile of 'query' (1 x 16 x 16) needs 288 bytes and a slot",
        ),
        (("weights: fp16", "weights: fp166"), "policy.weights = 'fp166': no such format; did you mean 'fp16'?"),
        (("pe: int8-mac", "pe: int9-mac"), "unknown PE; did you mean 'int8-mac'?"),
        (("[16, 16]", "[0, 16]"), "machines.array[0][0] = 0: must be greater than or equal to 1; space.yaml, line 4"),
        (("workload:", "worklaod:"), "worklaod: unknown key; did you mean 'workload'?"),
        (("opt-1.3b", "opt-1.3"), "did you mean 'opt-1.3b'?"),
    ],
)
def test_bad_space_is_refused_before_any_work(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(TINY.replace(*change))
    with pytest.raises(BitwrightError) as caught:
        sweeps.sweep(path, tmp_path / "store")
    assert message in str(caught.value)
    assert not (tmp_path / "store" / "rows").exists()


def test_command_of_a_row_computes_it_again(tiny: Space, tmp_path: Path) -> None:
    row = sweeps.sweep(tiny, tmp_path / "store", workers=2).to_dict("records")[1]
    words = shlex.split(row["command"])
    assert words[0] == "bitwright"
    done = subprocess.run([sys.executable, "-m", "bitwright.cli", *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    same = [name for name in row if name not in ("key", "hashes", "notes", "space_name")]
    assert {name: again[name] for name in same} == {name: row[name] for name in same}


def test_the_timing_of_dram_is_an_axis(tmp_path: Path) -> None:
    """Rows of both timings, in order; each row has the cycles of its own machine, by the other engine."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("[[16, 16], [32, 32]]", "[[16, 16]], dram: [hbm2e], dram_timing: [bandwidth, banks]"))
    space = spaces.load(path)
    table = sweeps.sweep(space, tmp_path / "store", workers=1)
    assert list(table["dram_timing"]) == ["bandwidth", "banks"] * 2
    for (_, row), point in zip(table.iterrows(), space.points(), strict=True):
        alone = simulate(
            point.machine, point.model, policy=point.policy, prompt_tokens=4, output_tokens=1, engine="simpy"
        )
        assert row["cycles"] == alone.cycles
        assert ("--dram-timing banks" in row["command"]) == (point.machine.dram_timing is DramTiming.BANKS)
    by_bandwidth, by_banks = table["cycles"][:2]
    assert by_bandwidth != by_banks
    assert table["wait_rows_cycles"][0] == 0 < table["wait_rows_cycles"][1]


def test_a_memory_without_timings_is_refused_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("[512]", "[512], dram: [hbm2e, gddr6], dram_timing: [bandwidth, banks]"))
    with pytest.raises(BitwrightError) as caught:
        sweeps.sweep(spaces.load(path), tmp_path / "store", workers=1)
    assert str(caught.value) == (
        "dram = gddr6: no rows and banks are known of it (dram_timing: banks): known: ddr4-3200-x16, ddr4-3200-x64, "
        "hbm2, hbm2e, hbm3, lpddr5-6400-x64; "
        "in `designs`: pe int8-mac, formats {weights: int8, acts: int8, kv: int8}"
    )
    assert not (tmp_path / "store").exists()
