"""What a machine allows: sizes by hand, and the messages of what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from bitwright.arch import config, machine
from bitwright.arch.errors import ConfigError
from bitwright.arch.isa.limits import Channel, Limits, TileFormat, limits, longest_sum
from bitwright.arch.machine import Machine


def made(pe: str = "int8", rows: int = 8, cols: int = 8, dataflow: str = "ws", **buffers: float) -> Machine:
    data: dict[str, Any] = {
        "name": "mine",
        "pe": pe,
        "array": {"rows": rows, "cols": cols, "dataflow": dataflow},
        "buffers": buffers,
    }
    return config.validate(Machine, data, "test")


def test_slots_of_a_plain_machine() -> None:
    """32 KiB a buffer, so 16 KiB a slot: 1024 beats of 16 bytes; int8 vectors of 8 fill half a beat."""
    found = limits(machine.load("int8-8x8"))
    assert (found.rows, found.cols, found.stationary, found.act_bits, found.port_bytes) == (8, 8, "ws", 8, 16)
    assert found.formats == (
        TileFormat("int8", 8, True, False),
        TileFormat("int4", 4, True, False),
        TileFormat("int4_asym", 4, True, True),
    )
    assert {str(channel): found.capacity(channel) for channel in Channel} == {
        "act": 1024,
        "wgt": 896,
        "par": 128,
        "vec": 256,
        "acc": 256,
        "out": 256,
    }
    assert (found.vector_beats, found.act_vectors, found.slice_steps) == (1, 1024, 8)


def test_sizes_are_rounded_down_to_whole_units() -> None:
    """Slots of 1536, 1280 and 1792 bytes; a vector of 20 fp16 is 2 beats of 32; 7/8 of 1280 is 35 beats of 32."""
    found = limits(made("fp16", rows=20, cols=5, act_kib=3, wgt_kib=2.5, out_kib=3.5), port_bytes=32)
    assert (found.vector_beats, found.act_vectors) == (2, 24)
    assert (found.wgt_beats, found.par_beats) == (35, 5)
    assert (found.acc_rows, found.out_beats, found.vec_beats) == (44, 14, 14)


@pytest.mark.parametrize(
    ("pe", "rows", "dataflow", "steps"),
    [
        ("int8", 16, "ws", 16),
        ("int8", 16, "os", ((1 << 31) - 1) >> 14),
        ("shift-add", 16, "ws", 16),
        ("shift-add", 256, "ws", 128),
        ("shift-add", 16, "os", 128),
        ("fp16", 16, "ws", 16),
        ("fp16", 16, "os", None),
    ],
)
def test_slices_end_at_rows_and_at_the_longest_sum(pe: str, rows: int, dataflow: str, steps: int | None) -> None:
    assert limits(made(pe, rows=rows, dataflow=dataflow)).slice_steps == steps


def test_formats_are_numbered_as_they_are_given() -> None:
    found = limits(made("fp16"), formats=["int3_asym", "bf16", "fp4_e2m1"])
    assert found.formats == (
        TileFormat("int3_asym", 3, True, True),
        TileFormat("bf16", 16, False, False),
        TileFormat("fp4_e2m1", 4, True, False),
    )
    assert [(item.zero_bits, item.par_bits) for item in found.formats] == [(3, 19), (0, 0), (0, 16)]


def test_usual_formats_are_those_that_the_pe_takes() -> None:
    names = {pe: [item.name for item in limits(made(pe)).formats] for pe in ("fp16", "int8", "shift-add")}
    assert names == {
        "fp16": ["fp16", "int8", "int4", "int4_asym"],
        "int8": ["int8", "int4", "int4_asym"],
        "shift-add": ["int4", "int4_asym"],
    }


@pytest.mark.parametrize("name", machine.names())
def test_every_named_machine_has_limits(name: str) -> None:
    found = limits(machine.load(name))
    assert isinstance(found, Limits)
    assert longest_sum(found.pe) == longest_sum(limits(machine.load(name), port_bytes=64).pe)


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({}, {"port_bytes": 12}, "port_bytes = 12: must be 8, 16, 32 or 64; machine 'mine'"),
        ({}, {"formats": []}, "formats: 0 given, must be 1..16 (an Execute selects one); machine 'mine'"),
        (
            {},
            {"formats": ["int8"] * 17},
            "formats: 17 given, must be 1..16 (an Execute selects one); machine 'mine'",
        ),
        (
            {"pe": "shift-add"},
            {"formats": ["int8"]},
            "formats: int8: int8 codes are not integers of at most 4 bits; machine 'mine'",
        ),
        (
            {},
            {"formats": ["bitmod_fp4"]},
            "formats: bitmod_fp4: needs group parameters other than an fp16 scale and a zero point, which the par "
            "channel does not carry; machine 'mine'",
        ),
        (
            {"act_kib": 0.02},
            {},
            "buffers.act_kib: a slot of the act channel has 0 beats of 16 bytes, must have at least 1: one activation "
            "vector; machine 'mine'",
        ),
        (
            {"wgt_kib": 0.25},
            {},
            "buffers.wgt_kib: a slot of the par channel has 1 beats of 16 bytes, must have at least 2: one group's "
            "scales and zero points, in 1/8 of it; machine 'mine'",
        ),
        (
            {"out_kib": 0.1},
            {},
            "buffers.out_kib: a slot of the vec channel has 0 beats of 16 bytes, must have at least 2: one row of fp32 "
            "values, in 1/4 of it; machine 'mine'",
        ),
        (
            {"act_kib": 2049},
            {},
            "buffers.act_kib: a slot of the act channel has 65568 beats of 16 bytes, an instruction addresses 65536 "
            "(make the buffer smaller or the port wider); machine 'mine'",
        ),
        (
            {"out_kib": 2049, "cols": 1},
            {"port_bytes": 64},
            "buffers.out_kib: a slot of the acc channel has 131136 rows, an instruction addresses 16384 "
            "(make the buffer smaller or the port wider); machine 'mine'",
        ),
    ],
)
def test_refused(changed: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        limits(made(**changed), **options)
    assert str(caught.value) == message


def test_the_largest_addressable_slot_is_taken() -> None:
    assert limits(made(act_kib=2048)).capacity(Channel.ACT) == 65536
