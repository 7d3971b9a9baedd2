# amaranth: UnusedElaboratable=no
"""MemoryPort with all its users at once: who is served when; its pins; and faults that the memory's checks must see."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.back import verilog as backend
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.isa.instructions import Buffer, Load, Store
from bitwright.rtl.accelerator.load import LoadEngine
from bitwright.rtl.accelerator.memory_port import MemoryPort
from bitwright.rtl.accelerator.store import StoreEngine
from bitwright.rtl.bench.accelerator_driver import BusErrors, BusSimulation, CompiledWithMemory
from bitwright.rtl.bench.memory_engines import TOP, memory_engines_verilog
from bitwright.rtl.bench.memory_engines_runner import Scene, Seen, compiled_engines, run, stored_rows
from bitwright.rtl.bench.memory_model import FetchBurst, Job, play
from bitwright.rtl.bench.memory_scenes import random_memory, random_scene, read_bytes
from bitwright.rtl.bench.verilator import lint

SEED = 20261123
JOBS = 24


def check(scene: Scene, seen: Seen, memory: FixedMemory) -> None:
    """Everything that the golden says of a scene, but what Load writes, which test_load.py compares."""
    assert seen.load_starts == [job.start for job in scene.loads]
    assert seen.load_dones == [job.done for job in scene.loads]
    assert seen.store_starts == [job.start for job in scene.stores]
    assert seen.store_dones == [job.done for job in scene.stores]
    assert seen.fetch_taken == [job.taken[0] for job in scene.fetches]
    shown = []
    for job in scene.fetches:
        for place, data in enumerate(read_bytes(scene, job.work.address, job.work.beats)):
            cycle = job.bursts[0].first_beat + place * memory.beat_cycles + 1
            shown.append((cycle, data.tobytes(), place + 1 == job.work.beats))
    assert seen.fetched == shown
    idle = np.ones(len(seen.idle), dtype=bool)
    for job in (*scene.loads, *scene.stores, *scene.fetches):
        for taken, burst in zip(job.taken, job.bursts, strict=True):
            end = burst.last_beat if burst.response is None else burst.response
            idle[taken + 1 : end + 2] = False
    assert np.flatnonzero(seen.idle != idle).tolist() == []


@pytest.mark.parametrize("port_bytes", [8, 16, 32, 64])
@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
def test_all_users_at_once_are_served_in_the_cycles_of_the_golden(port_bytes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene, memory = random_scene(rng, port_bytes, JOBS, JOBS, JOBS), random_memory(rng)
    after = stored_rows(scene)
    seen = run(scene, memory, power_up_seed=seed)
    play(memory, scene.bases, port_bytes, 16, 16, scene.loads, scene.stores, scene.fetches)
    check(scene, seen, memory)
    for found, wanted in zip(scene.regions, after, strict=True):
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("outstanding", [(1, 1), (3, 2)])
def test_no_more_bursts_are_open_than_the_port_may_have(outstanding: tuple[int, int]) -> None:
    for seed in range(SEED, SEED + 4):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng, 8, JOBS, JOBS, JOBS)
        memory = FixedMemory(latency_cycles=int(rng.integers(1, 40)), reads=4, writes=4)
        seen = run(scene, memory, outstanding=outstanding)
        play(memory, scene.bases, 8, *outstanding, scene.loads, scene.stores, scene.fetches)
        check(scene, seen, memory)


def test_random_stalls_of_all_channels_change_nothing_that_is_read_or_written() -> None:
    for seed in range(SEED, SEED + 6):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng, 16, JOBS, JOBS, JOBS)
        after = stored_rows(scene)
        seen = run(scene, random_memory(rng), stalls_seed=seed, power_up_seed=seed)
        read = [(data, last) for _, data, last in seen.fetched]
        assert read == [
            (data.tobytes(), place + 1 == job.work.beats)
            for job in scene.fetches
            for place, data in enumerate(read_bytes(scene, job.work.address, job.work.beats))
        ], f"seed {seed}"
        assert all(np.array_equal(*pair) for pair in zip(scene.regions, after, strict=True)), f"seed {seed}"


def flat(loads: int = 0, stores: int = 0, fetches: int = 0) -> Scene:
    """Jobs of 8 beats that all are queued at once."""
    bases = tuple((index + 1) << 20 for index in range(4))
    regions = tuple(np.arange(8192, dtype=np.uint32).astype(np.uint8) for _ in bases)
    return Scene(
        8, bases, regions,
        [Job(Load(buffer=Buffer.ACT, beats=8, offset=8 * i), 1 + i) for i in range(loads)],
        [Job(Store(region=2, beats=8, offset=8 * i), 1 + i) for i in range(stores)],
        [Job(FetchBurst(bases[1] + 64 * i, 8), 1 + i) for i in range(fetches)],
    )  # fmt: skip


def test_the_fetcher_goes_first() -> None:
    scene = flat(loads=2, fetches=4)
    seen = run(scene, FixedMemory())
    assert seen.fetch_taken == [2, 3, 4, 5]
    assert [burst.address >> 20 for burst in seen.bursts] == [2, 2, 2, 2, 1, 1]


def test_an_error_goes_to_the_one_who_asked() -> None:
    scene = flat(loads=1, fetches=2)
    seen = run(scene, FixedMemory(), errors=BusErrors(read_beat=9))
    assert [burst.address >> 20 for burst in seen.bursts] == [2, 2, 1]
    assert seen.fetch_errors == [seen.fetched[9][0]]
    assert seen.load_errors == []


def test_what_is_constant_on_the_address_channels() -> None:
    design = compiled_engines(16)
    with BusSimulation(design, [], FixedMemory()) as simulation:
        simulation.reset()
        values = simulation.run({}, 8)
    constants = {"size": 4, "burst": 1, "cache": 2, "prot": 0}
    for channel in ("ar", "aw"):
        for name, value in constants.items():
            assert set(values[f"m_axi_{channel}{name}"].tolist()) == {value}
    assert set(values["m_axi_rready"].tolist()) == set(values["m_axi_bready"].tolist()) == {1}


MUTANTS = [
    ("wvalid", 1, "store_beats__valid", r"WVALID before the AWVALID of its burst"),
    ("arvalid", 1, "right & ~m_axi_rvalid", r"ARVALID dropped before ARREADY"),
    ("araddr", 40, "right ^ {m_axi_rvalid, 39'd0}", r"the payload of AR changed before ARREADY"),
    ("araddr", 40, "right + 40'd8", r"\d+ beats from 0x[0-9a-f]+ cross a multiple of 4096"),
]


@pytest.mark.parametrize(("pin", "bits", "wrong", "message"), MUTANTS)
def test_a_master_that_breaks_a_rule_is_noticed(pin: str, bits: int, wrong: str, message: str) -> None:
    """One output pin of the port is made wrong in the Verilog."""
    text = memory_engines_verilog(8)
    connection = f".m_axi_{pin}(m_axi_{pin})"
    assert text.count(connection) == 1
    text = text.replace(connection, f".m_axi_{pin}(right)")
    declaration = f"  wire {f'[{bits - 1}:0] ' if bits > 1 else ''}m_axi_{pin};\n"
    place = text.index(declaration) + len(declaration)
    text = (
        f"{text[:place]}{declaration.replace(f'm_axi_{pin}', 'right')}  assign m_axi_{pin} = {wrong};\n{text[place:]}"
    )
    design = CompiledWithMemory(text, TOP)
    scene = random_scene(np.random.default_rng(SEED), 8, JOBS, JOBS, JOBS)
    with pytest.raises(MismatchError, match=rf"^{TOP}: its AXI master breaks a rule in cycle \d+: {message}$"):
        run(scene, FixedMemory(), stalls_seed=SEED, design=design)


@pytest.mark.parametrize("component", [MemoryPort(16), LoadEngine(16), StoreEngine(16), StoreEngine(8)])
def test_verilog_is_clean(component: MemoryPort | LoadEngine | StoreEngine) -> None:
    text = backend.convert(component, name="top", emit_src=False)
    assert lint(text, "top") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port_bytes": 4}, "port_bytes = 4: must be 8, 16, 32 or 64"),
        ({"port_bytes": 8, "outstanding_reads": 0}, "outstanding_reads = 0: must be in 1..64"),
        ({"port_bytes": 8, "outstanding_writes": 65}, "outstanding_writes = 65: must be in 1..64"),
    ],
)
def test_a_parameter_out_of_range_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MemoryPort(**arguments)
    assert str(caught.value) == message
