"""Our models of MULT18X18D and DP16KD against numpy, as Lattice describes them (FPGA-TN-02205, FPGA-TN-02204)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import pytest
from bitwright.arch.errors import ToolError
from bitwright.rtl.bench.verilator import Compiled
from netlists import OWN_ECP5

CYCLES = 20_000
WORDS, WORD_BITS = 1024, 18


def wrapped(cell: str, parameters: Mapping[str, str], inputs: Mapping[str, int], outputs: Mapping[str, int]) -> str:
    """A module `top` whose ports are vectors of the cell's pins; a pin of one bit has no number."""
    ports = [("input", name, bits) for name, bits in inputs.items()]
    ports += [("output", name, bits) for name, bits in outputs.items()]
    pins = [
        f".{name}{at if bits > 1 else ''}({name.lower()}{f'[{at}]' if bits > 1 else ''})"
        for _, name, bits in ports for at in range(bits)
    ]  # fmt: skip
    settings = ", ".join(f".{name}({value})" for name, value in parameters.items())
    body = [f"module top(clk, {', '.join(name.lower() for _, name, _ in ports)});", "  input clk;", "  wire clk;"]
    for way, name, bits in ports:
        size = f"[{bits - 1}:0] " if bits > 1 else ""
        body += [f"  {way} {size}{name.lower()};", f"  wire {size}{name.lower()};"]
    clocks = ", .CLKA(clk), .CLKB(clk)" if cell == "DP16KD" else ""
    body += [f"  {cell} #({settings}) tested (", f"    {', '.join(pins)}{clocks});", "endmodule"]
    return "\n".join(body) + "\n" + OWN_ECP5.read_text()


MULTIPLIER = {"A": 18, "B": 18, "SRIA": 18, "SRIB": 18, "C": 18, "SIGNEDA": 1, "SIGNEDB": 1, "SOURCEA": 1, "SOURCEB": 1}


def test_products_of_corners_and_random_operands_in_every_mode() -> None:
    design = Compiled(wrapped("MULT18X18D", {}, MULTIPLIER, {"P": 36}), "top", optimise="-O0")
    draw = np.random.default_rng(20261123)
    corners = np.array([0, 1, 2, (1 << 17) - 1, 1 << 17, (1 << 17) + 1, (1 << 18) - 2, (1 << 18) - 1])
    a, b = (side.ravel() for side in np.meshgrid(corners, corners))
    a, b = (np.concatenate([side, draw.integers(0, 1 << 18, CYCLES)]) for side in (a, b))
    for mode in range(16):
        signed_a, signed_b, shift_a, shift_b = (mode >> bit & 1 for bit in range(4))
        other = draw.integers(0, 1 << 18, (3, len(a)))
        pins = {
            "sria" if shift_a else "a": a, "a" if shift_a else "sria": other[0], "srib" if shift_b else "b": b,
            "b" if shift_b else "srib": other[1], "c": other[2], "signeda": signed_a, "signedb": signed_b,
            "sourcea": shift_a, "sourceb": shift_b,
        }  # fmt: skip
        with design.open() as simulation:
            got = simulation.run(pins)["p"]
        values = [np.where(sign & side >> 17, side - (1 << 18), side) for sign, side in ((signed_a, a), (signed_b, b))]
        np.testing.assert_array_equal(got, (values[0] * values[1]) & ((1 << 36) - 1), f"mode {mode:04b}")


