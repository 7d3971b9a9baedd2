"""BitMoD's own simulator model: cycles and energy of five accelerators on any model shape.

A layer is one matrix product; layers do not overlap, and a layer takes the longer of its compute and its DRAM cycles:

    tiles      = ceil(reduction / lanes) * ceil(outputs / rows) * ceil(tokens / columns)
    compute    = tiles * latency;  latency = ceil(floor(bits) / 2) of a bit-serial PE, else 1
    DRAM       = floor((f_w W + f_i I + O) / 32 bytes a cycle);  W, I, O in bytes
    energy     = 1.5 e_PE PEs compute + tiles (read W + read I) + SRAM words written + 18.75 pJ a DRAM bit

f_w, f_i: when W and I both exceed their 512 KiB buffer, the cheaper of reading all of W again for every buffer-full of
I and all of I again for every buffer-full of W; else 1. `Rules` replaces one simplification at a time (`TRAPS` names
them); all of them off is the authors' model.

Source: Chen et al., BitMoD, HPCA 2025 (arXiv 2411.11745), figures 7 and 8; its artifact abdelfattah-lab/BitMoD-HPCA-25
at commit 58d7bdb, the version whose counts the paper plots. The 60 published cycle counts come out bit-identical and
the 120 energies within 1 uJ (tests/reports/papers/test_bitmod.py).
Not modelled, as in theirs: fill and drain of the array, DRAM latency, rows and refresh, softmax and other element-wise
work, leakage, idle PEs, biases, token embeddings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median

from bitwright.arch.errors import ConfigError, suggest
from bitwright.reports.papers.traps import Trap
from bitwright.workloads.shapes import ModelShape

TOKENS = 256  # of the prompt; also the context of the decoded token
BUFFER_BYTES = 512 * 1024  # each of the weight and the activation buffer
DRAM_BYTES_PER_CYCLE = 32  # a 128-bit bus, two transfers a cycle, 1 GHz
DRAM_PJ_PER_BYTE = 1200 / 8
ACT_BITS = 16
ROUTED = 1.5  # a PE's energy after placement and routing over that before
WORD_BITS = 64  # of an SRAM write
GROUP = 128  # weights that share a scale and a special value
SELECTOR_BITS = 2  # a group: which special value
PSUM_BYTES = 4

# pJ of one access (read, write) to a 512 KiB buffer of 8 banks, one read and one write port, by its width in bits.
# Source: HewlettPackard/cacti (CACTI 7.0) with the artifact's configuration: 28 nm, itrs-hp, 360 K; run 2026-11-23.
SRAM_PJ = {
    192: (66.57808, 43.3184),
    256: (70.0928, 51.71784),
    288: (72.59616, 54.1192),
    384: (82.8304, 64.04792),
    512: (92.7944, 83.3536),
    576: (107.696, 89.3432),
    1024: (138.4416, 156.0904),
}


class Task(StrEnum):
    """What is run: a prompt of 256 tokens, or one token at context 256."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True)
class Accelerator:
    """One of the five machines compared.

    lanes : multiply-accumulates a PE makes a step.
    prefill, decode : (rows, columns) of the array; a row is an output channel, a column a token.
    prefill_bits, decode_bits : of a weight; where the authors profiled them a model, `profiled_bits` holds theirs and
        `decode_bits` is the median over the six models, for any other.
    """

    name: str
    lanes: int
    pe_energy_pj: float
    pe_area_um2: float
    prefill: tuple[int, int]
    decode: tuple[int, int]
    prefill_bits: float
    decode_bits: float
    bit_serial: bool = False
    profiled_bits: tuple[tuple[str, float], ...] = ()

    def array(self, task: Task) -> tuple[int, int]:
        """(rows, columns) for `task`."""
        return self.prefill if task is Task.PREFILL else self.decode

    def weight_bits(self, model: str, task: Task) -> float:
        """Bits of a weight, scales included as the authors count them."""
        if task is Task.PREFILL:
            return self.prefill_bits
        return dict(self.profiled_bits).get(model, self.decode_bits)


