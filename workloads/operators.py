"""What one step of a run asks of a machine: its matrix products, its element-wise work, its least traffic.

Products of weights take all the step's tokens at once, so a matrix is read once a step. Attention is two products a
sequence and key/value head. An array computes rectangles, queries by keys, and the mask throws part of it away: that
part is `masked_macs`. A prompt longer than a sliding window goes in blocks of a window's queries, each with the keys
that any of them sees.

Latent attention (MLA) has two forms, chosen for each phase (`Choices`): "expanded" makes keys and values of every
cached latent again and attends head by head; "absorbed" multiplies the queries and the mixed latents by the same
matrix instead, and all heads attend to the latents themselves. A step with both phases in different forms reads that
matrix for each.

Fidelity: matrix products are exact shapes; element-wise work is counted in multiply-add lane operations an element
(`VECTOR_OPS`), an estimate: a division, exponential or reciprocal root counts as 4. Not modelled: fusion across
operators (each reads its inputs from DRAM and writes its outputs there), embedding look-up arithmetic, sampling,
biases. Routers are in the weights' format.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from bitwright.arch import formats
from bitwright.arch.errors import ConfigError, suggest
from bitwright.workloads.attended import Block, blocks
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.routing import UNIFORM, Routing
from bitwright.workloads.shapes import ModelShape
from bitwright.workloads.sparsity import Sparsity
from bitwright.workloads.steps import Advance, Step

# Lane operations an element of the named tensor (one multiply-add each; hard functions count 4).
VECTOR_OPS = {
    "rmsnorm": 3,  # square-accumulate, scale by the reciprocal root, weight
    "rope": 3,  # two products and one sum
    "softmax": 8,  # scale, maximum, subtract, exponential (4), normalise
    "silu_mul": 9,  # exponential (4), add, reciprocal (4 shared), two products
    "gelu": 8,  # of feed-forwards without a gate, whatever their function: exponential (4), reciprocal (4)
    "residual": 1,
    "quantise": 3,  # absolute maximum, scale, round
    "rescale": 1,  # activation scale after an integer product
}

Source = Literal["weights", "cache", "acts"]
Form = Literal["expanded", "absorbed"]
_FORMS = ("expanded", "absorbed")


@dataclass(frozen=True)
class Gemm:
    """out[m, n] = sum over k of act[m, k] * wgt[n, k], `count` times a step.

    `group` cuts the reduction for scales (None: one scale an output channel, nothing cut). `transposed` says that the
    stored tensor is [k, n] with one scale a row k (values of the KV cache), folded into the activations.

    Fields
        source   What the stationary operand is: weights (read once), the cache, or activations made in this step.
        act_source, out_target   Where the other operand comes from and where results go: activations or the cache.
        masked_macs : int   Of one repetition's m * k * n, those that the attention's mask throws away.
        sparsity : Sparsity | None   Of the stationary operand.
    """

    name: str
    kind: str  # attention_projections | attention | ffn | head
    m: int
    k: int
    n: int
    count: int
    weight_format: str
    group: int | None
    transposed: bool = False
    source: Source = "weights"
    act_source: Source = "acts"
    out_target: Source = "acts"
    masked_macs: int = 0
    sparsity: Sparsity | None = None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all `count` repetitions, masked and skipped ones included."""
        return self.m * self.k * self.n * self.count

    @property
    def skipped_macs(self) -> int:
        """Of `macs`, those with a weight that N:M sparsity left out: what a PE that skips them need not do."""
        return 0 if self.sparsity is None else self.m * self.n * (self.k - self.sparsity.kept(self.k)) * self.count

    def index_bits(self, n: int, k: int) -> int:
        """Bits that say which weights of an n x k piece were kept."""
        return 0 if self.sparsity is None else n * self.sparsity.kept(k) * self.sparsity.index_bits

    def weight_bits(self, n: int, k: int) -> int:
        """Stored bits of an n x k piece of the stationary operand, all metadata included."""
        group = self.group
        if self.sparsity is not None:
            k, group, index = self.sparsity.kept(k), self.sparsity.kept_group(group), self.index_bits(n, k)
        else:
            index = 0
        shape = (k, n) if self.transposed else (n, k)
        return index + formats.get(self.weight_format).storage_bits(shape, group).total


