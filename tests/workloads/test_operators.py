"""The operators of a step: against counts made by hand, by brute force and by simulation."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import hypothesis.strategies as st
import pytest
from bitwright.arch.errors import ConfigError
from bitwright.workloads import shapes, sparsity, steps
from bitwright.workloads.attended import blocks, kept_tokens
from bitwright.workloads.operators import Choices, Gemm, Work, work_of
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.shape_parts import Experts, LatentAttention
from bitwright.workloads.shapes import ModelShape
from bitwright.workloads.sparsity import Sparsity
from bitwright.workloads.steps import Advance, Step
from bitwright.workloads.traffic import cache_bits, traffic_of
from hypothesis import given, settings

FP16 = FormatPolicy()
INT8 = FormatPolicy(pe="int8-mac", weights="int8", acts="int8", kv="int8")
SMALL = ModelShape(
    name="small", layers=2, hidden=96, ffn=160, heads=4, kv_heads=2, head_dim=24, vocab=300, tied_embeddings=True,
    gated_ffn=True, rope_base=1e4, eps=1e-5, source="made up for this test",
)  # fmt: skip
MIXTURE = dataclasses.replace(SMALL, name="mixture", layers=5, experts=Experts(8, 2, 40, 48, True, 1))
MLA = LatentAttention(q_rank=30, kv_rank=32, nope=12, rope=8, value=10)
LATENT = dataclasses.replace(SMALL, name="latent", kv_heads=4, head_dim=20, latent=MLA)


def total(work: Work, **wanted: Any) -> int:
    return sum(gemm.macs for gemm in work.gemms if all(getattr(gemm, key) == value for key, value in wanted.items()))


def named(work: Work, name: str) -> Gemm:
    (found,) = (gemm for gemm in work.gemms if gemm.name == name)
    return found


def test_flops_of_llama_2_7b() -> None:
    """Weights once a token: every matrix but the embedding; the head only for the last token."""
    shape = shapes.get("llama-2-7b")
    layers = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    assert layers == 6_738_415_616 - 2 * 32000 * 4096 - 65 * 4096  # the published count without tables, head and norms
    decode = work_of(shape, FP16, steps.decode(2047))
    assert decode.macs == layers + 32000 * 4096 + 2 * 32 * 4096 * 2048
    prefill = work_of(shape, FP16, steps.prefill(2048))
    assert prefill.macs - prefill.masked_macs == 2048 * layers + 32000 * 4096 + 2 * 32 * 4096 * (2048 * 2049 // 2)


@pytest.mark.parametrize(
    ("name", "bytes_a_token"),
    [
        ("llama-2-7b", 524_288),  # 512 KiB: 2 * 32 layers * 4096 * 2
        ("llama-2-70b", 327_680),  # 320 KiB
        ("llama-3-8b", 131_072),  # 128 KiB
        ("mixtral-8x7b", 131_072),
        ("deepseek-v3", 70_272),  # DeepSeek-V3's ISCA 2025 paper (arXiv 2505.09343), table 1: 70.272 KB
    ],
)
def test_cache_of_one_token(name: str, bytes_a_token: int) -> None:
    shape = shapes.get(name)
    assert shape.layers * cache_bits(shape, FP16, 1) == 8 * bytes_a_token
    step = steps.decode(99)
    found = traffic_of(shape, FP16, step, work_of(shape, FP16, step))
    assert found.cache_written == bytes_a_token
    assert found.cache_read == 100 * bytes_a_token


@pytest.mark.parametrize("name", shapes.names())
def test_every_weight_is_read_once_a_step_and_every_token_meets_it(name: str) -> None:
    """What all the tokens' experts and the head do not need is left out; enough tokens touch every expert."""
    shape = shapes.get(name)
    tokens = 1000
    choices = Choices(mla_prefill="absorbed")
    work = work_of(shape, FP16, steps.prefill(tokens), choices)
    weights = [gemm for gemm in work.gemms if gemm.source == "weights" and gemm.kind != "head"]
    body = shape.linear_parameters - shape.vocab * shape.hidden
    assert sum(gemm.n * gemm.k * gemm.count for gemm in weights) == body
    idle = shape.parameters - shape.active_parameters
    assert sum(gemm.macs for gemm in weights) == tokens * (body - idle)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.one_of(st.none(), st.integers(1, 30)), st.integers(0, 5))
