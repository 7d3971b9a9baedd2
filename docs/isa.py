"""Writes docs/isa.md: the accelerator's instruction set, from its table of fields, and one worked program.

python docs/isa.py > docs/isa.md
"""

from __future__ import annotations

import numpy as np
from bitwright.arch import machine
from bitwright.arch.isa import assemble, encode, from_bytes, to_bytes
from bitwright.arch.isa.activation import ERRORS, GATE_BITS, RANGE_BITS, SEGMENT_BITS
from bitwright.arch.isa.faults import Fault
from bitwright.arch.isa.fields import LAYOUTS, OP_BITS, WORD_BITS, WORD_BYTES, Field, Layout
from bitwright.arch.isa.instructions import Function
from bitwright.arch.isa.interpreter import run
from bitwright.arch.isa.limits import limits
from bitwright.arch.isa.packing import pack, pack_par, to_beats

HEAD = f"""\
# The instruction set

<!-- written by docs/isa.py; do not edit -->
A program moves tiles of a matrix product through four units: **Load**, **Execute**, **Vector** and **Store**. The controller fetches instructions of
{WORD_BYTES} bytes in order and puts each into the queue of its unit; a unit takes its queue in order. `end` stops the fetch, and the program is done when every
queue is empty and every unit idle. A *beat* is as many bytes as the memory port moves in a cycle: 8, 16, 32 or 64.

`arch/isa/fields.py` holds the table behind this page; encoder, decoder, assembler and disassembler read the same one. For numbers and faults there is
a functional model: the interpreter and the validator of `arch/isa`.

## Channels

Units meet in channels. A channel has two slots of a fixed size: while one is filled, the other is used.
"""

CHANNELS: list[list[object]] = [
    ["act", "Load", "Execute", "activation vectors, each padded to whole beats", "a vector; in `load`, a beat"],
    ["wgt", "Load", "Execute", "weight codes, dense", "a beat"],
    [
        "par",
        "Load",
        "Execute",
        "scales of groups, each with its zero point code or selector where the format has one, dense",
        "a beat",
    ],
    ["vec", "Load", "Vector", "fp32 scales, biases and residuals", "a beat"],
    ["acc", "Execute", "Vector", "fp32 accumulators", "a row: one word a column"],
    ["out", "Vector", "Store", "results", "a beat"],
]

TOKENS = f"""\
A slot has one owner at a time, and flags pass it on:

- At the start the producer owns both slots. It fills one, and the instruction with the flag `hand` gives it to the consumer; the next one fills the other.
- The consumer uses the slot that came first, and the instruction with the flag `free_...` gives it back.
- An instruction waits until its unit owns every slot it uses. So results never depend on timing, and a program with a missing flag stops; it does
  not go wrong silently.
- A program loads from a region of memory or stores to it, never both.
- A slot is written from its start on without gaps, and nothing is read that was not written since the producer took it.

## What is in the slots

Bit fields are dense, the lowest bit first: of fields of b bits, field i is bits i b to i b + b - 1, and bit j is bit j mod 8 of byte j / 8.

- **act**, weight-stationary array: the reduction is cut into slices, at every multiple of `group` and, from there on, after as many elements as the array has
  rows. Vector `act_at` + s m + j holds slice s of token j, one element a row of the array. Output-stationary: vector `act_at` + e holds element e of all m
  tokens, and m is at most the rows of the array. What is in the lanes beyond a short slice, or beyond m, does not matter. A broadcast tile is
  output-stationary.
- **wgt**: k rows, each of one code a column.
- **par**: for every group, for every column, one field: the fp16 scale in its 16 lowest bits, the zero point code above it; for `bit-serial` the unsigned scale
  in its 8 lowest bits, the selector of the group's special value above it.
- **vec**: token scales are dense; a bias, or a scale `by_column`, is one fp32 a column; residual rows are padded to whole beats.
- **out**: rows padded to whole beats.

## Arithmetic

`execute` sums a slice as the PE does, ascending, from its zero; a zero point is taken off exactly. Then acc = fp32(acc + fp32(scale x sum)), slice after
slice; a float PE multiplies by weights fp16((code - zero) x scale), and acc = fp32(acc + sum). With `first`, acc starts from +0.

A *broadcast tile* (machines of `outlier-victim`, `lut`, `bit-serial`, `opt3` and `opt4c`) takes several elements of the reduction in a step: `lanes` of the PE, of lut its k. `group` must
be a multiple of them, or at least k, so that only the last step of an instruction may be short; what it misses counts as code 0, of both operands. Sums of
groups are the PE's own, whole, whatever their length:

- `outlier-victim`: an element is a byte of pairs: two 4-bit values, or one 8-bit value, whose pair is two elements, the first of an even number. k and `group`
  count bytes. Activations are pairs of the width of the weight format. A sum saturates as the PE's does; its overflow flag is not reported.
- `lut`: weights stand in the stored form of the PE's variant (`Lut.stored`), folded step by step; of signed formats with the sign bit inverted. A zero point
  is taken off exactly, before the scale. The scale of a bipolar format is held twice as large.
- `bit-serial`: activations are fp16. The PE scales a group itself (`BitSerial`), so acc = fp32(acc + fp32(scale x sum)) with its 8-bit scale; the fp16 scale of
  the column comes last, in `vector` with `by_column`.
- `opt3`, `opt4c`: weights are signed integers of up to 8 bits. A weight takes as many cycles as it has nonzero digits, at least 1; columns run apart within a
  step of 8 elements, which takes as many cycles as its slowest column. So cycles depend on the codes, values do not.

`vector` takes y = acc and does what its flags say, each step rounded to fp32: y x scale (its row's, or with `by_column` its column's), y + bias, the function, y + residual. Then it rounds once: to
int8, to nearest even and saturated to -127..127; to fp16, with overflow to infinity. NaN comes out as the one canonical NaN, as int8 as 0.

`relu` gives +0 where the sign is set. `silu` and `gelu` (with erf) give fp32(x gate): the gate, from 0 to 1 in steps of 2^-{GATE_BITS}, comes from {1 << SEGMENT_BITS}
parabolas over |x| < {1 << RANGE_BITS[Function.SILU]} and |x| < {1 << RANGE_BITS[Function.GELU]}, in the integers that `arch/isa/activation.py` spells out. Beyond, the result is x or -0; that of a tiny x is x / 2. The largest
error over all fp32 numbers is {ERRORS[Function.SILU].absolute:.1e} for `silu`, {ERRORS[Function.GELU].absolute:.1e} for `gelu`; from x = -1 up the relative error is at most {ERRORS[Function.SILU].relative:.1e} and {ERRORS[Function.GELU].relative:.1e}.
"""

