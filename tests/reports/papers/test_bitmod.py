"""BitMoD's simulator model against its published figures.

`SPEC` and the energies beside it are typed from published-systems.md section 1.6 (paper version, artifact commit
58d7bdb); `published.json` holds all 60 counts and 120 energies, extracted from the artifact's plot notebooks.
The authors' program itself (58d7bdb, with CACTI 7.0 built from HewlettPackard/cacti) agreed with `evaluate` in all
cycles, compute and DRAM cycles of 660 cases, and in energy to 1e-15: its six models and 60 random shapes, 2026-11-23.
"""

from __future__ import annotations

import pytest
from bitwright.arch.errors import ConfigError
from bitwright.reports.papers import bitmod, bitmod_answer, published
from bitwright.reports.papers.bitmod import ACCELERATORS, MODELS, TRAPS, Rules, Task
from bitwright.workloads import shapes
from bitwright.workloads.shapes import ModelShape
from hypothesis import given, settings
from hypothesis import strategies as st

SPEC_MODELS = ("opt-1.3b", "yi-6b", "llama-2-7b", "llama-3-8b")
SPEC = {
    ("fp16", "prefill"): (669255680, 2878668800, 3156574208, 3969089536),
    ("ant", "prefill"): (440975360, 1734868992, 1949564928, 2266234880),
    ("olive", "prefill"): (403718144, 1575157760, 1768062976, 2008645632),
    ("bitmod-lossless", "prefill"): (336236544, 1414209536, 1649680384, 1901133824),
    ("bitmod-lossy", "prefill"): (233070592, 946937856, 1202921472, 1273233408),
    ("fp16", "decode"): (82153718, 362970848, 413518608, 469624976),
    ("ant", "decode"): (25779238, 119342816, 129497936, 132370576),
    ("olive", "decode"): (20018374, 96691936, 97236816, 105031744),
    ("bitmod-lossless", "decode"): (31220054, 137681120, 156919888, 178109840),
    ("bitmod-lossy", "decode"): (15857750, 69662944, 79493200, 90099088),
}
# Llama-2-7B, (on-chip, total) in uJ; section 1.6.
SPEC_ENERGY = {
    ("fp16", "decode"): (129318, 2113617),
    ("ant", "decode"): (111292, 732882),
    ("olive", "decode"): (115455, 582192),
    ("bitmod-lossless", "decode"): (78882, 832097),
    ("bitmod-lossy", "decode"): (52631, 434198),
    ("fp16", "prefill"): (2928682, 15511220),
    ("ant", "prefill"): (2035862, 7426912),
    ("olive", "prefill"): (2192068, 6898215),
    ("bitmod-lossless", "prefill"): (1410390, 7186699),
    ("bitmod-lossy", "prefill"): (981870, 5388371),
}
# Section 1.6, "Headline reconstruction"; the energies of lossless over FP16 are 0.457 and 0.410.
SPEC_HEADLINE = {
    "lossless_over_fp16_prefill": 1.989,
    "lossless_over_fp16_generative": 2.408,
    "lossy_over_ant_prefill": 1.722,
    "lossy_over_olive_prefill": 1.558,
    "lossy_over_ant_generative": 1.658,
    "lossy_over_olive_generative": 1.386,
    "lossless_energy_gain_over_fp16": (1 / 0.457 + 1 / 0.410) / 2,
}


@pytest.mark.parametrize(("name", "job"), SPEC)
def test_cycles_are_the_specs_integers(name: str, job: str) -> None:
    found = tuple(bitmod.evaluate(ACCELERATORS[name], shapes.get(model), Task(job)).cycles for model in SPEC_MODELS)
    assert found == SPEC[name, job]


@pytest.mark.parametrize(("name", "job"), SPEC_ENERGY)
def test_energies_are_the_specs_within_a_microjoule(name: str, job: str) -> None:
    found = bitmod.evaluate(ACCELERATORS[name], shapes.get("llama-2-7b"), Task(job))
    assert (found.energy_onchip_uj, found.energy_uj) == pytest.approx(SPEC_ENERGY[name, job], abs=1)


def test_every_published_count_and_energy_of_six_models_comes_out() -> None:
    known = published("bitmod")
    cases = 0
    for machine in ACCELERATORS.values():
        for job in Task:
            rows = [bitmod.evaluate(machine, shapes.get(model), job) for model in MODELS]
            assert [row.cycles for row in rows] == known["cycles"][machine.name][job.value]
            assert [row.energy_uj for row in rows] == pytest.approx(known["energy_uj"][machine.name][job.value], abs=1)
            onchip = known["energy_onchip_uj"][machine.name][job.value]
            assert [row.energy_onchip_uj for row in rows] == pytest.approx(onchip, abs=1)
            cases += len(rows)
    assert cases == 60


