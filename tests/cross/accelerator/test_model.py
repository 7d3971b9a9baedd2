"""A model's linear layers as programs: the same counters from the RTL and both simulators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bitwright.arch import machine as machines
from bitwright.arch.errors import ConfigError
from bitwright.cli import gemm
from bitwright.cli.gemm import model_row
from bitwright.sim.accelerator.gemm import simulate_gemm
from bitwright.workloads import shapes

MACHINE = machines.load("int8-4x4")
SIZES: dict[str, Any] = {"prompt_tokens": 3, "output_tokens": 2, "batch": 1}
SMALL = replace(
    shapes.get("smollm2-135m"), name="small", layers=2, hidden=32, ffn=48, heads=4, kv_heads=2, head_dim=8, vocab=72
)


def test_three_engines_agree_and_layers_add_up() -> None:
    options = {"weights": "int4", "group": 16, **SIZES}
    rows = [model_row(MACHINE, SMALL, engine=engine, **options) for engine in ("rtl", "simpy", "fast")]
    assert {**rows[0], "engine": ""} == {**rows[1], "engine": ""} == {**rows[2], "engine": ""}
    row = rows[0]
    assert row["cycles"] == sum(layer["count"] * layer["cycles"] for layer in row["layers"])
    assert row["cycles"] == row["prefill_cycles"] + row["decode_cycles"]
    sizes = [(layer["phase"], layer["count"], layer["m"], layer["k"], layer["n"]) for layer in row["layers"]]
    assert sizes == [  # q; k and v; o; gate and up; down; head: twice in prefill, four times in two steps of decode
        *(("prefill", *size) for size in LAYERS),
        ("prefill", 1, 1, 32, 72),
        *(("decode", 2 * count, 1, k, n) for count, _, k, n in LAYERS),
        ("decode", 2, 1, 32, 72),
    ]
    for layer in row["layers"]:
        found = simulate_gemm(MACHINE, layer["m"], layer["k"], layer["n"], fmt="int4", group=16)
        assert layer["cycles"] == found.counters.cycles


LAYERS = [(2, 3, 32, 32), (4, 3, 32, 16), (2, 3, 32, 32), (4, 3, 32, 48), (2, 3, 48, 32)]


def test_what_the_rtl_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "MOST_RTL_CYCLES", 400)
    with pytest.raises(ConfigError) as caught:
        model_row(MACHINE, SMALL, engine="rtl", weights="int4", group=16, **SIZES)
    assert str(caught.value).startswith("engine = rtl: prefill query (3,32,32) takes ")
    assert str(caught.value).endswith(
        "cycles: a run of the RTL has at most 400 (use --engine fast, whose cycles are the same, or fewer "
        "--prompt-tokens)"
    )
    with pytest.raises(ConfigError) as caught:
        model_row(MACHINE, SMALL, engine="fats", weights="int8", group=None, **SIZES)
    assert str(caught.value) == "engine = 'fats': no such engine; did you mean 'fast'? (known: fast, rtl, simpy)"