MODELS = ("opt-1.3b", "phi-2", "yi-6b", "llama-2-7b", "llama-2-13b", "llama-3-8b")
_ANT_BITS = (5.0, 5.0, 5.25, 5.0, 5.0, 4.5)
_OLIVE_BITS = (3.875, 4.0, 4.25, 3.75, 3.75, 3.5)
ACCELERATORS = {
    item.name: item
    for item in (
        Accelerator("fp16", 1, 0.77, 1968.7, (32, 24), (64, 12), 16.0, 16.0),
        Accelerator(
            "ant", 1, 0.56, 1318.6, (32, 32), (64, 16), 5.5, median(_ANT_BITS),
            profiled_bits=tuple(zip(MODELS, _ANT_BITS, strict=True)),
        ),
        Accelerator(
            "olive", 1, 0.613, 1318.6, (36, 32), (72, 16), 4.5, median(_OLIVE_BITS),
            profiled_bits=tuple(zip(MODELS, _OLIVE_BITS, strict=True)),
        ),
        Accelerator("bitmod-lossless", 4, 0.56, 1507.7, (32, 32), (64, 16), 6.0625, 6.0625, bit_serial=True),
        Accelerator("bitmod-lossy", 4, 0.56, 1507.7, (32, 32), (64, 16), 4.0625, 3.0625, bit_serial=True),
    )
}  # fmt: skip


def accelerator(name: str) -> Accelerator:
    """The accelerator called `name`; ConfigError with the closest one when there is none."""
    try:
        return ACCELERATORS[name]
    except KeyError:
        raise ConfigError(
            f"accelerator = {name!r}: not one of bitmod's; {suggest(name, ACCELERATORS)}; the command line"
        ) from None


def task(name: str) -> Task:
    """The task called `name`; ConfigError when there is none."""
    if name not in set(Task):
        raise ConfigError(f"task = {name!r}: not one of bitmod's; {suggest(name, list(Task))}; the command line")
    return Task(name)


@dataclass(frozen=True)
class Rules:
    """Which simplifications of the authors are replaced. All off: the published model.

    selector_bits : BitMoD's 2-bit selector a group of 128 weights is stored and moved.
    equal_kv : K and V are INT8 on every machine, and a bit-serial PE takes 4 cycles for them; theirs are 16 bits that a
        bit-serial PE handles in the cycles of a 3, 4 or 6-bit weight.
    real_attention : scores and values are products over the whole context, a head at a time, K and V read once a KV
        head; theirs reads K once a query head and V once in all, of the decoded token alone.
    equal_area : columns are cut or added until every array has at most the area of the FP16 one.
    better_tiling : partial sums of 32 bits may stay in the activation buffer, so that neither operand need be whole.
    """

    selector_bits: bool = False
    equal_kv: bool = False
    real_attention: bool = False
    equal_area: bool = False
    better_tiling: bool = False


PUBLISHED = Rules()
CORRECTED = Rules(True, True, True, True, True)


@dataclass(frozen=True)
class Layer:
    """out[tokens, outputs] = input[tokens, input_width] against a stationary [outputs, reduction], `count` times.

    `input_width` differs from `reduction` only in the authors' attention. Bits of an operand: `wgt_bits` and `act_bits`
    as moved, `stored_bits` of the stationary one as the SRAM writes count it.
    """

    outputs: int
    reduction: int
    input_width: int
    tokens: int
    count: int
    wgt_bits: float
    stored_bits: float
    act_bits: int = ACT_BITS
    latency: int = 1

    @property
    def wgt_bytes(self) -> int:
        """Of the stationary operand, each output's padded to a byte."""
        return math.ceil(self.reduction * self.wgt_bits / 8) * self.outputs

    @property
    def act_bytes(self) -> int:
        """Of the other operand."""
        return math.ceil(self.input_width * self.act_bits / 8) * self.tokens

    @property
    def out_bytes(self) -> int:
        """Of the result."""
        return 2 * self.outputs * self.tokens


@dataclass(frozen=True)
class Figures:
    """What the model says of one machine, model and task. `cycles` is the sum over layers of the longer of the two."""

    cycles: int
    compute_cycles: int
    dram_cycles: int
    dram_bytes: int
    energy_pe_uj: float
    energy_sram_uj: float
    energy_dram_uj: float

    @property
    def energy_onchip_uj(self) -> float:
        """PEs and buffers."""
        return self.energy_pe_uj + self.energy_sram_uj

    @property
    def energy_uj(self) -> float:
        """All of it."""
        return self.energy_onchip_uj + self.energy_dram_uj


