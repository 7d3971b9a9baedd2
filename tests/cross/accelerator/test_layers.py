"""Real layers of SmolLM2 on the accelerator's RTL: bytes as the interpreter's, cycles as both simulators'."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from accelerator_views import check, compiled, tile_machine
from bitwright.arch import formats, machine
from bitwright.arch.fixed_memory import FixedMemory
from bitwright.arch.formats.base import Encoded
from bitwright.arch.isa import to_bytes
from bitwright.arch.isa.interpreter import run as interpret
from bitwright.arch.isa.limits import Limits, limits
from bitwright.workloads import checkpoint, linear, texts
from bitwright.workloads.attention import AttentionRule
from bitwright.workloads.checkpoint import Checkpoint
from bitwright.workloads.layout import OUT_REGION
from bitwright.workloads.lowering import lower
from bitwright.workloads.operands import operand
from bitwright.workloads.transformer import DecoderLayer

Layers = dict[str, tuple[np.ndarray, np.ndarray]]
TOKENS = 16


@pytest.fixture(scope="module")
def layer_0() -> Layers:
    """q and down of layer 0, each with the inputs of 16 tokens."""
    return layers(checkpoint.load("smollm2-135m"))


def layers(smollm2: Checkpoint) -> Layers:
    stream = stream_of(smollm2)
    seen: dict[str, np.ndarray] = {}

    def keep(what: str, acts: np.ndarray) -> None:
        seen[what] = acts.copy()

    layer = DecoderLayer(smollm2, linear.Fp16Rule("fp16", None), AttentionRule("fp16", "fp16"), 1, TOKENS, keep)
    layer.run(0, stream)
    inputs = {"layers.0.q": "layers.0.attn_input", "layers.0.down": "layers.0.down_input"}
    return {name: (smollm2.weight(name), seen[what]) for name, what in inputs.items()}


def stream_of(smollm2: Checkpoint) -> np.ndarray:
    """The input of layer 0."""
    text = texts.load("jargon").content[:400]
    ids = smollm2.tokenizer.encode(text, add_special_tokens=False).ids[:TOKENS]
    return smollm2.embedding(np.asarray(ids, np.int64))


def run_layer(
    name: str, form: str, group: int | None, weights: np.ndarray, inputs: np.ndarray, timing: FixedMemory
) -> str:
    """A matrix by some tokens; what was seen."""
    lim = limits(tile_machine(name) if name.startswith("lut") else machine.load(name), formats=[form])
    return run_on(lim, name, form, group, weights, inputs, timing)


def run_on(
    lim: Limits, name: str, form: str, group: int | None, weights: np.ndarray, inputs: np.ndarray, timing: FixedMemory
) -> str:
    """As `run_layer` on these limits, of which `name` is the machine's."""
    encoded = formats.get(form).encode(weights, group=group, scale_format=lim.scale_format)
    acts = operand(lim, form, inputs)
    lowered = lower(encoded, acts, lim)
    done = check(lim, lowered.program, lowered.memory, timing)
    memory = [region.copy() for region in lowered.memory]
    interpret(lowered.program, lim, memory)
    left = acts.values.astype(np.float64) * (1 if acts.scales is None else acts.scales)
    right = formats.get(form).decode(encoded).astype(np.float64).T
    exact = left @ right
    error = np.abs(lowered.layout.read(memory[OUT_REGION]) - exact)
    # Floating-point PEs round weights (fp16-mac: fp16((code - zero) * scale)) or aligned products to 11 bits.
    relative = 2.0**-11 if lim.pe.act.kind == "float" else 2.0**-20
    assert (error <= relative * (np.abs(left) @ np.abs(right))).all()
    distance = error.max() / np.sqrt(np.mean(exact**2))
    return (
        f"{name} {form} {weights.shape[0]}x{weights.shape[1]}, {len(inputs)} tokens, latency {timing.latency_cycles}, "
        f"{timing.beat_cycles} cycles a beat: {done.counters.cycles} cycles, difference 0; "
        f"largest distance to float64 {distance:.1e} of the outputs' rms"
    )


@pytest.mark.parametrize("tokens", [1, TOKENS])
@pytest.mark.parametrize("matrix", ["layers.0.q", "layers.0.down"])
def test_a_projection_and_an_ffn_matrix(
    layer_0: Layers, matrix: str, tokens: int, record_property: Callable[[str, object], None]
) -> None:
    weights, inputs = layer_0[matrix]
    record_property("figure", run_layer("int8-8x8", "int4_asym", 32, weights, inputs[-tokens:], FixedMemory()))


class OnTheAccelerator(linear.IntegerRule):
    """Matrix products by the compiled Verilog, all the rest as `IntegerRule`."""

    def __init__(self, lim: Limits, form: str, group: int) -> None:
        super().__init__(form, group, pass_depth=lim.slice_steps)
        self._lim, self._form, self._group_length = lim, form, group
        self._encoded: dict[int, tuple[linear.Operand, Encoded]] = {}
        self.cycles = 0

    def encode_weights(
        self, weight: np.ndarray, what: str, codes: Encoded | None = None
    ) -> tuple[linear.Operand, linear.SquaredError]:
        encoded = formats.get(self._form).encode(weight, group=self._group_length)
        operand, error = super().encode_weights(weight, what, codes=encoded)
        self._encoded[id(operand)] = operand, encoded
        return operand, error

    def multiply(self, acts: linear.Operand, weights: linear.Operand) -> np.ndarray:
        lowered = lower(self._encoded[id(weights)][1], acts, self._lim)
        memory = [region.copy() for region in lowered.memory]
        done = compiled(self._lim).run(to_bytes(lowered.program), memory, FixedMemory())
        assert done.fault is None
        self.cycles += done.counters.cycles
        assert lowered.pass_depth == self._lim.slice_steps
        return lowered.layout.read(memory[OUT_REGION])


def test_a_whole_transformer_block_equals_the_quantised_forward(record_property: Callable[[str, object], None]) -> None:
    """q, k, v, o, gate, up and down on the RTL; softmax, norms, rotation and SwiGLU on the host."""
    smollm2 = checkpoint.load("smollm2-135m")
    lim = limits(machine.load("int8-8x8"), formats=["int4_asym"])
    attention = AttentionRule("fp16", "fp16")
    rules = OnTheAccelerator(lim, "int4_asym", 32), linear.IntegerRule("int4_asym", 32, pass_depth=lim.slice_steps)
    streams = []
    for rule in rules:
        stream = stream_of(smollm2)
        before = stream.copy()
        DecoderLayer(smollm2, rule, attention, 1, TOKENS).run(0, stream)
        assert (stream != before).any()
        streams.append(stream)
    assert rules[0].cycles > 500_000
    np.testing.assert_array_equal(streams[0].view(np.uint32), streams[1].view(np.uint32))
    record_property("figure", f"block of SmolLM2, {TOKENS} tokens, int8-8x8: {rules[0].cycles} cycles, every bit equal")