def test_blocks_hold_what_every_query_sees(new: int, context: int, window: int | None, sinks: int) -> None:
    """By brute force over positions."""

    def seen(query: int) -> set[int]:
        first = 0 if window is None else max(0, query - window + 1)
        return {*range(first, query + 1), *range(0 if window is None else min(sinks, first))}

    found = blocks(new, context, window, sinks)
    assert sum(block.queries * block.count for block in found) == new
    pairs = sum(len(seen(query)) for query in range(context, context + new))
    assert sum(block.seen * block.count for block in found) == pairs
    rectangles = sorted((block.queries, block.keys) for block in found for _ in range(block.count))
    size = new if window is None else window
    wanted = []
    for first in range(context, context + new, size):
        queries = range(first, min(first + size, context + new))
        wanted.append((len(queries), len(set().union(*(seen(query) for query in queries)))))
    assert rectangles == sorted(wanted)
    assert kept_tokens(context, window, sinks) == len(seen(context) - {context})


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 70), st.integers(1, 3),
    st.sampled_from([SMALL, MIXTURE, LATENT]), st.one_of(st.none(), st.integers(1, 20)),
)  # fmt: skip
def test_chunked_prefill_does_the_work_of_whole_prompts(
    prompt: int, chunk: int, batch: int, shape: ModelShape, window: int | None
) -> None:
    """Without what the mask throws away, chunks multiply exactly as much; they write as much cache."""
    shape = shape if shape.latent else dataclasses.replace(shape, sliding_window=window, sink_tokens=2)
    choices = Choices(mla_prefill="absorbed")  # expanded, every chunk makes the earlier keys again

    def sums(run: tuple[Step, ...]) -> tuple[int, int]:
        works = [(step, work_of(shape, FP16, step, choices)) for step in run]
        macs = sum(work.macs - work.masked_macs for _, work in works)
        return macs, sum(traffic_of(shape, FP16, step, work).cache_written for step, work in works)

    assert sums(steps.chunked(prompt, 0, chunk, batch)) == sums(steps.static(prompt, 0, batch))


def test_chunks_in_expanded_form_make_earlier_keys_again() -> None:
    latent = LATENT.latent
    assert latent is not None
    whole, *_ = (work_of(LATENT, FP16, step) for step in steps.static(30, 0))
    parts = [work_of(LATENT, FP16, step) for step in steps.chunked(30, 0, 10)]
    name = "keys, values of latents (expanded)"
    assert named(whole, name).m == 30
    assert [named(part, name).m for part in parts] == [10, 20, 30]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30), st.integers(1, 3)), min_size=1, max_size=5))
def test_sequences_together_share_weights_and_nothing_else(parts: list[tuple[int, int, int]]) -> None:
    sequences = [Advance(new, context, count=count) for new, context, count in parts]
    together = work_of(SMALL, FP16, steps.step_of(sequences))
    alone = [work_of(SMALL, FP16, Step((item,))) for item in sequences]
    assert together.macs == sum(work.macs for work in alone)
    assert together.masked_macs == sum(work.masked_macs for work in alone)
    step = steps.step_of(sequences)
    found = traffic_of(SMALL, FP16, step, together)
    single = [traffic_of(SMALL, FP16, Step((item,)), work) for item, work in zip(sequences, alone, strict=True)]
    assert found.cache_read == sum(item.cache_read for item in single)
    assert found.acts_read == sum(item.acts_read for item in single)
    assert found.weights == single[0].weights == max(item.weights for item in single)


def test_cache_reads_of_the_products_are_the_closed_form() -> None:
    """Keys and values of 12 + 1 tokens, 2 heads, 2 layers: what scores and values read is what the cache holds."""
    step = steps.decode(12, batch=3)
    work = work_of(SMALL, INT8, step)
    products = sum(gemm.count * gemm.weight_bits(gemm.n, gemm.k) for gemm in work.gemms if gemm.source == "cache")
    assert products == 8 * traffic_of(SMALL, INT8, step, work).cache_read == 3 * 2 * 2 * 13 * 2 * (24 * 8 + 16)


def test_traffic_of_a_decode_step_by_hand() -> None:
    step = steps.decode(12)
    found = traffic_of(SMALL, FP16, step, work_of(SMALL, FP16, step))
    layer = 96 * 96 * 2 + 2 * 96 * 48 + 3 * 96 * 160
    assert found.weights == 2 * (2 * layer + 300 * 96)
    assert found.cache_read == 2 * 2 * 2 * 48 * 13
    assert found.cache_written == 2 * 2 * 2 * 48
    read = 96 + 2 * 96 + 96 + 4 * 13 + 96 + 2 * 96 + 160  # query; key, value; scores; values; output; gate, up; down
    written = 96 + 4 * 13 + 96 + 96 + 2 * 160 + 96  # query, scores, values, output, gate and up, down
    assert found.acts_read == 2 * (2 * read + 96)
    assert found.acts_written == 2 * (2 * written + 300)
    assert found.embedding == 2 * 96
    assert found.indices == 0
    assert found.total == sum(dataclasses.astuple(found))


