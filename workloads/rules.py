"""Which arithmetic a policy asks for: the rule of its matrices and that of its attention."""

from __future__ import annotations

from bitwright.arch.errors import ConfigError
from bitwright.arch.formats.base import Encoded, Group
from bitwright.workloads.attention import AttentionRule
from bitwright.workloads.checkpoint import Checkpoint
from bitwright.workloads.linear import F32, FloatRule, Fp16Rule, IntegerRule, LinearRule, Operand, SquaredError
from bitwright.workloads.policy import OF_TILES, FormatPolicy
from bitwright.workloads.product_rules import ProductRule
from bitwright.workloads.quantise.prepared import Prepared


def rule_for(policy: FormatPolicy, checkpoint: Checkpoint | None = None, *, head: bool = False) -> LinearRule:
    """The arithmetic of `policy` for the layers' matrices, or the head's, behind what `checkpoint` does to inputs."""
    name, group = (policy.head_format, policy.head_group) if head else (policy.weights, policy.group)
    rule = _arithmetic(policy, name, group)
    return PreparedActs(rule, checkpoint) if isinstance(checkpoint, Prepared) else rule


def attention_for(policy: FormatPolicy) -> AttentionRule:
    """The arithmetic of `policy` for the attention: without a PE only the cache is quantised."""
    return AttentionRule("fp32" if policy.pe == "float32" else policy.acts, policy.kv)


def check_arithmetic(policy: FormatPolicy) -> None:
    """ConfigError for a PE whose arithmetic is not built for whole models."""
    if policy.pe in OF_TILES:
        raise ConfigError(
            f"policy.pe = '{policy.pe}': a perplexity does not follow this PE's arithmetic yet, only its cycles are "
            "simulated (pe = 'float32' with the same formats tells what the formats cost)"
        )


def _arithmetic(policy: FormatPolicy, format_name: str, group: Group) -> LinearRule:
    if policy.product != "exact":
        return ProductRule(policy.product, format_name, group, policy.acts)
    if policy.pe == "float32":
        return FloatRule(format_name, group, policy.acts)
    assert group != "tensor", "refused when the policy was made"
    check_arithmetic(policy)
    if policy.pe == "fp16-mac":
        return Fp16Rule(format_name, group)
    return IntegerRule(format_name, group, per_tensor=policy.acts == "int8_tensor")


class PreparedActs:
    """`rule` behind a checkpoint that changes activations at run time (an online rotation)."""

    def __init__(self, rule: LinearRule, checkpoint: Prepared) -> None:
        self._rule, self._checkpoint = rule, checkpoint

    def encode_weights(self, weight: F32, what: str, codes: Encoded | None = None) -> tuple[Operand, SquaredError]:
        """As the rule."""
        return self._rule.encode_weights(weight, what, codes)

    def encode_acts(self, acts: F32, windows: int, what: str) -> Operand:
        """The rule's operand of the changed activations."""
        return self._rule.encode_acts(self._checkpoint.prepare_acts(what, acts), windows, what)

    def multiply(self, acts: Operand, weights: Operand) -> F32:
        """As the rule."""
        return self._rule.multiply(acts, weights)
