"""MixPE's own simulator model: cycles and energy of six designs at batch 64 on any model shape.

A layer is out[64, n] = act[64, k] . wgt[n, k] (a vision model's patch embedding is a convolution), both operands of the
same width. On an array of N rows and M columns, with p = floor(widest / width) operands a PE a dimension:

    compute = ceil(64 / (N p)) ceil(n / (M p)) k        cycles = compute + stalls of the best tiling (`mixpe_tiling`)

The layers of a model of width h: h -> 3h, h -> h, h -> 4h, 4h -> h, whatever the model, each with a matrix that stands
for dequantisation: n/8 outputs for everyone but MixPE, and n/128 outputs of k/8 inputs for MixPE. `Rules` replaces one
simplification at a time; all off is the authors' model.

Source: Zhang et al., MixPE (arXiv 2411.16158), artifact yuzhang712/mixpe_simulator at 7e0d42c (its configurations,
layer lists, synthesis and CACTI tables). Every number of its result file comes out to the digits printed
(tests/reports/papers/test_mixpe.py). Not modelled, as in theirs: attention, the LM head, fill and drain of the array.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from bitwright.arch.errors import ConfigError, suggest
from bitwright.reports.papers import dense, mixpe_tiling
from bitwright.reports.papers.mixpe_tiling import Array, Counts, Layer
from bitwright.reports.papers.traps import Trap
from bitwright.workloads import shapes
from bitwright.workloads.shapes import ModelShape

BATCH = 64
CLOCK_HZ = 500e6
DRAM_BITS_PER_CYCLE = 1024
DEQUANT_PART = 8  # baselines: one more output for 8 of a layer
MIXPE_WEIGHT_BITS = 4
MIXPE_DEQUANT = (8, 128)  # MixPE: an eighth of the inputs, an output for 128 of a layer

# nJ a bit, of CACTI at 28 nm as the artifact's cacti_sweep.csv has it: 4 KiB and 8 KiB banks of 512 bits, 128 B of 32.
WGT_READ_NJ, WGT_WRITE_NJ = 0.0168924 / 512, 0.0203422 / 512
ACT_READ_NJ, ACT_WRITE_NJ = 0.0177688 / 512, 0.0248866 / 512
OUT_READ_NJ, OUT_WRITE_NJ = 0.000294945 / 32, 0.000415925 / 32
SRAM_LEAK_NJ = (2.96594 * 32 + 5.4983 * 32 + 0.127708 * 1024) * 1e6 / CLOCK_HZ  # a cycle; mW of a bank, banks
DRAM_READ_NJ, DRAM_WRITE_NJ = 0.644304 / 1024, 0.784104 / 1024
DRAM_STATIC_NJ = 484.615 / 500  # a cycle
# Another set that the artifact's search breaks ties with: read, write and static.
TIE_NJ = (1.18294 / 1024, 1.47797 / 1024, 3838.05 / 500000)
# nW of one PE, dynamic and leakage, by (widest, narrowest) operand: results/systolic_array_synth.csv.
PE_NW = {(8, 4): (279960, 64314), (16, 16): (839982, 192942), (16, 8): (544982, 128458)}


@dataclass(frozen=True)
class Design:
    """One of the six. `bits` : of a layer's operands; `wide_part` : of the layers, how many have the widest instead.

    `wide_part` counts layers // wide_part blocks (ANT: 5) or, with `only_projection`, leaves all but the attention's
    output projection of every second block wide (BitFusion).
    """

    name: str
    rows: int
    cols: int
    widest: int
    narrowest: int
    bits: int
    act_bits: int
    wide_part: int = 0
    only_projection: bool = False
    mixpe: bool = False


DESIGNS = {
    item.name: item
    for item in (
        Design("fp16", 32, 28, 16, 16, 16, 16),
        Design("int8", 32, 32, 8, 4, 8, 8),
        Design("bitfusion", 32, 40, 8, 4, 4, 4, wide_part=2, only_projection=True),
        Design("ant", 32, 32, 8, 4, 4, 4, wide_part=5),
        Design("mixpe-w4a8", 64, 64, 8, 4, 4, 8, mixpe=True),
        Design("mixpe-w4a16", 32, 32, 16, 8, 8, 16, mixpe=True),
    )
}


def design(name: str) -> Design:
    """The design called `name`; ConfigError with the closest one when there is none."""
    try:
        return DESIGNS[name]
    except KeyError:
        raise ConfigError(
            f"accelerator = {name!r}: not one of mixpe's; {suggest(name, DESIGNS)}; the command line"
        ) from None


@dataclass(frozen=True)
class Net:
    """What the authors' layer lists depend on: blocks, width, and whether a 16 x 16 patch embedding comes first."""

    name: str
    layers: int
    hidden: int
    patches: bool = False


