"""Writes docs/traces.md: cycles of SmolLM2's real codes beside the Gaussian guess. About six minutes."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import reduce
from operator import add
from pathlib import Path

from bitwright.arch.pe.digits import ENCODINGS
from bitwright.arch.trace import Trace
from bitwright.sim import traced
from bitwright.workloads import models, tracing
from bitwright.workloads.data_cycles import CycleCounts, data_dependent, gaussian_like, weight_cycles
from bitwright.workloads.policy import FormatPolicy

MODEL = "smollm2-135m"
FORMATS = (("int8", None), ("int4", 64), ("int4_asym", 64), ("bitmod_fp4", 64))
HEAD = """# Traces: what a real model does

<!-- written by docs/traces.py; do not edit -->
A trace records a model on a prompt: the codes and scales of every weight matrix as the reference transformer used them, and
the inputs of every matrix at sampled positions. `arch/trace.py` is the schema and the reader, `workloads/tracing.py` the writer.

    bitwright trace smollm2-135m -o trace                       # int8, 128 tokens of the Jargon File; goes on if stopped
    bitwright simulate opt3-32x32 smollm2-135m --trace trace    # cycles from these codes
    bitwright simulate opt3-32x32 llama-2-7b --trace trace      # no weights: SmolLM2's statistics, labelled stand-in

| file | holds |
| --- | --- |
| `trace.json` | hashes of model, text and the other files, token ids, library versions, format policy, seed, command; written last |
| `layers.parquet` | a row a layer and operator: shapes, formats, root mean square and largest of weights and inputs, error of the codes |
| `layer-NNN.safetensors`, `head.safetensors` | `q.codes`, `q.scales`, ... as in `formats.base.Encoded`; `attn_input.acts`, ... float32 |

From Python: `bitwright.arch.trace.load("trace").codes("layers.3.q")`. Opening a trace compares every file with its sha256; a
damaged one is refused, and the message has the command that makes it again.

## Cycles from real codes

`opt3` and `opt4c` take one cycle a nonzero radix-4 digit of a weight, and one for the weight 0. No other PE's cycles depend on
the data: `bit-serial` takes the number of terms of its format's encoding, zero or not; `outlier-victim` one cycle a step of
4-bit codes and two a step of 8-bit ones, wherever the outliers are; none skips zeros of activations. The guess is what one does without
a trace: independent Gaussian weights of each tensor's root mean square in the same format. Mean cycles a weight over all
matrices of SmolLM2-135M (head included), by the PE's golden timing; most: of any weight. The Gaussian error is the guess over
the real mean, less one; the widest is that of the matrix where the guess is worst. (SmolLM2's file is Q4_1: its own
weights lie on a 4-bit grid of 32 values a block, which formats of other groups see rounded once more.)

| PE | digits | format | group | real mean | Gaussian mean | most | Gaussian error | widest, of |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""
ARRAY = """
## A worked example

`opt3-32x32`, int8 a row, 128 prompt tokens and 32 decode steps, weight matrices and head, array cycles only. A tile takes as long as the
longest of its columns. The last row asks how good a stand-in is where the truth is known: SmolLM2's shape without its weights.

| model | cycles from | array cycles | Gaussian guess | Gaussian error |
| --- | --- | --- | --- | --- |"""


def main() -> None:
    """Print the page."""
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        first = None
        for name, group in FORMATS:
            policy = FormatPolicy(pe="float32", weights=name, group=group, acts="int8")
            print(f"{name}", file=sys.stderr)
            trace = tracing.record(MODEL, Path(folder) / name, policy, tokens=16, samples=1)
            first = first or trace
            for encoding in ENCODINGS:
                _compare(trace, encoding, name, group)
        assert first is not None, "there are formats"
        print(ARRAY)
        _simulate(first, Path(folder))


def _compare(trace: Trace, encoding: str, name: str, group: int | None) -> None:
    spec = data_dependent("opt3", encoding=encoding)
    real, guess = [], []
    for index, row in enumerate(trace.operators.values()):
        real.append(CycleCounts.of(weight_cycles(spec, trace.codes(row.name))))
        like = gaussian_like((row.n, row.k), row.weight_rms, row.weight_format, row.group, (6, index))
        guess.append(CycleCounts.of(weight_cycles(spec, like)))
    errors = [b.mean / a.mean - 1 for a, b in zip(real, guess, strict=True)]
    worst = max(range(len(errors)), key=lambda index: abs(errors[index]))
    total, guessed = reduce(add, real), reduce(add, guess)
    print(
        f"| `opt3`, `opt4c` | {encoding} | {name} | {group or 'row'} | {total.mean:.4f} | {guessed.mean:.4f} | {total.most} | "
        f"{100 * (guessed.mean / total.mean - 1):+.2f} % | {100 * errors[worst]:+.1f} %, {list(trace.operators)[worst]} |"
    )


def _simulate(trace: Trace, folder: Path) -> None:
    shape = models.shape_of(MODEL)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
        "hidden_size": shape.hidden, "intermediate_size": shape.ffn, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "num_hidden_layers": shape.layers, "vocab_size": shape.vocab,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "rope_theta": 1e5, "max_position_embeddings": 2048,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    array = traced.array("opt3-32x32")
    for shown, model in ((MODEL, MODEL), ("llama-2-7b", "llama-2-7b"), (MODEL, str(folder / "config.json"))):
        row = traced.simulate_trace(array, model, trace)
        print(
            f"| {shown} | {row['source']} | {row['array_cycles']:,} | {row['gaussian_array_cycles']:,} | "
            f"{100 * row['gaussian_error']:+.2f} % |"
        )
    print()
    print("Not modelled:")
    print()
    for note in traced.NOT_MODELLED:
        print(f"- {note}")


if __name__ == "__main__":
    main()
