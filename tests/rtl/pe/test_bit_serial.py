"""bit-serial hardware: encoder and PE against the formats' values and the golden, sums and cycles in the same tests."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bitwright import rtl
from bitwright.arch import formats
from bitwright.arch.errors import ConfigError, MismatchError
from bitwright.arch.pe.bit_serial import BitSerial
from bitwright.arch.pe.terms import Encoding, format_specials, special_code
from bitwright.rtl.bench.bit_serial_bench import (
    Channels,
    compile_pe,
    program,
    random_channels,
    require_channels,
    sums_and_cycles,
)
from bitwright.rtl.bench.bit_serial_stimulus import (
    FORMATS,
    bulk_channels,
    cancelling_channels,
    close_channels,
    emptied_channels,
    storable_specials,
)
from bitwright.rtl.bench.bit_serial_trace import Player, stalled, unstalled
from bitwright.rtl.bench.verilator import Compiled, lint
from bitwright.rtl.pe import streaming
from bitwright.rtl.pe.emit import emit
from bitwright.rtl.pe.term_encoder import TermEncoder

SPEC = BitSerial()
REPLAY = "pytest tests/rtl/pe/test_bit_serial.py"


@pytest.fixture(scope="module")
def encoder() -> Compiled:
    return Compiled(emit(TermEncoder(), TermEncoder.module_name), TermEncoder.module_name)


@pytest.fixture(scope="module")
def pe() -> Compiled:
    return compile_pe(SPEC)


def encoded_values(encoder: Compiled, special: tuple[float, ...], **inputs: np.ndarray | int) -> np.ndarray:
    """Sum of the terms that the hardware gives for each input, terms beyond the encoding's count left out."""
    with encoder.open(random_state=True) as running:
        program(running, special)
        halves = np.zeros(np.broadcast(*inputs.values()).shape)
        for term in range(4):
            out = {name: values.astype(np.int64) for name, values in running.run({**inputs, "term": term}).items()}
            value = np.where(out["sign"], -1, 1) * (out["man"] << out["exp"] << out["bsig"])
            halves += np.where(term <= out["last"], value, 0)
    return halves / 2


# Interface


def test_ports_are_those_of_the_contract(pe: Compiled) -> None:
    assert {port.name: port.bits for port in pe.inputs.values()} == {
        "slice__payload": 111, "slice__valid": 1, "special_write": 1, "special_index": 2, "special_value": 6,
        "clear": 1, "column__ready": 1, "rst": 1,
    }  # fmt: skip
    assert {port.name: port.bits for port in pe.outputs.values()} == {
        "slice__ready": 1, "column__payload": 32, "column__valid": 1,
    }  # fmt: skip


def test_generate_writes_one_lint_clean_module_without_a_multiplier(tmp_path: Path) -> None:
    text = rtl.generate("bit-serial", tmp_path / "x.v").read_text()
    assert text.endswith(streaming.verilog(SPEC))
    assert re.findall(r"^module (\w+)", text, re.MULTILINE) == ["bit_serial_l4_fp16_a16"]
    assert "src =" not in text
    assert lint(text, "bit_serial_l4_fp16_a16") == []
    text = streaming.verilog(SPEC)
    assert not re.findall(r"[^/(@]\*[^/)]", text.replace("always @*", "").replace("(* ", "").replace(" *)", ""))


def test_only_control_registers_are_reset() -> None:
    """Valid bits of 8 stages, three counters, two marks of a fresh sum, the stream's valid bit."""
    reset = re.findall(r"if \(rst\) begin\s+(n\d+)\s+= (\d+)'h(\d);", streaming.verilog(SPEC))
    assert sorted(width for _, width, _ in reset) == ["1"] * 10 + ["2", "3"]


# Encoder, exhaustive