VISION = {"vit": Net("vit", 12, 768, True), "vit-huge": Net("vit-huge", 32, 1280, True)}
MODELS = ("vit", "vit-huge", "opt-6.7b", "llama-2-13b")


def net(name: str) -> tuple[Net, ModelShape | None]:
    """The net called `name`, and its shape if it is a language model; ConfigError for an unknown name."""
    if name in VISION:
        return VISION[name], None
    if name not in shapes.names():
        raise ConfigError(
            f"model = {name!r}: no such shape; {suggest(name, (*VISION, *shapes.names()))}; the command line"
        )
    shape = dense("mixpe", name)
    return Net(name, shape.layers, shape.hidden), shape


@dataclass(frozen=True)
class Rules:
    """Which simplifications of the authors are replaced. All off: the published model.

    own_bits : MixPE's weights have 4 bits and its activations 8 or 16, in memory and in the array.
    no_dequant_layers : dequantisation is not a matrix product.
    equal_pes : MixPE-W4A8 has 32 x 32 PEs like ANT and INT8, not 64 x 64.
    full_rows : twice the batch, which fills the 128 rows of MixPE-W4A8; figures for 64 of its 128.
    own_matrices : the model's matrices instead of 12 h^2 a block: grouped K and V, gate, feed-forward width.
    """

    own_bits: bool = False
    no_dequant_layers: bool = False
    equal_pes: bool = False
    full_rows: bool = False
    own_matrices: bool = False


PUBLISHED = Rules()
CORRECTED = Rules(True, True, True, True, True)


