"""`make campaign-fpga`: a decode step of SmolLM2 and every family of machines through a board's link.

The decode step: every matrix product on the compiled accelerator of a board's machine before the timing of its block
RAM, through the host driver and the link's frames, tile after tile; the board is `board_model`, whose runs are those of
the Verilog. Any bit of the logits that is not the quantised numpy model's fails. Prints cycles, bytes over the line,
and the tokens a second that they predict.

The families: the board top's Verilog behind a pseudo-terminal, both kinds of block RAM, each output compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from bitwright.arch import machine as machines
from bitwright.arch.isa.limits import limits
from bitwright.arch.isa.placement import Placement
from bitwright.fpga import boards
from bitwright.fpga.host.decoding import OnBoard, Prediction, decode_step
from bitwright.fpga.host.driver import Accelerator
from bitwright.fpga.host.link import Link
from bitwright.fpga.host.running import run
from bitwright.fpga.memory import timing
from bitwright.fpga.simulated import SimulatedBoard
from bitwright.rtl.accelerator.top import opened, verilog
from bitwright.rtl.bench.accelerator_runner import CompiledAccelerator
from bitwright.workloads import checkpoint, linear, texts
from bitwright.workloads.attention import AttentionRule
from board_model import BoardModel, Outcome, TestBoard

CONTEXT = 16
BAUDS = (1_000_000, 2_000_000, 3_000_000)
SMALLEST = str(Path(__file__).parents[2] / "examples" / "int8-2x2-board.yaml")
STEPS = [("ulx3s-85f", "int8-8x8", "int4_asym", 32), ("tang-nano-20k", SMALLEST, "int8", None)]


@pytest.mark.parametrize(("board_name", "machine_name", "form", "group"), STEPS, ids=[step[0] for step in STEPS])
def test_decode_step(board_name: str, machine_name: str, form: str, group: int | None) -> None:
    facts, machine = boards.get(board_name), machines.load(machine_name)
    if machine.name == "int8-8x8":
        machine = machines.with_changes(machine, buffers_kib="16,16,16")
    machine = machine.model_copy(update={"formats": (form,)})
    lim = limits(machine)
    module, text = verilog(lim, **opened(machine))
    compiled = CompiledAccelerator(text, module, lim, optimise="-O2")
    memory = timing(facts.single_port_memory)

    def runner(words: bytes, regions: Sequence[np.ndarray], placement: Placement, watchdog: int) -> Outcome:
        done = compiled.run(words, regions, memory, placement=placement, watchdog=watchdog, max_cycles=10**9)
        return done.fault, done.index, done.counters

    model = BoardModel(machine, facts, runner=runner)
    board = Accelerator(Link(model, "model", 10**9, timeout_s=10))
    smollm2 = checkpoint.load("smollm2-135m")
    content = texts.load("jargon").content[:400]
    tokens = np.asarray(smollm2.tokenizer.encode(content, add_special_tokens=False).ids[:CONTEXT], np.int64)
    attention = AttentionRule("fp16", "fp16")

    def show(stage: str, done: int, total: int) -> None:
        sent = board.statistics.bytes_sent
        print(f"{stage} {done}/{total}: {rule.cycles} cycles, {rule.runs} runs, {sent} bytes sent", flush=True)

    numpy_logits = decode_step(smollm2, linear.IntegerRule(form, group, pass_depth=lim.slice_steps), attention, tokens)
    whole_groups = decode_step(smollm2, linear.IntegerRule(form, group), attention, tokens)
    rule = OnBoard(board, lim, form, group)
    logits = decode_step(smollm2, rule, attention, tokens, show)
    np.testing.assert_array_equal(logits.view(np.uint32), numpy_logits.view(np.uint32))
    assert int(logits.argmax()) == int(whole_groups.argmax())
    statistics = board.statistics
    print(
        f"{machine.name} on {facts.name}, {form}, group {group}, context {CONTEXT}: next token {int(logits.argmax())} "
        f"({smollm2.tokenizer.decode([int(logits.argmax())])!r}) as numpy's, every bit of the logits; {rule.cycles} "
        f"cycles in {rule.runs} runs, {statistics.bytes_sent} bytes to the board, {statistics.bytes_received} back"
    )
    for baud in BAUDS:
        found = Prediction(rule.cycles, facts.clock_hz, statistics.bytes_sent, statistics.bytes_received, baud)
        print(
            f"at {facts.clock_hz / 1e6:g} MHz and {baud / 1e6:g} Mbaud {found.compute_s:.2f} s + {found.link_s:.1f} s: "
            f"{found.tokens_per_s:.6f} tokens/s, the link's share {100 * found.link_share:.2f} %"
        )


LUT = machines.Machine.model_validate(
    {"name": "lut-4x4", "pe": "lut:weight_bits=4,depth=16384", "array": {"rows": 4, "cols": 4, "dataflow": "os"}}
)
FAMILIES = [
    ("fp16-4x4", "int4_asym", 32),
    ("int8-4x4", "int8", None),
    ("int8-4x4-os", "int4", 64),
    ("shift-add-4x4", "int4_asym", 64),
    ("outlier-victim-4x4", "ovp4", 64),
    ("bit-serial-4x4", "bitmod_fp4", 128),
    (LUT, "int4_asym", 32),
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: getattr(family[0], "name", family[0]))
def test_every_family_of_machines(family: tuple[machines.Machine | str, str, int | None]) -> None:
    which, form, group = family
    loaded = machines.load(which) if isinstance(which, str) else which
    small = machines.with_changes(loaded, buffers_kib="4,4,4").model_copy(update={"formats": (form,)})
    for single_port in (False, True):
        facts = TestBoard(single_port_memory=single_port, memory_bytes=32768)
        with SimulatedBoard(small, facts) as board:
            row = run(small, board.port, 3, 320, 27, fmt=form, group=group, baud=115_200)
        assert row["outputs_equal"] == 81
        print(
            f"{small.name} {form}, {'one port' if single_port else 'two ports'}: {row['tiles']} tiles, {row['cycles']} "
            f"cycles, {row['bytes_sent']} bytes sent ({row['sent_again']} requests twice), "
            f"{row['outputs_equal']} outputs equal",
            flush=True,
        )