@pytest.mark.parametrize("name", FORMATS)
def test_encoder_gives_every_code_of_every_format_and_selector(encoder: Compiled, name: str) -> None:
    form, encoding, special = formats.get(name), SPEC.encoding(name), format_specials(name)
    code, selector = (grid.ravel() for grid in np.meshgrid(np.arange(256), np.arange(4), indexing="ij"))
    got = encoded_values(encoder, special, code=code, selector=selector, encoding=int(encoding))
    tables = np.stack([form.code_values(index % (1 << form.selector_bits)) for index in range(4)])
    assert len(got) == 1024
    assert np.array_equal(got, tables[selector, code & ((1 << form.bits) - 1)])


def test_encoder_gives_every_special_value_that_two_terms_can(encoder: Compiled) -> None:
    special = storable_specials()
    assert len(special) == 2 * 19 - 1
    for value in special:
        for place in range(4):
            file = tuple(value if index == place else 1.0 for index in range(4))
            got = encoded_values(encoder, file, code=np.array([8, 4]), selector=place, encoding=np.array([3, 4]))
            assert got.tolist() == [value, value]


def test_encoder_says_how_many_terms(encoder: Compiled) -> None:
    with encoder.open() as running:
        out = running.run({"encoding": np.arange(len(Encoding))})
    assert (out["last"] + np.uint64(1)).tolist() == [4, 3, 3, 2, 2]


# Values and cycles


def test_pipeline_adds_a_cycle_of_latency_and_changes_nothing_else() -> None:
    spec = BitSerial(pipeline=1)
    assert spec.timing.latency_cycles == SPEC.timing.latency_cycles + 1
    assert lint(streaming.verilog(spec), spec.module_stem) == []
    design = compile_pe(spec)
    for name in FORMATS:
        channels = random_channels(spec, name, 20, 576, 128, seed=7, wild=True)
        got, at = sums_and_cycles(design, channels, seed=7)
        require_channels(channels, SPEC, got, replay=REPLAY)
        period = sum(SPEC.cycles(name, length) for length in (128, 128, 128, 128, 64))
        first = SPEC.channel_cycles(name, 576, 128) + 1
        assert at.tolist() == [first + period * index for index in range(20)]
    Player(design, stalled(spec, 6000, 7)).require(seed=7)