def layers(machine: Design, model: Net, shape: ModelShape | None, rules: Rules) -> list[Layer]:
    """Every layer with how often it comes, in the order of a block."""
    batch = BATCH * (2 if rules.full_rows else 1)
    wide = machine.act_bits if machine.mixpe else machine.widest
    found = []
    if model.patches:
        found.append(Layer(batch, 3, model.hidden, wide, wide, 1, kernel=16, out=14))
    h = model.hidden
    matrices = [("qkv", h, 3 * h), ("o", h, h), ("up", h, 4 * h), ("down", 4 * h, h)]
    if rules.own_matrices and shape is not None:
        q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        matrices = [("qkv", h, q + 2 * kv), ("o", q, h), ("up", h, shape.ffn), ("down", shape.ffn, h)]
        matrices += [("gate", h, shape.ffn)] if shape.gated_ffn else []
    for name, k, n in matrices:
        for bits, count in _widths(machine, name, model.layers):
            widths = (MIXPE_WEIGHT_BITS, machine.act_bits) if machine.mixpe and rules.own_bits else (bits, bits)
            found.append(Layer(batch, k, n, *widths, count))
        if not rules.no_dequant_layers:
            inputs, outputs = (
                (k // MIXPE_DEQUANT[0], n // MIXPE_DEQUANT[1]) if machine.mixpe else (k, n // DEQUANT_PART)
            )
            if inputs and outputs:
                found.append(Layer(batch, inputs, outputs, wide, wide, model.layers))
    return found


def _widths(machine: Design, matrix: str, blocks: int) -> list[tuple[int, int]]:
    """(bits, how many) of one matrix over all blocks."""
    if machine.wide_part == 0:
        return [(machine.bits, blocks)]
    few = blocks // machine.wide_part
    if machine.only_projection:
        narrow = few if matrix == "o" else 0
        return [item for item in ((machine.bits, narrow), (machine.widest, blocks - narrow)) if item[1]]
    return [item for item in ((machine.bits, blocks - few), (machine.widest, few)) if item[1]]


@dataclass(frozen=True)
class Figures:
    """What the model says. `cycles` are compute and stalls; `dram_cycles` those of all traffic at peak bandwidth.

    `compute_cycles` is the formula above of whole layers, `stall_cycles` what the tiling adds. Of a halved batch of 128
    (`Rules.full_rows`) half cycles are rounded up.
    """

    cycles: int
    compute_cycles: int
    dram_cycles: int
    stall_cycles: int
    energy_static_uj: float
    energy_dram_uj: float
    energy_buffer_uj: float
    energy_core_uj: float

    @property
    def energy_uj(self) -> float:
        """All four parts."""
        return self.energy_static_uj + self.energy_dram_uj + self.energy_buffer_uj + self.energy_core_uj


@cache
def evaluate(machine: Design, model: Net, shape: ModelShape | None = None, rules: Rules = PUBLISHED) -> Figures:
    """Cycles and energy of 64 rows through `model` on `machine` under `rules`."""
    if rules.equal_pes and machine.name == "mixpe-w4a8":
        machine = replace(machine, rows=32, cols=32)
    dynamic, leakage = (nw * machine.rows * machine.cols / CLOCK_HZ for nw in PE_NW[machine.widest, machine.narrowest])
    array = Array(machine.rows, machine.cols, machine.widest, machine.narrowest)

    def tie_nj(counts: Counts) -> object:
        read, write, static = TIE_NJ
        return (
            counts.cycles * (leakage + SRAM_LEAK_NJ + static)
            + (counts.cycles - counts.stalls) * dynamic
            + _buffer_nj(counts)
            + counts.dram_read * read
            + counts.dram_write * write
        )

    total = Counts.zero()
    compute = dram = 0
    for layer in layers(machine, model, shape, rules):
        counts = mixpe_tiling.best(array, layer, tie_nj)
        total = total.plus(counts, layer.count)
        compute += layer.count * mixpe_tiling.compute_cycles(array, layer)
        dram += layer.count * -(-(counts.dram_read + counts.dram_write) // DRAM_BITS_PER_CYCLE)
    part = 2 if rules.full_rows else 1
    return Figures(
        cycles=-(-total.cycles // part),
        compute_cycles=-(-compute // part),
        dram_cycles=-(-dram // part),
        stall_cycles=-(-(total.cycles - compute) // part),
        energy_static_uj=total.cycles * DRAM_STATIC_NJ / 1e3 / part,
        energy_dram_uj=(total.dram_read * DRAM_READ_NJ + total.dram_write * DRAM_WRITE_NJ) / 1e3 / part,
        energy_buffer_uj=_buffer_nj(total) / 1e3 / part,
        energy_core_uj=(total.cycles * leakage + (total.cycles - total.stalls) * dynamic) / 1e3 / part,
    )


def _buffer_nj(counts: Counts) -> float:
    energy: float = (
        counts.wgt_read * WGT_READ_NJ
        + counts.wgt_write * WGT_WRITE_NJ
        + counts.act_read * ACT_READ_NJ
        + counts.act_write * ACT_WRITE_NJ
        + counts.out_read * OUT_READ_NJ
        + counts.out_write * OUT_WRITE_NJ
    )
    return energy


TRAPS = (
    Trap(
        "operands at their own width",
        replace(PUBLISHED, own_bits=True),
        "W4A8 is run as 4-bit weights on 4-bit activations, W4A16 as 8 on 8: twice the rows a PE and half the traffic",
    ),
    Trap(
        "no dequantisation layers",
        replace(PUBLISHED, no_dequant_layers=True),
        "dequantisation is charged as a matrix product of n/8 outputs (+12.5 %) to everyone, FP16 included, but MixPE",
    ),
    Trap(
        "as many PEs as ANT and INT8",
        replace(PUBLISHED, equal_pes=True),
        "W4A8 has 64 x 64 PEs where the others have 32 x 32; the artifact gives every PE the area 1",
    ),
    Trap(
        "a batch that fills the rows",
        replace(PUBLISHED, full_rows=True),
        "batch 64 leaves half of W4A8's 128 rows idle; here batch 128, figures halved",
    ),
    Trap(
        "the model's own matrices",
        replace(PUBLISHED, own_matrices=True),
        "every model is 12 h^2 weights a block: Llama-2-13B without gate and 20,480 wide instead of 3 x 13,824",
    ),
)