def test_headline_means_are_the_specs() -> None:
    found = bitmod_answer.headline()
    assert {key: found[key] for key in SPEC_HEADLINE} == pytest.approx(SPEC_HEADLINE, rel=6e-4)


def test_closed_form_of_the_linear_weights() -> None:
    """Section 1.6: Llama-2-7B has 6,607,077,376 linear weights, 412,942,336 cycles of DRAM at 16 bits."""
    layers = [
        layer
        for layer in bitmod.layers(ACCELERATORS["fp16"], shapes.get("llama-2-7b"), Task.DECODE, bitmod.PUBLISHED)
        if layer.reduction == layer.input_width and layer.outputs > 1000
    ]
    assert sum(layer.wgt_bytes * layer.count for layer in layers) == 2 * 6_607_077_376
    assert sum(layer.wgt_bytes * layer.count for layer in layers) // bitmod.DRAM_BYTES_PER_CYCLE == 412_942_336


@st.composite
def model_shapes(draw: st.DrawFn) -> ModelShape:
    kv_heads, per_kv, head_dim = draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.sampled_from([64, 80, 128]))
    return ModelShape(
        name="drawn",
        layers=draw(st.integers(1, 4)),
        hidden=kv_heads * per_kv * head_dim,
        ffn=draw(st.integers(1, 20000)),
        heads=kv_heads * per_kv,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=draw(st.integers(1, 200000)),
        tied_embeddings=False,
        gated_ffn=draw(st.booleans()),
        rope_base=None,
        eps=1e-5,
        source="drawn",
    )


@settings(max_examples=60, deadline=None)
@given(model_shapes(), st.sampled_from(sorted(ACCELERATORS)), st.sampled_from(list(Task)))
def test_bounds_hold_for_any_shape(shape: ModelShape, name: str, job: Task) -> None:
    machine = ACCELERATORS[name]
    for rules in (bitmod.PUBLISHED, *(trap.rules for trap in TRAPS), bitmod.CORRECTED):
        row = bitmod.evaluate(machine, shape, job, rules)
        assert max(row.compute_cycles, row.dram_cycles) <= row.cycles <= row.compute_cycles + row.dram_cycles
        assert row.dram_bytes // bitmod.DRAM_BYTES_PER_CYCLE >= row.dram_cycles
    published_row = bitmod.evaluate(machine, shape, job)
    tiled = bitmod.evaluate(machine, shape, job, Rules(better_tiling=True))
    assert tiled.dram_bytes <= published_row.dram_bytes
    assert tiled.compute_cycles == published_row.compute_cycles
    with_selector = bitmod.evaluate(machine, shape, job, Rules(selector_bits=True))
    assert with_selector.compute_cycles == published_row.compute_cycles
    if not machine.bit_serial:
        assert with_selector == published_row
    elif job is Task.DECODE and shape.hidden >= 512:  # 2 bits a group of 128: at least a byte a row of 512
        assert with_selector.dram_bytes > published_row.dram_bytes


def test_equal_area_arrays_fit_the_fp16_one() -> None:
    base = ACCELERATORS["fp16"]
    for job in Task:
        limit = base.array(job)[0] * base.array(job)[1] * base.pe_area_um2
        for machine in ACCELERATORS.values():
            rows, cols = machine.array(job)[0], bitmod.columns(machine, job, bitmod.CORRECTED)
            assert rows * cols * machine.pe_area_um2 <= limit < rows * (cols + 1) * machine.pe_area_um2


def test_real_attention_multiplies_what_attention_multiplies() -> None:
    """Heads x context x head_dim twice a token and layer, and K and V of every KV head read once."""
    shape = shapes.get("llama-3-8b")
    for job, tokens in ((Task.PREFILL, 256), (Task.DECODE, 1)):
        rules = Rules(real_attention=True)
        attention = bitmod.layers(ACCELERATORS["fp16"], shape, job, rules)[len(shape.matmuls()) :]
        macs = sum(item.outputs * item.reduction * item.tokens * item.count for item in attention)
        assert macs == 2 * shape.layers * shape.heads * tokens * 256 * shape.head_dim
        assert sum(item.wgt_bytes * item.count for item in attention) == 2 * 2 * 32 * 8 * 256 * 128