@pytest.mark.parametrize("group", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("name", FORMATS)
def test_sums_and_cycles_of_576_weights_in_groups(pe: Compiled, name: str, group: int) -> None:
    """40 channels back to back; in groups of 128 the last one has 64. Half have activations of any finite bits."""
    for wild in (False, True):
        channels = random_channels(SPEC, name, 20, 576, group, seed=group, wild=wild)
        got, at = sums_and_cycles(pe, channels, seed=group)
        require_channels(channels, SPEC, got, replay=REPLAY)
        lengths = [min(group, 576 - start) for start in range(0, 576, group)]
        dots = [-(-length // 4) * {"int8": 4, "int6": 3, "int5": 3}.get(name, 2) for length in lengths]
        period = sum(max(dot, 8) for dot in dots)
        first = dots[0] + sum(max(dot, 8) for dot in dots[1:]) + 14
        assert at.tolist() == [first + period * index for index in range(20)]
        assert first == SPEC.channel_cycles(name, 576, group)


@pytest.mark.parametrize(("name", "cycles"), [("int8", 128), ("int6", 96), ("bitmod_fp4", 64), ("bitmod_fp3", 64)])
def test_a_group_of_128_takes_the_papers_cycles(pe: Compiled, name: str, cycles: int) -> None:
    channels = random_channels(SPEC, name, 50, 128, 128, seed=1)
    got, at = sums_and_cycles(pe, channels)
    require_channels(channels, SPEC, got, replay=REPLAY)
    assert set(np.diff(at)) == {cycles}


def test_groups_of_odd_lengths_and_single_slices(pe: Compiled) -> None:
    for name in FORMATS:
        for depth, group in ((1, 1), (4, 4), (13, 5), (7, 3), (30, 100)):
            channels = random_channels(SPEC, name, 50, depth, group, seed=depth, wild=True)
            got, at = sums_and_cycles(pe, channels)
            require_channels(channels, SPEC, got, replay=REPLAY)
            assert at[0] == SPEC.channel_cycles(name, depth, group)


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_times_activations_of_every_exponent(pe: Compiled, name: str) -> None:
    """One product a channel, in any lane, the others zero: every code and selector x 512 activations, all exponents and
    signs, corners of the fraction and random ones. Infinities and NaNs among them."""
    encoding = SPEC.encoding(name)
    rng = np.random.default_rng(4)
    fraction = np.concatenate([[0, 1, 512, 1023], rng.integers(0, 1024, 4)])
    act, code = np.meshgrid(
        (np.arange(64)[:, None] << 10 | fraction).ravel(), np.arange(1 << encoding.code_bits), indexing="ij"
    )
    count = act.size
    acts, codes = np.zeros((count, 4), np.uint16), np.zeros((count, 4), np.int64)
    lane = rng.integers(0, 4, count)
    acts[np.arange(count), lane], codes[np.arange(count), lane] = act.ravel(), code.ravel()
    scale, selector = rng.integers(1, 256, (count, 1)), np.arange(count)[:, None] // 3 % 4
    channels = Channels(name, encoding, 4, acts, codes, scale, selector)
    got, at = sums_and_cycles(pe, channels)
    require_channels(channels, SPEC, got, replay=REPLAY)
    assert set(np.diff(at)) == {8}
    assert np.array_equal(got == 0x7FC00000, (act.ravel() & 0x7C00) == 0x7C00)


def test_idle_sources_change_no_sum(pe: Compiled) -> None:
    rng = np.random.default_rng(5)
    channels = random_channels(SPEC, "bitmod_fp4", 100, 96, 16, seed=5, wild=True)
    got, at = sums_and_cycles(pe, channels, offers=rng.random(40_000) < 0.3)
    require_channels(channels, SPEC, got, replay=REPLAY)
    assert at[-1] > SPEC.channel_cycles("bitmod_fp4", 96, 16) + 99 * 6 * 8


def test_non_finite_activations_make_their_channel_nan_and_no_other(pe: Compiled) -> None:
    channels = random_channels(SPEC, "int6", 60, 64, 16, seed=6)
    bad = np.arange(60) % 3 == 1
    where = np.random.default_rng(6).integers(0, 64, 60)
    channels.act[bad, where[bad]] = np.resize([0x7C00, 0xFC00, 0x7E01], bad.sum()).astype(np.uint16)
    channels.code[bad, where[bad]] = 0
    got, _ = sums_and_cycles(pe, channels)
    require_channels(channels, SPEC, got, replay=REPLAY)
    assert np.array_equal(got == 0x7FC00000, bad)


def test_a_difference_is_shown_with_its_index_and_both_values() -> None:
    channels = random_channels(SPEC, "int8", 2, 4, 4, seed=7)
    want = channels.golden(SPEC)
    with pytest.raises(MismatchError) as error:
        require_channels(channels, SPEC, want ^ np.array([0, 1], np.uint32), replay=REPLAY)
    number = want[1:].view(np.float32)[0]
    other = (want[1:] ^ np.uint32(1)).view(np.float32)[0]
    assert str(error.value) == (
        f"column[1] = {want[1] ^ 1:#010x} ({other}): must be {want[1]:#010x} ({number}), int8, groups of 4; "
        f"1 of 2 differ; replay: {REPLAY}"
    )


@pytest.mark.parametrize("acc_bits", [16, 17, 24])
def test_groups_that_cancel_ends_of_the_range_and_real_groups(acc_bits: int) -> None:
    """6 kinds of channels and real ones, five formats, back to back, every cycle and sum; with three accumulators."""
    spec = BitSerial(acc_bits)
    trace = unstalled(spec, list(bulk_channels(spec, 20, seed=acc_bits)))
    Player(compile_pe(spec), trace).require(seed=acc_bits)
    assert trace.sums == 5 * (7 * 20 + 5) + 22 * 20


def test_channels_that_cancel_do() -> None:
    """The stimulus is what it says: exact zeros in the column, and sums of at most 15 units of the last bit."""
    sums = close_channels(SPEC, 300, seed=1).golden(SPEC).view(np.float32) * 1024
    assert set(np.abs(sums).tolist()) == set(range(16))
    assert not emptied_channels(SPEC, 50, seed=1).golden(SPEC).any()
    gone = cancelling_channels(SPEC, "int8", 50, 8, 8, seed=1).golden(SPEC)
    assert (gone == 0).sum() > 10


# Protocol


@pytest.mark.parametrize("seed", [1, 2])
def test_stalls_clears_resets_and_new_specials_change_no_cycle_and_no_sum(pe: Compiled, seed: int) -> None:
    trace = stalled(SPEC, 6000, seed)
    Player(pe, trace).require(seed=seed)
    assert trace.sums > 150
    assert trace.slices > 900


def test_a_trace_shows_a_wrong_sum_and_a_wrong_cycle(pe: Compiled) -> None:
    trace = unstalled(SPEC, [random_channels(SPEC, "int8", 3, 8, 8, seed=1)])
    at = int(np.flatnonzero(trace.valid)[1])
    bits = int(trace.column[at])
    column = trace.column.copy()
    column[at] ^= 2
    with pytest.raises(MismatchError) as error:
        Player(pe, replace(trace, column=column)).require()
    assert str(error.value) == (
        f"bit_serial_l4_fp16_a16, seed 1: cycle {at}: column = {bits:#010x}: must be {bits ^ 2:#010x}"
    )
    ready = trace.ready.copy()
    ready[7] ^= True
    with pytest.raises(MismatchError) as error:
        Player(pe, replace(trace, ready=ready)).require()
    got = int(trace.ready[7])
    assert str(error.value) == (f"bit_serial_l4_fp16_a16, seed 1: cycle 7: slice.ready = {got}: must be {1 - got}")


def test_verify_runs_the_protocol_benches() -> None:
    assert list(rtl.verify("bit-serial")) == [
        (
            "bit_serial_l4_fp16_a16",
            [
                "without_back_pressure_every_cycle_is_the_contracts",
                "extreme_codes",
                "real_tensors_of_smollm2",
                "a_clear_in_mid_group_drops_the_channel_but_not_the_sum_on_offer",
                "a_clear_drops_a_channel_in_any_stage_until_its_sum_is_on_offer",
                "a_sum_on_offer_holds_until_it_is_taken",
                "a_reset_in_any_cycle_drops_all_but_the_special_values",
                "ready_does_not_depend_on_valid_nor_the_sum_on_inputs",
                "every_mix_of_idle_and_back_pressure_with_clears_and_resets",
            ],
        ),
        (
            "bit_serial_l4_fp16_a16",
            [
                "every_finite_activation: 317440 slices",
                "every_code: 116560 slices",
                "channels_of_every_kind: 67800 slices",
            ],
        ),
    ]


# Errors


def test_a_dataflow_and_synthesis_are_refused(tmp_path: Path) -> None:
    cases = [
        (
            lambda: rtl.generate("bit-serial", tmp_path / "x.v", dataflow="os"),
            "bit-serial dataflow = 'os': this PE has none, it takes streams (leave the option out)",
        ),
        (
            lambda: rtl.synthesize("bit-serial", dataflow="os"),
            "bit-serial dataflow = 'os': this PE takes streams (leave the option out)",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ConfigError) as error:
            call()
        assert str(error.value) == message


def test_evidence_counts_what_these_tests_check() -> None:
    counts = [item.cases for item in SPEC.evidence if item.test == "tests/rtl/pe/test_bit_serial.py"]
    single = sum(512 << SPEC.encoding(name).code_bits for name in FORMATS)
    assert counts == [1024 * 5 + 37 * 8, 5 * 5 * 40 + 4 * 50 + 5 * 5 * 50 + 100 + 60, single]
    assert special_code(7) == 0b01110
