"""Operands' distributions: a stimulus counted by hand; real and random steps counted one by one in Python."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.rtl.asic import cells, stream_stimulus
from bitwright.rtl.asic.operand_bits import OperandBits, cell_operands, stream_operands
from bitwright.rtl.asic.stimulus import ACTIVE, IDLE, UNCOUNTED, Stimulus, cell_stimulus

LANES, WARM_UP, ACTIVE_CYCLES = stream_stimulus.LANES, stream_stimulus.WARM_UP_CYCLES, stream_stimulus.ACTIVE_CYCLES


def test_a_stimulus_counted_by_hand() -> None:
    """8-bit operands of one lane, cycle by cycle: reset, one not counted, four counted, one idle."""
    ports = {
        "act": np.array([[0], [1], [0], [-1], [-1], [5], [7]]),
        "wgt": np.array([[0], [3], [3], [3], [3], [3], [0]]),
    }
    stimulus = Stimulus(ports, (UNCOUNTED, UNCOUNTED, ACTIVE, ACTIVE, ACTIVE, ACTIVE, IDLE))
    found = cell_operands(pe.get("int8-mac"), stimulus)
    # 1 -> 0: one bit; 0 -> -1: eight; -1 -> -1: none; 11111111 -> 00000101: six.
    assert found["act"] == OperandBits(
        bits_per_cycle=8,
        toggle_rate=15 / 32,
        ones_share=(0 + 8 + 8 + 2) / 32,
        zero_share=1 / 4,
        digit_share=(0 + 1 + 1 + 4) / 32,  # 5 = 101 differs from the bit below at bits 0, 1, 2, 3
        entropy_bits=1.5,
    )
    assert found["act"].toggles_per_cycle == 15 / 4
    assert found["wgt"] == OperandBits(8, 0.0, 2 / 8, 0.0, 2 / 8, 0.0)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("name", ["int8-mac", "nvfp4-dot", "shift-add:lanes=4,pipeline=1"])
def test_a_pe_behind_streams_sees_its_steps(name: str, random: bool) -> None:
    """A step a cycle: the codes of consecutive steps of each lane, one by one."""
    base, params = pe.parse_name(name)
    spec = pe.stream(base, **params)
    found = stream_operands(spec, stream_stimulus.stream_work(spec, random=random).stimulus)
    active = WARM_UP + ACTIVE_CYCLES
    steps = stream_stimulus._steps(spec, LANES * active, random=random)
    for field in spec.step_fields:
        if field.name not in spec.multiplied:
            assert field.name not in found
            continue
        codes = (steps[field.name].reshape(LANES, active, field.lanes) % (1 << field.bits)).tolist()
        seen, flips, ones, digits = Counter[int](), 0, 0, 0
        for lane in codes:
            for cycle in range(WARM_UP, active):
                for before, now in zip(lane[cycle - 1], lane[cycle], strict=True):
                    seen[now] += 1
                    flips += (before ^ now).bit_count()
                    ones += now.bit_count()
                    digits += ((now ^ (now << 1)) % (1 << field.bits)).bit_count()
        count = seen.total()
        one = found[field.name]
        assert count == LANES * ACTIVE_CYCLES * field.lanes
        assert one.bits_per_cycle == field.bits * field.lanes
        assert one.toggle_rate == pytest.approx(flips / count / field.bits, rel=1e-12)
        assert one.ones_share == pytest.approx(ones / count / field.bits, rel=1e-12)
        signed = name != "nvfp4-dot"  # minifloats have no digits
        assert one.digit_share == (pytest.approx(digits / count / field.bits, rel=1e-12) if signed else None)
        assert one.zero_share == pytest.approx(seen[0] / count, rel=1e-12)
        entropy = -sum(n / count * math.log2(n / count) for n in seen.values())
        assert one.entropy_bits == pytest.approx(entropy, rel=1e-9)
        if random:
            assert one.toggle_rate == pytest.approx(0.5, abs=0.01)
            assert one.entropy_bits == pytest.approx(field.bits, abs=0.1)


def test_a_step_that_is_held_toggles_once() -> None:
    """opt3 holds a step for as many cycles as it has digits: fewer toggles a cycle than steps have."""
    spec = pe.stream("opt3")
    held, every = (stream_operands(pe.stream(name), stream_stimulus.stream_work(pe.stream(name), random=True).stimulus)
                   for name in ("opt3", "opt1"))  # fmt: skip
    steps = stream_stimulus._steps(spec, LANES * 208, random=True)
    cycles = spec.step_cycles(steps).mean()
    assert held["act"].toggle_rate == pytest.approx(every["act"].toggle_rate / cycles, rel=0.03)


def test_bit_serial_and_wide_codes() -> None:
    """fp16 activations have too many codes for an entropy; a bitmod_fp4 code is 4 of its field's 8 bits."""
    spec = cells.stream_spec("bit-serial")
    work = cells.stream_works(spec)[1]  # type: ignore[arg-type]
    found = stream_operands(spec, work.stimulus)  # type: ignore[arg-type]
    assert set(found) == {"act", "code"}
    assert found["act"].bits_per_cycle == 64
    assert found["act"].entropy_bits is None
    assert found["code"].bits_per_cycle == 32
    assert found["code"].entropy_bits == pytest.approx(4, abs=0.01)
    assert found["code"].ones_share == pytest.approx(0.25, abs=0.01)


def test_weights_of_fewer_bits_toggle_as_much_but_have_fewer_digits() -> None:
    """int4 in int8-mac's 8-bit port: the sign fills the upper half, which then toggles but holds no digit."""
    spec = pe.get("int8-mac")
    found = {name: cell_operands(spec, cell_stimulus(spec, "os", name, random=True)) for name in ("int8", "int4")}
    assert found["int4"]["wgt"].toggle_rate == pytest.approx(found["int8"]["wgt"].toggle_rate, rel=0.05)
    shares = {name: each["wgt"].digit_share for name, each in found.items()}
    assert shares["int4"] is not None
    assert shares["int8"] is not None
    assert shares["int4"] < 0.6 * shares["int8"]
    assert found["int4"]["act"] == found["int8"]["act"]
