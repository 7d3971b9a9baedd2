# amaranth: UnusedElaboratable=no
"""The buffers' compiled memories against plain arrays, in every cycle of random reads and writes."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.back import verilog as backend
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In
from bitwright.arch.errors import ConfigError
from bitwright.rtl.accelerator import memories
from bitwright.rtl.accelerator.banks import AccMemory, BeatBanks
from bitwright.rtl.bench.verilator import Compiled, lint
from bitwright.rtl.bench.words import from_integers, word_count
from bitwright.rtl.pe.emit import plain

BANKS = [(1, 64, 1, 1), (2, 64, 4, 1), (5, 64, 1, 2), (37, 64, 2, 1), (40, 128, 4, 2), (45, 256, 8, 1)]
ACC = [(1, 64), (9, 96), (16, 512)]
MEMORIES: list[tuple[type, tuple[int, ...]]] = [
    *((BeatBanks, arguments) for arguments in BANKS),
    *((AccMemory, sizes) for sizes in ACC),
]


@cache
def text_of(kind: type, *arguments: int) -> str:
    text: str = backend.convert(kind(*arguments), name="memory", emit_src=False)
    return text


def label(kind: type, arguments: tuple[int, ...]) -> str:
    return "_".join([kind.__name__.lower(), *map(str, arguments)])


@cache
def compiled() -> Compiled:
    """Every memory side by side, ports `<label>_<port>`: one compilation."""
    m, ports = Module(), []
    for kind, arguments in MEMORIES:
        made, name = kind(*arguments), label(kind, arguments)
        m.submodules[name] = made
        for port, member in made.signature.members.items():
            outside, inside = Signal(member.shape, name=f"{name}_{port}"), getattr(made, port)
            m.d.comb += inside.eq(outside) if member.flow == In else outside.eq(inside)
            ports.append(outside)
    text = memories.verilog(m, "bench", least_bits=0, ports=ports)
    return Compiled(plain(text), "bench", optimise="-O0")


def run(kind: type, arguments: tuple[int, ...], inputs: dict[str, Any], seed: int) -> dict[str, npt.NDArray[Any]]:
    """The outputs of one memory."""
    name = label(kind, arguments)
    with compiled().open(random_state=True, seed=seed) as running:
        out = running.run({f"{name}_{port}": values for port, values in inputs.items()})
    return {port.removeprefix(f"{name}_"): values for port, values in out.items() if port.startswith(f"{name}_")}


def words(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint32]:
    """An output as words [cycles, word_count], of a port of any width."""
    return values if bits > 64 else from_integers(values, bits)


def random_words(rng: np.random.Generator, count: int, bits: int) -> npt.NDArray[np.uint32]:
    return rng.integers(0, 1 << 32, (count, word_count(bits)), dtype=np.uint32)


def port_values(values: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[Any]:
    """Words as an input port of that width takes them."""
    return values if bits > 64 else np.ascontiguousarray(values).view(np.uint64)[:, 0]


class Shown:
    """What a read port shows: the words of its last read, and which of them are known."""

    def __init__(self, bits: int) -> None:
        self.value = np.zeros(word_count(bits), np.uint32)
        self.known = np.zeros(word_count(bits), bool)
        self.checked = 0

    def check(self, got: npt.NDArray[np.uint32], where: str) -> None:
        wrong = self.known & (got != self.value)
        assert not wrong.any(), f"{where}: shows {got}, must be {self.value} where {self.known}"
        self.checked += int(self.known.all())


@pytest.mark.parametrize(("depth", "bits", "banks", "ports"), BANKS)
@pytest.mark.parametrize("seed", [1, 2])
def test_banks_give_beats_in_a_row_and_keep_them(depth: int, bits: int, banks: int, ports: int, seed: int) -> None:
    rng, cycles = np.random.default_rng(seed), 1500
    writes = {
        "en": rng.random(cycles) < 0.5,
        "slot": rng.integers(0, 2, cycles),
        "beat": rng.integers(0, depth, cycles),
    }
    data = random_words(rng, cycles, bits)
    prefixes = [f"r{port or ''}" for port in range(ports)]
    reads = {
        prefix: {
            "en": rng.random(cycles) < 0.6,
            "slot": rng.integers(0, 2, cycles),
            "beat": rng.integers(0, depth, cycles),
        }
        for prefix in prefixes
    }
    inputs: dict[str, Any] = {f"w_{name}": values for name, values in writes.items()}
    inputs["w_data"] = port_values(data, bits)
    inputs |= {f"{prefix}_{name}": values for prefix in prefixes for name, values in reads[prefix].items()}
    out = run(BeatBanks, (depth, bits, banks, ports), inputs, seed)
    got = {prefix: words(out[f"{prefix}_data"], banks * bits) for prefix in prefixes}

    per_beat = word_count(bits)
    contents = np.zeros((2, depth + banks, per_beat), np.uint32)
    written = np.zeros((2, depth + banks), bool)
    shown = {prefix: Shown(banks * bits) for prefix in prefixes}
    for cycle in range(cycles):
        for prefix, read in reads.items():
            shown[prefix].check(got[prefix][cycle], f"{prefix}, seed {seed}, cycle {cycle}")
            if read["en"][cycle]:
                slot, beat = read["slot"][cycle], read["beat"][cycle]
                shown[prefix].value = contents[slot, beat : beat + banks].reshape(-1).copy()
                shown[prefix].known = np.repeat(written[slot, beat : beat + banks], per_beat)
        if writes["en"][cycle]:
            slot, beat = writes["slot"][cycle], writes["beat"][cycle]
            contents[slot, beat], written[slot, beat] = data[cycle], True
    for prefix, port in shown.items():
        assert depth <= banks or port.checked > cycles // 2, f"{prefix} showed too little"


@pytest.mark.parametrize(("rows", "bits"), ACC)
@pytest.mark.parametrize("seed", [1, 2])
def test_accumulators_of_two_users_on_two_slots(rows: int, bits: int, seed: int) -> None:
    rng, cycles = np.random.default_rng(seed), 1500
    mine = np.cumsum(rng.random(cycles) < 0.05) % 2  # the slot of x; v has the other
    en = {port: rng.random(cycles) < share for port, share in (("x_r", 0.6), ("x_w", 0.6), ("v_r", 0.5))}
    row = {port: rng.integers(0, rows, cycles) for port in en}
    row["x_w"] = np.where(rng.random(cycles) < 0.3, row["x_r"], row["x_w"])  # now and then the row that is read
    slot = {"x_r": mine, "x_w": mine, "v_r": 1 - mine}
    data = random_words(rng, cycles, bits)
    inputs: dict[str, Any] = {"x_w_data": port_values(data, bits)}
    for port in en:
        inputs |= {f"{port}_en": en[port], f"{port}_row": row[port], f"{port}_slot": slot[port]}
    out = run(AccMemory, (rows, bits), inputs, seed)

    contents, written = np.zeros((2, rows, word_count(bits)), np.uint32), np.zeros((2, rows), bool)
    shown = {"x_r": Shown(bits), "v_r": Shown(bits)}
    source = {"x_r": 0, "v_r": 0}
    for cycle in range(cycles):
        for port, other in (("x_r", "v_r"), ("v_r", "x_r")):
            shown[port].check(words(out[f"{port}_data"], bits)[cycle], f"{port}, seed {seed}, cycle {cycle}")
            if en[port][cycle]:
                source[port] = at = slot[port][cycle]
                shown[port].value = contents[at, row[port][cycle]].copy()
                shown[port].known = np.full(word_count(bits), written[at, row[port][cycle]])
            elif en[other][cycle] and slot[other][cycle] == source[port]:
                shown[port].known[:] = False
        if en["x_w"][cycle]:
            contents[mine[cycle], row["x_w"][cycle]] = data[cycle]
            written[mine[cycle], row["x_w"][cycle]] = True
    assert min(port.checked for port in shown.values()) > cycles // 2


def test_members_of_further_read_ports() -> None:
    members = list(BeatBanks(8, 64, 2, read_ports=3).signature.members)
    assert members == [
        *("w_en", "w_slot", "w_beat", "w_data"),
        *("r_en", "r_slot", "r_beat", "r_data"),
        *("r1_en", "r1_slot", "r1_beat", "r1_data"),
        *("r2_en", "r2_slot", "r2_beat", "r2_data"),
    ]


@pytest.mark.parametrize(("kind", "arguments"), MEMORIES)
def test_verilator_finds_no_fault_and_nothing_starts_as_zero(kind: type, arguments: tuple[int, ...]) -> None:
    """As in silicon: what was not written is unknown, so that the tests above would see who reads it."""
    text = plain(memories.verilog(kind(*arguments), "memory", least_bits=0))
    assert "initial" in text_of(kind, *arguments)
    assert "initial begin" not in text
    assert lint(text, "memory") == []


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (BeatBanks, (0, 64, 1), "banks depth_beats = 0: must be in 1..65536"),
        (BeatBanks, (65537, 64, 1), "banks depth_beats = 65537: must be in 1..65536"),
        (BeatBanks, (8, 64, 3), "banks banks = 3: must be a power of two"),
        (BeatBanks, (8, 64, 0), "banks banks = 0: must be a power of two"),
        (AccMemory, (0, 64), "accumulators rows = 0: must be in 1..65536"),
    ],
)
def test_what_cannot_be(kind: type, arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        kind(*arguments)
    assert str(error.value) == message