def test_a_window_is_charged_only_what_it_sees() -> None:
    """Mistral at 10,000 tokens: 4,096 keys a query. Up to the window nothing changes."""
    shape = shapes.get("mistral-7b")
    scores = named(work_of(shape, FP16, steps.decode(9999)), "scores")
    assert (scores.m, scores.n, scores.count) == (4, 4096, 8 * 32)
    sink = dataclasses.replace(shape, sink_tokens=4)
    assert named(work_of(sink, FP16, steps.decode(9999)), "scores").n == 4100
    plain = dataclasses.replace(shape, sliding_window=None)
    assert work_of(shape, FP16, steps.prefill(4096)) == work_of(plain, FP16, steps.prefill(4096))
    found = [gemm for gemm in work_of(shape, FP16, steps.prefill(8192)).gemms if gemm.name == "scores"]
    assert [(gemm.m, gemm.n) for gemm in found] == [(4 * 4096, 4096), (4 * 4096, 8191)]


def test_layers_with_and_without_a_window_stand_apart() -> None:
    work = work_of(shapes.get("gemma-3-270m"), FP16, steps.decode(2000))
    assert [(gemm.n, gemm.count) for gemm in work.gemms if gemm.name == "scores"] == [(512, 15), (2001, 3)]
    assert total(work, name="query") == 640 * 1024 * 18


def test_both_forms_of_latent_attention_by_hand() -> None:
    """DeepSeek-V3, one token at 1000 cached: the counts of DeepSeek-V2's section 2.1 by hand.

    Expanded, every cached token goes through W_UK and W_UV; absorbed, only the new one does, and heads attend in 576
    and 512 dimensions instead of 192 and 128.
    """
    shape, step, keys = shapes.get("deepseek-v3"), steps.decode(1000), 1001
    around = 61 * (7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 128 * 128 * 7168)
    expanded = work_of(shape, FP16, step, Choices(mla_decode="expanded"))
    absorbed = work_of(shape, FP16, step)
    up = 512 * 128 * (128 + 128)
    assert total(expanded, kind="attention_projections") == around + 61 * keys * up
    assert total(expanded, kind="attention") == 61 * 128 * keys * (192 + 128)
    assert total(absorbed, kind="attention_projections") == around + 61 * up
    assert total(absorbed, kind="attention") == 61 * 128 * keys * (576 + 512)
    found = traffic_of(shape, FP16, step, absorbed)
    assert found.cache_read == 61 * keys * 576 * 2
    assert found.cache_read == traffic_of(shape, FP16, step, expanded).cache_read


def test_the_form_is_chosen_for_each_phase() -> None:
    mixed = Step((Advance(6, 0, "prefill"), Advance(1, 9)))
    names = [gemm.name for gemm in work_of(LATENT, FP16, mixed).gemms if gemm.kind == "attention"]
    assert names == ["scores (expanded)", "values (expanded)", "scores (absorbed)", "values (absorbed)"]
    swapped = work_of(LATENT, FP16, mixed, Choices(mla_prefill="absorbed", mla_decode="expanded"))
    scores = {gemm.name: (gemm.m, gemm.k, gemm.n, gemm.count) for gemm in swapped.gemms if "scores" in gemm.name}
    assert scores == {"scores (absorbed)": (6 * 4, 40, 6, 2), "scores (expanded)": (1, 20, 10, 2 * 4)}


def test_experts_of_a_step() -> None:
    """One token: its two of the eight experts in each of four layers, the shared part, the first layer dense."""
    work = work_of(MIXTURE, FP16, steps.decode(7))
    assert named(work, "gate, up").count == 2
    assert (named(work, "router").n, named(work, "router").count) == (8, 4)
    assert (named(work, "expert gate, up").m, named(work, "expert gate, up").count) == (1, 2 * 2 * 4)
    assert (named(work, "expert down").k, named(work, "expert down").count) == (40, 2 * 4)
    assert (named(work, "shared gate, up").n, named(work, "shared gate, up").count) == (48, 2 * 4)
    assert (named(work, "shared scale").n, named(work, "shared scale").count) == (1, 4)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([SMALL, MIXTURE, LATENT]), st.integers(1, 20), st.integers(0, 20), st.integers(1, 4))
def test_element_counts_follow_the_products(shape: ModelShape, new: int, context: int, batch: int) -> None:
    """Every result of an integer product is scaled once; each softmax element is a score or a router's output."""
    step = Step((Advance(new, context, "prefill", count=batch),))
    work = work_of(shape, INT8, step)
    by_name = {
        item.name: item.elements * item.count for item in work.vector if not item.name.startswith("activation s")
    }
    scales = sum(item.elements * item.count for item in work.vector if item.name == "activation scales")
    body = [gemm for gemm in work.gemms if gemm.kind != "head"]
    assert scales == sum(gemm.m * gemm.n * gemm.count for gemm in body)
    assert sum(item.elements * item.count for item in work.vector if item.name == "softmax") == sum(
        gemm.m * gemm.n * gemm.count for gemm in body if gemm.name.startswith("scores")
    )
    down = sum(gemm.m * gemm.k * gemm.count for gemm in body if gemm.name.endswith("down") and gemm.kind == "ffn")
    inside = sum(item.elements * item.count for item in work.vector if item.name == "activation function")
    assert inside == down
    assert by_name["head scales"] == batch * shape.vocab