def test_better_tiling_keeps_sums_and_slices_in_the_buffers() -> None:
    layer = bitmod.Layer(11008, 4096, 4096, 256, 1, 4.0625, 4.0625)
    wgt_often, act_often = bitmod.refetches(layer, bitmod.CORRECTED, 4)
    tokens, outputs = -(-layer.tokens // wgt_often), -(-layer.outputs // act_often)
    assert 4 * tokens * outputs + 2 * 2 * 128 * tokens <= bitmod.BUFFER_BYTES
    assert 2 * 65 * outputs <= bitmod.BUFFER_BYTES  # 128 weights of 4.0625 bits, two slices
    assert bitmod.refetches(layer, bitmod.PUBLISHED, 4) == (4, 1)


def test_fp16_machine_is_near_our_engine_once_corrected() -> None:
    """Ours by closed form and by SimPy: prefill differs by the head (256 tokens against one), fill and drain."""
    shape = shapes.get("llama-2-7b")
    for job, least, most in ((Task.PREFILL, 0.97, 1.0), (Task.DECODE, 1.0, 1.02)):
        closed = bitmod.evaluate(ACCELERATORS["fp16"], shape, job, bitmod.CORRECTED).cycles
        assert least < bitmod_answer.simulated_cycles(bitmod.ACCELERATORS["fp16"], shape, job) / closed < most


def test_bitmod_on_its_own_pes_is_beside_the_closed_form() -> None:
    """Prefill is bound by the array: ours has less head and pays whole tiles; ANT and OliVe have no PE of ours."""
    shape = shapes.get("llama-2-7b")
    rules = bitmod.Rules(selector_bits=True, equal_kv=True, real_attention=True, better_tiling=True)
    for name in ("bitmod-lossy", "bitmod-lossless"):
        machine = ACCELERATORS[name]
        closed = bitmod.evaluate(machine, shape, Task.PREFILL, rules).compute_cycles
        assert 0.95 < bitmod_answer.simulated_cycles(machine, shape, Task.PREFILL) / closed < 1.05
        fewest = bitmod.evaluate(machine, shape, Task.DECODE, rules).dram_cycles
        assert bitmod_answer.simulated_cycles(machine, shape, Task.DECODE) > 0.97 * fewest
    assert bitmod_answer.simulated_cycles(ACCELERATORS["ant"], shape, Task.DECODE) is None


def test_answer_shows_every_trap_and_starts_from_the_published_count() -> None:
    row = bitmod_answer.answer("llama-2-7b", "bitmod-lossy", "decode")
    assert (row["cycles"], row["published_cycles"]) == (79493200, 79493200)
    assert [item["name"] for item in row["differences"]] == [
        "as published", "selector bits charged", "KV at equal precision", "real attention shapes",
        "equal-area arrays", "better tiling", "all of them",
    ]  # fmt: skip
    assert row["differences"][0]["cycles"] == row["cycles"]
    assert row["differences"][-1]["cycles"] == row["ours"]["cycles"]
    assert row["differences"][1]["cycles"] > row["cycles"]


def test_the_closed_form_beside_the_simulated_cycles_has_their_array() -> None:
    """An array of equal area has fewer columns: prefill, bound by the array, takes longer there."""
    row = bitmod_answer.answer("llama-2-7b", "bitmod-lossy", "prefill")
    assert (
        0.98
        < row["simulated_cycles"] / row["simulated_beside_cycles"]
        < 1.0
        < row["ours"]["cycles"] / row["simulated_beside_cycles"]
    )
    assert bitmod_answer.answer("llama-2-7b", "ant", "decode")["simulated_beside_cycles"] is None


def test_a_model_without_profiled_bits_takes_the_median_and_says_so() -> None:
    row = bitmod_answer.answer("mistral-7b", "olive", "decode")
    assert row["weight_bits"] == 3.8125
    assert row["published_cycles"] is None
    assert "olive's bits a weight are profiled by hand for the paper's six models; this is their median" in row["notes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("llama-2-7b", "bitmod", "decode"),
            "accelerator = 'bitmod': not one of bitmod's; did you mean 'bitmod-lossy'? "
            "(known: ant, bitmod-lossless, bitmod-lossy, fp16, olive); the command line",
        ),
        (
            ("mixtral-8x7b", "fp16", "decode"),
            "model = 'mixtral-8x7b': bitmod's model knows neither experts nor latent attention; "
            "name a dense one such as llama-2-7b; the command line",
        ),
        (
            ("llama-2-7b", "fp16", "generate"),
            "task = 'generate': not one of bitmod's; known: decode, prefill; the command line",
        ),
    ],
)
def test_unknown_names_are_refused(arguments: tuple[str, str, str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        bitmod_answer.answer(*arguments)
    assert str(error.value) == message