MACHINE, PORT_BYTES, FORMAT = "int8-4x4", 8, "int4_asym"
TOKENS_M, K, COLS, GROUP = 3, 8, 4, 4
GEMM = """\
# out[3, 4] = act[3, 8] . wgt[4, 8], groups of 4. Region 0: act, 1: wgt and par, 2: token scales, 3: out.
load par hand region=1 offset=2 beats=3
load wgt hand region=1 beats=2
load act hand beats=6
load vec hand region=2 beats=2
execute format=2 first m=3 k=8 group=4 hand_acc free_act free_wgt free_par
vector fp16 scale m=3 hand free_acc free_vec
store region=3 rows=3 beats=1 stride=1 free_out
end
"""


def table(columns: list[str], rows: list[list[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def channels() -> str:
    return table(
        ["channel", "from", "to", "what it holds", "unit of its addresses"],
        [[f"`{name}`", *rest] for name, *rest in CHANNELS],
    )


def legal_values(field: Field) -> str:
    if field.choices is not None:
        return ", ".join(f"{int(item)} `{item.name.lower()}`" for item in field.choices)
    values = f"{field.least}..{field.most}"
    return f"{values}; 0 without `{field.only_with}`" if field.only_with else values


def default(layout: Layout, field: Field) -> str:
    defaults = layout.defaults()
    if field.name not in defaults:
        return "must be given"
    value = defaults[field.name]
    return f"`{field.choices(value).name.lower()}`" if field.choices is not None else str(value)


def instruction(layout: Layout) -> str:
    places = layout.lowest_bits()
    rows: list[list[object]] = []
    for field in layout.fields:
        low, high = places[field.name], places[field.name] + field.bits - 1
        bits = str(low) if low == high else f"{high}..{low}"
        rows.append([bits, f"`{field.name}`", field.unit, legal_values(field), default(layout, field), field.meaning])
    head = f"### `{layout.name}`, op {int(layout.op)}: {layout.meaning}\n"
    if not rows:
        return head
    return head + "\n" + table(["bits", "field", "unit", "legal values", "default", "meaning"], rows) + "\n"


def instructions() -> str:
    return f"""\
## Instructions

An instruction is a number of {WORD_BITS} bits, stored lowest byte first. Bits {OP_BITS - 1}..0 are the op; all bits that no field has are 0. Every other word is illegal.

""" + "\n".join(instruction(layout) for layout in LAYOUTS)


def faults() -> str:
    rows: list[list[object]] = [[int(fault), f"`{fault.name}`", fault.meaning] for fault in Fault]
    return f"""\
## Faults

The controller finds what an instruction alone shows when it fetches it, and fetches no further; a unit finds a read of what was not written when it starts
the instruction, and stops. The other units go on until nothing moves. Then the fault of the lowest instruction is the one that is reported, so it does not
depend on timing; with no fault and work left, it is a deadlock.

{table(["code in the error register", "fault", "meaning"], rows)}
"""


def memory() -> tuple[list[bytes], np.ndarray]:
    """The four regions before the run, and the results in float64."""
    act = np.arange(TOKENS_M * K, dtype=np.int8).reshape(TOKENS_M, K) - 10
    codes = (np.arange(K * COLS, dtype=np.uint8).reshape(K, COLS) * 5) % 16
    scales = np.array([[0.5, 0.25, 1, 2], [1, 0.5, 0.125, 0.25]], np.float16)
    zeros = np.array([[7, 8, 9, 8], [8, 7, 6, 8]], np.uint8)
    tokens = np.array([1, 0.5, 0.25], np.float32)
    slices = act.reshape(TOKENS_M, K // GROUP, GROUP).transpose(1, 0, 2)  # slice, token, row of the array
    vectors = b"".join(to_beats(vector.tobytes(), PORT_BYTES) for vector in slices.reshape(-1, GROUP))
    weights = to_beats(pack(codes, 4), PORT_BYTES) + to_beats(pack_par(scales, zeros, 4), PORT_BYTES)
    regions = [vectors, weights, to_beats(tokens.tobytes(), PORT_BYTES), bytes(TOKENS_M * PORT_BYTES)]
    exact = (codes - zeros.repeat(GROUP, axis=0).astype(float)) * scales.repeat(GROUP, axis=0)
    return regions, tokens[:, np.newaxis] * (act.astype(float) @ exact)


def hexadecimal(data: bytes, group: int) -> str:
    return f"`{data.hex(' ', -group)}`"


def worked_program() -> str:
    program = assemble(GEMM, "docs/isa.py")
    data = to_bytes(program)
    allowed = limits(machine.load(MACHINE), port_bytes=PORT_BYTES)
    before, exact = memory()
    regions = [np.frombuffer(region, np.uint8).copy() for region in before]
    outcome = run(from_bytes(data), allowed, regions)
    results = regions[3].view("<f2").reshape(TOKENS_M, COLS)
    if not outcome.legal or allowed.formats[2].name != FORMAT or not np.array_equal(results, exact):
        raise AssertionError(f"the worked program gives {results.tolist()}, must be {exact.tolist()}; {outcome}")
    lines = [text for text in GEMM.splitlines() if not text.startswith("#")]
    rows: list[list[object]] = [
        [f"`{text}`", hexadecimal(encode(item).to_bytes(WORD_BYTES, "little"), 4)]
        for text, item in zip(lines, program, strict=True)
    ]
    names = [
        "0: activations",
        "1: weights, then scales and zero points",
        "2: token scales",
        "3: results, after the run",
    ]
    stored = [*before[:3], regions[3].tobytes()]
    return f"""\
## A worked program

One column tile on the machine `{MACHINE}`, weight-stationary, with a port of {PORT_BYTES} bytes. Its format 2 is `{FORMAT}`: 4-bit codes, a scale and a 4-bit zero
point a group.

```
{GEMM}```

A line is an instruction: its name, then in any order the choices and flags by name and the numbers as `field=value`, decimal or after `0x`; `#` starts a comment.
What is left out has its default. The same program as the {len(data)} bytes that memory holds:

{table(["instruction", "bytes, lowest address first"], rows)}

A vector of 4 int8 activations takes one beat; 8 elements are 2 slices, so 3 tokens are 6 beats. Weights are 8 x 4 codes of 4 bits, 2 beats. 2 groups of 4 columns
are 8 scales and zero points of 16 + 4 bits, 20 bytes in 3 beats. 3 token scales of 4 bytes fill a beat and a half. A row of results is 4 x 2 bytes, one beat.
Memory, a beat a word:

{table(["region", "bytes, lowest address first"], [[name, hexadecimal(region, PORT_BYTES)] for name, region in zip(names, stored, strict=True)])}

The results, of which the last region is the fp16 code: {"; ".join(", ".join(f"{value:g}" for value in row) for row in results)}. They were made by the
interpreter, from the bytes above, and equal the product in float64 (these numbers need no rounding).
"""


if __name__ == "__main__":
    print("\n".join([HEAD, channels(), "", TOKENS, instructions(), faults(), worked_program()]), end="")