@dataclass(frozen=True)
class VectorWork:
    """Element-wise work of one kind: `elements` x `ops` lane operations, `count` times a step."""

    name: str
    elements: int
    ops: int
    count: int

    @property
    def lane_ops(self) -> int:
        """Lane operations of all repetitions."""
        return self.elements * self.ops * self.count


@dataclass(frozen=True)
class Work:
    """One forward pass: the matrix products in order and the element-wise work."""

    gemms: tuple[Gemm, ...]
    vector: tuple[VectorWork, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole step, masked and skipped ones included."""
        return sum(gemm.macs for gemm in self.gemms)

    @property
    def masked_macs(self) -> int:
        """Of `macs`, those that the attention's mask throws away."""
        return sum(gemm.masked_macs * gemm.count for gemm in self.gemms)

    @property
    def skipped_macs(self) -> int:
        """Of `macs`, those with weights that N:M sparsity left out."""
        return sum(gemm.skipped_macs for gemm in self.gemms)


@dataclass(frozen=True)
class Choices:
    """What the model and the formats leave open.

    Fields
        routing : Routing   Which experts tokens go through; default: all alike.
        mla_prefill, mla_decode : "expanded" | "absorbed"   Form of latent attention in each phase.
        sparsity : Sparsity | None   N:M sparsity of every weight matrix but router and head.
    Raises ConfigError for another form.
    """

    routing: Routing = UNIFORM
    mla_prefill: Form = "expanded"
    mla_decode: Form = "absorbed"
    sparsity: Sparsity | None = None

    def __post_init__(self) -> None:
        for name in ("mla_prefill", "mla_decode"):
            form = getattr(self, name)
            if form not in _FORMS:
                raise ConfigError(f"{name} = {form!r}: no such form; {suggest(str(form), _FORMS)}; the workload")

    def form(self, advance: Advance) -> Form:
        """Of the sequence's phase."""
        return self.mla_prefill if advance.phase == "prefill" else self.mla_decode


DEFAULT = Choices()


def work_of(shape: ModelShape, policy: FormatPolicy, step: Step, choices: Choices = DEFAULT) -> Work:
    """The operators of `step` of `shape` under the formats of `policy`.

    Raises ConfigError for a sequence longer than the model was made for, a routing of another model, or a group that
    N:M sparsity cuts.
    """
    longest = max(item.keys for item in step.sequences)
    if shape.max_context is not None and longest > shape.max_context:
        raise ConfigError(
            f"context = {longest} tokens: {shape.name} was made for at most max_context = {shape.max_context}; "
            "shorten the prompt or the output; the workload"
        )
    if choices.sparsity is not None:
        choices.sparsity.kept_group(policy.group_size)
    layers = Counter((shape.window_of(layer), layer < shape.dense_layers) for layer in range(shape.layers))
    gemms: list[Gemm] = []
    vector: list[VectorWork] = []
    for (window, dense), count in layers.items():
        layer = _Layer(shape, policy, step, choices, window, dense, count)
        layer.attention()
        layer.feed_forward()
        gemms += layer.gemms
        vector += layer.vector()
    logits = step.logits
    if logits:
        gemms.append(Gemm("head", "head", logits, shape.hidden, shape.vocab, 1, policy.head_format, policy.group_size))
        vector.append(VectorWork("final norm", logits * shape.hidden, VECTOR_OPS["rmsnorm"], 1))
        if policy.acts != "fp16":
            vector.append(VectorWork("head scales", logits * shape.vocab, VECTOR_OPS["rescale"], 1))
            vector.append(VectorWork("quantise head input", logits * shape.hidden, VECTOR_OPS["quantise"], 1))
    return Work(tuple(gemms), tuple(vector))


@dataclass
class _Layer:
    """The operators of `count` layers that are alike; element counts are of one of them."""

    shape: ModelShape
    policy: FormatPolicy
    step: Step
    choices: Choices
    window: int | None
    dense: bool
    count: int
    gemms: list[Gemm] = field(default_factory=list)
    scores: int = 0  # softmax elements
    outputs: int = 0  # elements that leave the array
    inputs: int = 0  # elements that are quantised before the array takes them
    activation: int = 0  # elements inside feed-forwards
    norms: int = 0  # elements that are normalised besides the residual stream
    routed: int = 0  # routers' scores
    mixed: int = 0  # elements of experts' outputs that are weighted and summed

    def gemm(self, name: str, kind: str, m: int, k: int, n: int, count: int, **details: Any) -> None:
        """One product of weights, `count` a step."""
        policy = self.policy
        self.gemms.append(Gemm(name, kind, m, k, n, count, policy.weights, policy.group_size, **details))

    def projection(self, name: str, m: int, k: int, n: int, times: int = 1, **details: Any) -> None:
        """One product of weights around the attention, `times` a layer."""
        sparsity = self.choices.sparsity
        self.gemm(name, "attention_projections", m, k, n, times * self.count, sparsity=sparsity, **details)
        self.outputs += times * m * n

    def attention(self) -> None:
        """Projections and the attention's own products."""
        shape, rows = self.shape, self.step.tokens
        if shape.latent is not None:
            self._latent_attention()
            return
        query_width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.projection("query", rows, shape.hidden, query_width)
        self.projection("key, value", rows, shape.hidden, kv_width, 2, out_target="cache")
        self.inputs += rows * (shape.hidden + 2 * query_width)
        self.norms += rows * (query_width + kv_width) if shape.qk_norm else 0
        for item in self.step.sequences:
            for block in blocks(item.new_tokens, item.context, self.window, shape.sink_tokens):
                times = item.count * block.count
                per = shape.heads // shape.kv_heads
                self._attend("", block, per, shape.kv_heads * times, shape.head_dim, shape.head_dim, "cache")
        self.projection("output", rows, query_width, shape.hidden)

    def _attend(self, form: str, block: Block, per: int, times: int, key: int, value: int, source: Source) -> None:
        """Scores and values of one block: `per` query heads share a stationary operand, `times` of them a layer."""
        queries, masked = block.queries * per, per * (block.queries * block.keys - block.seen)
        count, kv = times * self.count, self.policy.kv
        for name, k, n, width in (("scores", key, block.keys, key), ("values", block.keys, value, value)):
            self.gemms.append(
                Gemm(
                    name + form, "attention", queries, k, n, count, kv, None, name == "values", source,
                    masked_macs=masked * width,
                )
            )  # fmt: skip
        elements = times * queries * block.keys
        self.scores += elements
        self.outputs += elements + times * queries * value
        self.inputs += elements

    def _latent_attention(self) -> None:
        shape, rows = self.shape, self.step.tokens
        latent = shape.latent
        assert latent is not None, "only of shapes with latent attention"
        query_width, value_width = shape.heads * shape.head_dim, shape.heads * latent.value
        if latent.q_rank is not None:
            self.projection("query down", rows, shape.hidden, latent.q_rank)
            self.norms += rows * latent.q_rank
            self.inputs += rows * latent.q_rank
        self.projection("query", rows, latent.q_rank or shape.hidden, query_width)
        self.projection("latent", rows, shape.hidden, latent.cached, out_target="cache")
        self.norms += rows * latent.kv_rank
        self.inputs += rows * (shape.hidden + query_width + value_width)
        expanded = [item for item in self.step.sequences if self.choices.form(item) == "expanded"]
        if expanded:
            cached = sum(item.keys * item.count for item in expanded)
            width = shape.heads * (latent.nope + latent.value)
            self.projection(
                "keys, values of latents (expanded)", cached, latent.kv_rank, width, act_source="cache"
            )  # fmt: skip
            self.inputs += cached * latent.kv_rank
        absorbed = [item for item in self.step.sequences if self.choices.form(item) == "absorbed"]
        folded = sum(item.new_tokens * item.count for item in absorbed)
        if absorbed:
            self.projection("queries to latents (absorbed)", folded, latent.nope, latent.kv_rank, shape.heads)
            self.inputs += folded * shape.heads * latent.kv_rank
        for item in expanded:
            (block,) = blocks(item.new_tokens, item.context, None, 0)
            times = shape.heads * item.count
            self._attend(" (expanded)", block, 1, times, shape.head_dim, latent.value, "acts")
        for item in absorbed:
            (block,) = blocks(item.new_tokens, item.context, None, 0)
            self._attend(" (absorbed)", block, shape.heads, item.count, latent.cached, latent.kv_rank, "cache")
        if absorbed:
            self.projection("values of latents (absorbed)", folded, latent.kv_rank, latent.value, shape.heads)
            self.inputs += folded * shape.heads * latent.kv_rank
        self.projection("output", rows, value_width, shape.hidden)

    def feed_forward(self) -> None:
        """The dense feed-forward, or router, shared and touched experts."""
        shape, rows = self.shape, self.step.tokens
        self.inputs += rows * shape.hidden
        if self.dense:
            self._ffn("", rows, shape.ffn, self.count)
            self._count_ffn(shape.ffn)
            return
        experts = shape.experts
        assert experts is not None, "a layer without dense feed-forward has experts"
        self.gemm("router", "ffn", rows, shape.hidden, experts.count, self.count)
        self.outputs += rows * experts.count
        self.routed = rows * experts.count
        if experts.shared_width:
            self._ffn("shared ", rows, experts.shared_width, self.count)
            self._count_ffn(experts.shared_width)
        if experts.shared_gate:
            self.gemm("shared scale", "ffn", rows, shape.hidden, 1, self.count)
            self.outputs += rows
        for tokens, touched in self.choices.routing.loads(experts, rows, self.count):
            self._ffn("expert ", tokens, experts.width, touched)
        self._count_ffn(experts.width, experts.active)
        self.mixed = rows * experts.active * shape.hidden

    def _ffn(self, prefix: str, m: int, width: int, count: int) -> None:
        """The products of `count` feed-forwards of `m` tokens."""
        hidden, gated, sparsity = self.shape.hidden, self.shape.gated_ffn, self.choices.sparsity
        up = f"{prefix}gate, up" if gated else f"{prefix}up"
        self.gemm(up, "ffn", m, hidden, width, (2 if gated else 1) * count, sparsity=sparsity)
        self.gemm(f"{prefix}down", "ffn", m, width, hidden, count, sparsity=sparsity)

    def _count_ffn(self, width: int, times: int = 1) -> None:
        """The elements of a layer whose every token goes through `times` feed-forwards of `width`."""
        tokens, inside = times * self.step.tokens, (2 if self.shape.gated_ffn else 1) * width
        self.outputs += tokens * (inside + self.shape.hidden)
        self.inputs += tokens * width
        self.activation += tokens * width

    def vector(self) -> list[VectorWork]:
        """Element-wise work of the layers, in the order a token meets it; nothing where there is none."""
        shape, policy, rows = self.shape, self.policy, self.step.tokens
        latent = shape.latent
        kv_heads = shape.kv_heads if latent is None else 1
        rotated = (shape.rotary_dim or shape.head_dim) if latent is None else latent.rope
        rotated_width = rotated * (shape.heads + kv_heads) if shape.rope_base else 0
        cached = rows * shape.cached_per_token

        def work(name: str, kind: str, elements: int, times: int = 1) -> VectorWork:
            return VectorWork(name, elements, VECTOR_OPS[kind], times * self.count)

        inner = rows * (shape.heads * shape.value_dim + shape.ffn) if shape.inner_norms else 0
        items = [
            work("norms", "rmsnorm", rows * shape.hidden, shape.layer_norms),
            work("inner norms", "rmsnorm", self.norms + inner),
            work("rotary embedding", "rope", rows * rotated_width),
            work("slopes", "residual", self.scores if shape.alibi else 0),
            work("softmax", "softmax", self.scores),
            work("activation function", "silu_mul" if shape.gated_ffn else "gelu", self.activation),
            work("residual sums", "residual", rows * shape.hidden, 2),
            work("router", "softmax", self.routed),
            work("experts' sums", "residual", self.mixed),
        ]
        if policy.acts != "fp16":
            items += [
                work("quantise activations", "quantise", self.inputs),
                work("quantise keys and values", "quantise", cached),
                work("activation scales", "rescale", self.outputs),
            ]
        return [item for item in items if item.elements]