class Ram:
    """DP16KD in numpy: 2,048 bytes of 9 bits; of a port with 4 bits and fewer, the lowest 8 of each count.

    Independent of the model: addresses are of bits, and a port's word is a slice of a flat array of bits.
    """

    def __init__(self, width_a: int, width_b: int, mode_a: str, mode_b: str, words: np.ndarray) -> None:
        self.widths, self.modes = (width_a, width_b), (mode_a, mode_b)
        self.bits = (words[:, None] >> np.arange(WORD_BITS) & 1).astype(bool).reshape(-1)
        self.outputs = [0, 0]

    def places(self, port: int, address: int) -> np.ndarray:
        """Which bits a port's address means, lowest first."""
        width = self.widths[port]
        if width >= 9:  # 2**14 addresses of a bit; a word has width / 9 * 8 of those
            word = address // (width // 9 * 8)
            return np.arange(width) + word * width
        byte, within = divmod(address // width * width, 8)
        return np.arange(width) + (9 * byte + within)

    def written(self, port: int, pins: Mapping[str, int]) -> np.ndarray:
        """Bits of the port's word that it writes."""
        width = self.widths[port]
        if not pins["ce"] or pins["cs"] or not pins["we"] or (port == 1 and self.widths[0] == 36):
            return np.zeros(width, bool)
        enables = np.repeat([pins["ad"] >> lane & 1 for lane in range(max(width // 9, 1))], min(width, 9)).astype(bool)
        return enables if width >= 18 else np.ones(width, bool)

    def step(self, ports: tuple[Mapping[str, int], Mapping[str, int]]) -> None:
        places = [self.places(port, pins["ad"]) for port, pins in enumerate(ports)]
        masks = [self.written(port, pins) for port, pins in enumerate(ports)]
        changed = [set(place[mask].tolist()) for place, mask in zip(places, masks, strict=True)]
        before = self.bits.copy()
        for port, pins in enumerate(ports):
            if pins["rst"]:
                self.outputs[port] = 0
            elif pins["ce"] and not pins["cs"]:
                writes = pins["we"] and not (port == 1 and self.widths[0] == 36)
                if not (writes and self.modes[port] == "NORMAL"):
                    seen = [before[at] ^ (at in changed[1 - port]) for at in places[port].tolist()]
                    self.outputs[port] = sum(int(bit) << at for at, bit in enumerate(seen))
            di = pins["di"] | ports[1]["di"] << 18  # a port of 36 bits has the data pins of both
            data = np.array([di >> at & 1 for at in range(self.widths[port])], bool)
            self.bits[places[port][masks[port]]] = data[masks[port]]


PORT = {"DI": 18, "AD": 14, "CE": 1, "OCE": 1, "WE": 1, "RST": 1, "CS": 3}
KINDS = [
    (1, 1, "NORMAL", "NORMAL"),
    (2, 2, "READBEFOREWRITE", "READBEFOREWRITE"),
    (4, 9, "NORMAL", "READBEFOREWRITE"),
    (9, 9, "READBEFOREWRITE", "READBEFOREWRITE"),
    (18, 18, "READBEFOREWRITE", "READBEFOREWRITE"),
    (18, 2, "NORMAL", "NORMAL"),
    (36, 36, "NORMAL", "NORMAL"),
    (36, 9, "NORMAL", "NORMAL"),
]


@lru_cache
def ram(kind: tuple[int, int, str, str], seed: int) -> tuple[Compiled, np.ndarray]:
    words = np.random.default_rng(seed).integers(0, 1 << WORD_BITS, WORDS)
    rows = [sum(int(word) << 20 * at for at, word in enumerate(words[row * 16 : row * 16 + 16])) for row in range(64)]
    parameters = {
        "DATA_WIDTH_A": f"{kind[0]}", "DATA_WIDTH_B": f"{kind[1]}", "WRITEMODE_A": f'"{kind[2]}"',
        "WRITEMODE_B": f'"{kind[3]}"', **{f"INITVAL_{at:02X}": f"320'h{row:080x}" for at, row in enumerate(rows)},
    }  # fmt: skip
    inputs = {(name[:2] + port + name[2:] if name in ("DI", "AD", "CS") else name + port): bits
              for port in "AB" for name, bits in PORT.items()}  # fmt: skip
    text = wrapped("DP16KD", parameters, inputs, {"DOA": 18, "DOB": 18})
    return Compiled(text, "top", optimise="-O0"), words


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def test_reads_and_writes_of_both_ports(kind: tuple[int, int, str, str]) -> None:
    """Few addresses, so that ports meet; then all of the memory read back."""
    cycles = CYCLES // 5
    design, words = ram(kind, sum(kind[:2]))
    draw = np.random.default_rng(kind[0] * 100 + kind[1])
    model = Ram(*kind, words)
    pins: dict[str, np.ndarray] = {}
    for port in "ab":
        near = draw.integers(0, 256, cycles)
        pins[f"ad{port}"] = np.where(draw.random(cycles) < 0.8, near, draw.integers(0, 1 << 14, cycles))
        pins[f"di{port}"] = draw.integers(0, 1 << 18, cycles)
        pins[f"cs{port}"] = np.where(draw.random(cycles) < 0.9, 0, draw.integers(1, 8, cycles))
        pins[f"oce{port}"] = draw.integers(0, 2, cycles)  # of the output register, which is not there
        for name, share in (("ce", 0.9), ("we", 0.5), ("rst", 0.02)):
            pins[f"{name}{port}"] = (draw.random(cycles) < share).astype(np.int64)
    both = [model.places(port, int(pins["ad" + "ab"[port]][at])) for at in range(cycles) for port in (0, 1)]
    meet = np.array([np.isin(both[2 * at], both[2 * at + 1]).any() for at in range(cycles)])
    pins["web"] &= ~(meet & (pins["wea"] == 1)).astype(np.int64)  # two writes of one bit: Lattice promises nothing
    expected = []
    for at in range(cycles):
        model.step(tuple({name[:-1]: int(row[at]) for name, row in pins.items() if name[-1] == port} for port in "ab"))
        expected.append(list(model.outputs))
    # Behind the last clock edge of a cycle its outputs are those of the next; the reset acts at once.
    last = {name: np.append(row, 0) for name, row in pins.items()}
    every = np.arange(0, 1 << 14, 8) if kind[1] >= 9 else np.arange(0, 1 << 14, kind[1])
    read = {name: np.zeros(len(every) + 1, np.int64) for name in pins}
    read["adb"][:-1], read["ceb"][:-1] = every, 1
    with design.open(random_state=True, seed=7) as simulation:
        got = simulation.run(last)
        back = simulation.run(read)
    resets = [np.append(pins[f"rst{port}"][1:], 0).astype(bool) for port in "ab"]
    values = [output(kind, got, port, 1) for port in (0, 1)]
    for port in (0, 1):
        if port == 0 and kind[0] == 36:
            continue  # only writes
        wanted = np.array([row[port] for row in expected])
        np.testing.assert_array_equal(values[port], np.where(resets[port], 0, wanted), f"port {'AB'[port]}")
    wanted = []
    for address in every.tolist():
        wanted.append(sum(int(bit) << at for at, bit in enumerate(model.bits[model.places(1, address)])))
    np.testing.assert_array_equal(output(kind, back, 1, 1), wanted)


def output(kind: tuple[int, int, str, str], got: Mapping[str, np.ndarray], port: int, first: int) -> np.ndarray:
    """What a port shows from cycle `first` on; 36 bits come out of both ports' pins."""
    low, high = got["doa"][first:].astype(np.int64), got["dob"][first:].astype(np.int64)
    return low | high << 18 if port == 1 and kind[1] == 36 else (low, high)[port] & ((1 << kind[port]) - 1)


@pytest.mark.parametrize(
    ("cell", "parameters", "refused"),
    [
        ("MULT18X18D", {"REG_INPUTA_CLK": '"CLK0"'}, "MULT18X18D_input_registers_are_not_modelled"),
        ("MULT18X18D", {"REG_OUTPUT_CLK": '"CLK0"'}, "MULT18X18D_pipeline_and_output_registers_are_not_modelled"),
        ("MULT18X18D", {"MULT_BYPASS": '"ENABLED"'}, "MULT18X18D_this_mode_is_not_modelled"),
        ("DP16KD", {"REGMODE_B": '"OUTREG"'}, "DP16KD_output_registers_are_not_modelled"),
        ("DP16KD", {"RESETMODE": '"SYNC"'}, "DP16KD_a_synchronous_reset_is_not_modelled"),
        ("DP16KD", {"CSDECODE_A": '"0b001"'}, "DP16KD_chip_selects_are_not_modelled"),
        ("DP16KD", {"CLKBMUX": '"INV"'}, "DP16KD_inverted_clocks_are_not_modelled"),
        ("DP16KD", {"WRITEMODE_A": '"WRITETHROUGH"'}, "DP16KD_this_write_mode_is_not_modelled"),
        ("DP16KD", {"DATA_WIDTH_A": "9", "DATA_WIDTH_B": "36"}, "DP16KD_this_width_is_not_modelled"),
        ("DP16KD", {"WEAMUX": '"INV"'}, "WEAMUX"),
    ],
)
def test_what_a_model_does_not_have_ends_elaboration(cell: str, parameters: dict[str, str], refused: str) -> None:
    text = wrapped(cell, parameters, {}, {"P": 36} if cell == "MULT18X18D" else {"DOA": 18})
    with pytest.raises(ToolError, match=re.escape(refused)):
        Compiled(text, "top")