def serial_cycles(bits: float) -> int:
    """Cycles of a bit-serial PE for one weight of `bits`: half of its whole bits, rounded up."""
    return math.ceil(math.floor(bits) / 2)


def layers(machine: Accelerator, shape: ModelShape, job: Task, rules: Rules) -> list[Layer]:
    """Every product of one step: the weight matrices, then two of attention."""
    tokens = TOKENS if job is Task.PREFILL else 1
    bits = machine.weight_bits(shape.name, job)
    latency = serial_cycles(bits) if machine.bit_serial else 1
    if rules.selector_bits and machine.bit_serial:
        bits += SELECTOR_BITS / GROUP
    linear = [
        Layer(item.n, item.k, item.k, tokens, item.count, bits, bits, latency=latency) for item in shape.matmuls()
    ]
    return linear + _attention(shape, tokens, bits, latency, machine.bit_serial, rules)


def _attention(
    shape: ModelShape, tokens: int, bits: float, latency: int, bit_serial: bool, rules: Rules
) -> list[Layer]:
    kv_bits = 8 if rules.equal_kv else ACT_BITS
    if rules.equal_kv and bit_serial:
        latency = serial_cycles(kv_bits)
    if rules.real_attention:
        rows, count = tokens * shape.heads // shape.kv_heads, shape.layers * shape.kv_heads
        real = ((TOKENS, shape.head_dim), (shape.head_dim, TOKENS))
        return [Layer(n, k, k, rows, count, kv_bits, kv_bits, latency=latency) for n, k in real]
    # The authors' roles: query or scores stand still, K or V stream; the width is a fraction where heads do not divide.
    width = math.ceil(shape.hidden * shape.kv_heads / shape.heads)
    scores = shape.heads * tokens
    sizes = ((tokens, shape.hidden, scores), (scores, TOKENS, tokens))
    return [
        Layer(n, k, width, rows, shape.layers, ACT_BITS, bits, act_bits=kv_bits, latency=latency)
        for n, k, rows in sizes
    ]


def columns(machine: Accelerator, job: Task, rules: Rules) -> int:
    """Columns of the array: the published ones, or as many as the FP16 array's area holds."""
    rows, cols = machine.array(job)
    if not rules.equal_area:
        return cols
    base = ACCELERATORS["fp16"]
    return max(1, int(math.prod(base.array(job)) * base.pe_area_um2 / (rows * machine.pe_area_um2)))