def test_verification_computes_logits_of_every_draft() -> None:
    run = steps.speculative(10, 8, 3, 0.5, batch=2)
    assert named(work_of(SMALL, FP16, run[1]), "head").m == 2 * 4
    chunk = work_of(SMALL, FP16, steps.chunked(10, 0, 4)[0])
    assert not [gemm for gemm in chunk.gemms if gemm.kind == "head"]


@pytest.mark.parametrize(("kept", "block", "bits"), [(2, 4, 2), (1, 4, 2), (4, 8, 3), (1, 2, 1), (3, 5, 3)])
def test_sparse_weights_by_brute_force(kept: int, block: int, bits: int) -> None:
    """Weights and indices counted one by one; a last short block keeps at most `kept`."""
    rule = Sparsity(kept, block)
    for k in range(1, 40):
        stored = sum(1 for column in range(k) if column % block < kept)
        gemm = Gemm("any", "ffn", 3, k, 7, 2, "int4", None, sparsity=rule)
        assert gemm.index_bits(7, k) == 7 * stored * bits
        assert gemm.weight_bits(7, k) == 7 * (stored * (4 + bits) + 16)
        assert gemm.skipped_macs == 2 * 3 * 7 * (k - stored)
    assert rule.kept_group(block * 8) == kept * 8


def test_sparsity_of_a_model() -> None:
    """2:4 of all matrices but the head: half the codes, 2 index bits a stored weight, as many scales."""
    policy = FormatPolicy(weights="int4", group=32)
    step = steps.decode(5)
    dense, sparse = (work_of(SMALL, policy, step, Choices(sparsity=rule)) for rule in (None, Sparsity(2, 4)))
    assert dense.skipped_macs == 0
    body = 2 * (96 * 96 * 2 + 2 * 96 * 48 + 3 * 96 * 160)
    assert sparse.skipped_macs == body // 2
    assert sparse.macs == dense.macs
    before, after = (traffic_of(SMALL, policy, step, work) for work in (dense, sparse))
    assert after.indices == body // 2 * 2 // 8
    assert before.weights - after.weights == (body // 2 * 4) // 8 - after.indices
    assert sparsity.parse("2:4") == Sparsity(2, 4)


def simulated_distinct(count: int, active: int, tokens: int) -> float:
    draw = random.Random(tokens)
    trials = 4000
    return (
        sum(len({e for _ in range(tokens) for e in draw.sample(range(count), active)}) for _ in range(trials)) / trials
    )


@pytest.mark.parametrize(("count", "active", "tokens"), [(8, 2, 1), (8, 2, 5), (64, 6, 9), (128, 8, 4), (256, 8, 16)])
def test_distinct_experts_against_simulation(count: int, active: int, tokens: int) -> None:
    from bitwright.workloads.routing import UNIFORM

    expected = UNIFORM.distinct(Experts(count, active, 8), tokens)
    assert expected == pytest.approx(simulated_distinct(count, active, tokens), rel=0.01)


@pytest.mark.parametrize(
    ("shape", "step", "choices", "message"),
    [
        (
            "llama-2-7b",
            steps.decode(4096),
            Choices(),
            "context = 4097 tokens: llama-2-7b was made for at most max_context = 4096; shorten the prompt or the "
            "output; the workload",
        ),
        (
            "llama-2-7b",
            steps.decode(9),
            Choices(sparsity=Sparsity(2, 5)),
            "group = 64: must be a multiple of 5 with 2:5 sparsity",
        ),
    ],
)
def test_steps_that_a_model_cannot_do(shape: str, step: Step, choices: Choices, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        work_of(shapes.get(shape), FormatPolicy(weights="int4", group=64), step, choices)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choices(mla_prefill="folded"), "mla_prefill = 'folded': no such form; known: absorbed, expanded; the workload"),  # type: ignore[arg-type]  # noqa: E501
        (lambda: Sparsity(4, 4), "sparsity = 4:4: must keep fewer than 4"),
        (lambda: Sparsity(0, 4), "sparsity.kept_of = 0: must be a whole number of at least 1"),
        (lambda: sparsity.parse("half"), "sparsity = 'half': must be N:M such as 2:4"),
    ],
)  # fmt: skip
def test_impossible_choices(make: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value) == message
