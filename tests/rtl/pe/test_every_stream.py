"""What binds every streaming PE in every variant: the protocol under stalls, from random power-up state."""

from __future__ import annotations

import re
from typing import Any

import pytest
from bitwright.arch import pe
from bitwright.arch.pe.stream import FIRST
from bitwright.rtl.bench.stream import bulk, evidence, stimulus, traces
from bitwright.rtl.pe import streaming

VARIANTS = [(name, dict(params)) for name in pe.stream_names() for params in type(pe.stream(name)).variants]
NAMES = [evidence.shown(name, params) for name, params in VARIANTS]
CYCLES, SEED = 3_000, 20261122


@pytest.mark.parametrize(("name", "params"), VARIANTS, ids=NAMES)
def test_stalls_clears_and_resets_in_any_mix(name: str, params: dict[str, Any]) -> None:
    """Every output of every cycle: idle sources, back-pressure, dropped sums, resets, garbage when not valid."""
    spec = pe.stream(name, **params)
    trace = traces.stalled(spec, CYCLES, SEED)
    assert trace.sums > 30
    traces.Player(spec, bulk.compiled(spec), trace).require(seed=SEED % 1000)


@pytest.mark.parametrize(("name", "params"), VARIANTS, ids=NAMES)
def test_work_counts_and_cycles_are_those_of_a_step(name: str, params: dict[str, Any]) -> None:
    spec = pe.stream(name, **params)
    steps = stimulus.real_steps(spec, 64, SEED)
    assert spec.macs(steps).shape == spec.step_cycles(steps).shape == steps[FIRST].shape
    assert spec.step_cycles(steps).min() >= 1
    assert spec.macs(steps).min() >= 1


@pytest.mark.parametrize(("name", "params"), VARIANTS, ids=NAMES)
def test_reset_reaches_control_state_only(name: str, params: dict[str, Any]) -> None:
    """Every register that `rst` clears is one bit of control, or the phase; data registers are loaded without it."""
    text = streaming.verilog(pe.stream(name, **params))
    cleared = set()
    for block in re.findall(r"always @\*\s+begin(.*?)\n  end\n", text, re.DOTALL):
        if re.search(r"if \(rst\)", block):
            cleared |= set(re.findall(r"^    (\S+)\s+= (\S+);", block, re.MULTILINE)[:1])
    held = {held for _, held in cleared}
    assert held, "no register is reset"
    unknown = {each for each in held if not re.fullmatch(r"(sum__)?(valid|phase|sum__valid)(_\w+)?|valid_\d+", each)}
    assert not unknown, f"reset reaches {sorted(unknown)}"
