"""What never happens inside a block-scaled dot product, for proofs that a mutant changes nothing that does."""

from __future__ import annotations

from bitwright.arch.pe.block_dot import BlockDot
from bitwright.rtl.bench.stream.windows import Fact

_ONE_NAN = "x[30:23] != 8'hff || x[22:0] == 0 || x == 32'h7fc00000"


def facts(spec: BlockDot) -> tuple[Fact, ...]:
    """Facts of the wires of a PE without a pipeline, for `windows.prove_facts`; none of others, whose wires are cut.

    Every NaN is the canonical one. With E4M3 scales a block of 2**-20 to less than 2**34 (or 0, or NaN) leaves the
    accumulator at exponents where nothing is infinite or subnormal: a sum of 2**59 or more no longer changes. A sum of
    integers has no more than its extreme products.
    """
    if spec.pipeline:
        return ()
    if spec.scale_format == "e8m0":
        free = ("sum_of_products", "scale_exponent")
        return (*_ranges(spec), *_accumulated(_ONE_NAN, _ONE_NAN, free))
    within = "x[30:0] == 0 || x == 32'h7fc00000 || (x[30:23] >= {least} && x[30:23] <= {most})"
    block, acc = within.format(least=127 - 20, most=127 + 33), within.format(least=80, most=220)
    return _accumulated(block, acc, ("scaled", "scale_exponent"))


def _accumulated(block: str, acc: str, free: tuple[str, ...]) -> tuple[Fact, ...]:
    """Of the block, the accumulator and what goes on from it."""
    return (
        Fact("block_fp32", 32, block, free),
        Fact("sum__payload", 32, acc, register=True),
        Fact("start", 32, acc),
    )


def _ranges(spec: BlockDot) -> tuple[Fact, ...]:
    """Of integer products, their sum and its magnitude."""
    if not spec.element.integer:
        return ()
    low, high = min(spec.element.finite), max(spec.element.finite)
    least, most = low * high, max(low * low, high * high)
    lanes = tuple(f"lane_{lane}_product" for lane in range(spec.lanes))
    within = "$signed(x) >= {} && $signed(x) <= {}"
    return (
        *(Fact(lane, spec.product_bits, within.format(least, most)) for lane in lanes),
        Fact("sum_of_products", spec.sum_bits, within.format(spec.lanes * least, spec.lanes * most), lanes),
        Fact("magnitude", spec.sum_bits - 1, f"x <= {spec.lanes * most}", ("sum_of_products",)),
    )