def refetches(layer: Layer, rules: Rules, lanes: int) -> tuple[int, int]:
    """How often the stationary and the streaming operand are read from DRAM."""
    wgt, act = layer.wgt_bytes, layer.act_bytes
    if wgt <= BUFFER_BYTES or act <= BUFFER_BYTES:
        return 1, 1
    every_act, every_wgt = -(-act // BUFFER_BYTES), -(-wgt // BUFFER_BYTES)
    choices = [(1, every_wgt), (every_act, 1)]  # of two equal ones the authors take the first
    if rules.better_tiling:
        choices += _psum_tiles(layer, lanes)
    return min(choices, key=lambda often: often[0] * wgt + often[1] * act)


def _psum_tiles(layer: Layer, lanes: int) -> list[tuple[int, int]]:
    """(f_w, f_i) of tiles whose sums wait in the activation buffer while slices of both operands pass, two of each."""
    depth = min(layer.reduction, max(GROUP, lanes))
    found = []
    for pieces in range(1, layer.tokens + 1):
        tokens = -(-layer.tokens // pieces)
        room = BUFFER_BYTES - 2 * tokens * math.ceil(depth * layer.act_bits / 8)
        by_wgt = BUFFER_BYTES // (2 * math.ceil(depth * layer.wgt_bits / 8))
        outputs = min(layer.outputs, room // (PSUM_BYTES * tokens), by_wgt)
        if outputs > 0:
            found.append((-(-layer.tokens // tokens), -(-layer.outputs // outputs)))
    return found


def sram_pj(width_bits: float) -> tuple[float, float]:
    """(read, write) of one access; between the widths of `SRAM_PJ` a straight line, beyond them in proportion."""
    known = sorted(SRAM_PJ)
    low = max((width for width in known if width <= width_bits), default=known[0])
    high = min((width for width in known if width >= width_bits), default=known[-1])
    if low >= high:  # an exact width, or outside the table
        return SRAM_PJ[low][0] * width_bits / low, SRAM_PJ[low][1] * width_bits / low
    part = (width_bits - low) / (high - low)
    read, write = (a + part * (b - a) for a, b in zip(SRAM_PJ[low], SRAM_PJ[high], strict=True))
    return read, write


def evaluate(machine: Accelerator, shape: ModelShape, job: Task, rules: Rules = PUBLISHED) -> Figures:
    """Cycles and energy of `shape` on `machine` under `rules`."""
    rows, cols = machine.array(job)[0], columns(machine, job, rules)
    # Bits that a buffer gives a step; a bit-serial PE takes at least two cycles for them.
    half = 2 if machine.bit_serial else 1
    wgt_width = machine.lanes * math.ceil(machine.weight_bits(shape.name, job) / 4) * 4 * rows / half
    act_width = machine.lanes * ACT_BITS * cols / half
    (wgt_read, wgt_write), (act_read, act_write) = sram_pj(wgt_width), sram_pj(act_width)
    wgt_word, act_word = wgt_write * WORD_BITS / wgt_width, act_write * WORD_BITS / act_width
    cycles = compute = dram = moved = tiles = 0
    written_pj = 0.0
    for layer in layers(machine, shape, job, rules):
        count = layer.count
        layer_tiles = -(-layer.reduction // machine.lanes) * -(-layer.outputs // rows) * -(-layer.tokens // cols)
        wgt_often, act_often = refetches(layer, rules, machine.lanes)
        layer_bytes = wgt_often * layer.wgt_bytes + act_often * layer.act_bytes + layer.out_bytes
        layer_compute, layer_dram = layer_tiles * layer.latency, layer_bytes // DRAM_BYTES_PER_CYCLE
        cycles += count * max(layer_compute, layer_dram)
        compute, dram = compute + count * layer_compute, dram + count * layer_dram
        moved, tiles = moved + count * layer_bytes, tiles + count * layer_tiles
        wgt_words = math.ceil(layer.reduction * layer.stored_bits / WORD_BITS) * layer.outputs
        act_words = math.ceil(layer.input_width * layer.act_bits / WORD_BITS) * layer.tokens
        out_words = math.ceil(layer.outputs * ACT_BITS / WORD_BITS) * layer.tokens
        written_pj += count * (wgt_word * wgt_words * wgt_often + act_word * (act_words * act_often + out_words))
    return Figures(
        cycles=cycles,
        compute_cycles=compute,
        dram_cycles=dram,
        dram_bytes=moved,
        energy_pe_uj=ROUTED * machine.pe_energy_pj * rows * cols * compute / 1e6,
        energy_sram_uj=(tiles * (wgt_read + act_read) + written_pj) / 1e6,
        energy_dram_uj=DRAM_PJ_PER_BYTE * moved / 1e6,
    )


TRAPS = (
    Trap(
        "selector bits charged",
        replace(PUBLISHED, selector_bits=True),
        "the simulator stores 8 bits a group of 128 (3.0625); the 2-bit selector of the special value makes it 3.078",
    ),
    Trap(
        "KV at equal precision",
        replace(PUBLISHED, equal_kv=True),
        "K and V INT8 everywhere, as the paper's text asks, 4 cycles on a bit-serial PE; the simulator moves 16 bits "
        "and computes them in a 3, 4 or 6-bit weight's cycles",
    ),
    Trap(
        "real attention shapes",
        replace(PUBLISHED, real_attention=True),
        "K and V of the whole context, read once a KV head; the simulator charges K as one row a query head and V as "
        "one row when it decodes, and K once a query head in prefill",
    ),
    Trap(
        "equal-area arrays",
        replace(PUBLISHED, equal_area=True),
        "columns that fit the FP16 array's area: as published ANT has 11 % less, OliVe and BitMoD 0.5 and 2 % more",
    ),
    Trap(
        "better tiling",
        replace(PUBLISHED, better_tiling=True),
        "a tile of 32-bit sums in the activation buffer instead of reading a whole operand again a buffer-full",
    ),
)
