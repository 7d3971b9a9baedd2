"""What an edge unit sees in every cycle: port values for the netlist simulator, one operation a cycle.

A lane is one column. Units below an array take, for each of four groups in turn, the group's result for 64 tokens;
their accumulator is the true running sum. Units above an array take 256 weights of one column, one a cycle.
Each run ends with idle cycles: valid = 0, all inputs held.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bitwright.arch.pe import PESpec
from bitwright.arch.pe.units import Fp32Accumulator, GroupDequantiser, WeightDecoder, WeightDequantiser
from bitwright.arch.pe.weight_codes import weight_code
from bitwright.rtl.asic import operands
from bitwright.rtl.asic.stimulus import ACTIVE, ARRAY_ROWS, UNCOUNTED, Stimulus, reset_port, to_bits, with_idle
from numpy.typing import NDArray

GROUPS = 4
WARM_UP_CYCLES = 4
DEQUANTISER_ACC_DELAY = 2
RANDOM_TOGGLES_PER_CYCLE = 0.5


def _finish(streams: dict[str, NDArray[Any]]) -> Stimulus:
    """Streams [operation, lane] to ports: a reset cycle in front, warm-up not counted, idle cycles at the end."""
    count = len(next(iter(streams.values())))
    ports = {}
    for name, values in streams.items():
        bits = to_bits(values)
        ports[name] = np.concatenate([bits[:1], bits])
    valid = np.ones((count + 1, 1), np.int64)
    valid[0] = 0
    bins = [UNCOUNTED] * (1 + WARM_UP_CYCLES) + [ACTIVE] * (count - WARM_UP_CYCLES)
    return with_idle({"rst": reset_port(count + 1), "valid": valid, **ports}, bins, ("valid",))


def _lanes(values: NDArray[Any]) -> NDArray[Any]:
    """[operation, L, N] to [operation, L * N]."""
    return values.reshape(len(values), -1)


def _held(metadata: NDArray[Any], group: int, tokens: int) -> NDArray[Any]:
    """One group's [L, N] metadata, the same for all tokens: [T, L, N]."""
    return np.broadcast_to(metadata[:, :, group], (tokens, *metadata.shape[:2]))


def group_dequantiser(unit: GroupDequantiser, spec: PESpec, format_name: str, *, random: bool) -> Stimulus:
    """Sums of an integer PE's groups, with the format's scales and zero points."""
    found = operands.weights(format_name, random=random)
    acts = operands.activations(spec, random=random)
    wgts = operands.pe_weights(spec, found)
    tokens = acts.shape[1]
    zeros = found.zeros if unit.zero_bits else np.zeros_like(found.zeros)
    fraction_bits = weight_code(format_name).fraction_bits
    scales = found.scales if unit.halves else np.ldexp(found.scales, -fraction_bits).astype(np.float16)
    acc = np.zeros((tokens, *wgts.shape[:2]), np.float32)
    streams: dict[str, list[NDArray[Any]]] = {}
    for group in range(GROUPS):
        channels = slice(group * operands.GROUP, (group + 1) * operands.GROUP)
        psum = np.einsum("ltk,lnk->tln", acts[..., channels], wgts[..., channels])
        act_sum = np.broadcast_to(acts[..., channels].sum(axis=2).T[:, :, None], psum.shape)
        values = {"psum": psum, "scale": _held(scales, group, tokens), "acc": acc}
        keywords: dict[str, Any] = {}
        if unit.zero_bits:
            values |= {"zero": _held(zeros, group, tokens), "act_sum": act_sum}
            keywords |= {"zero": values["zero"], "act_sum": act_sum}
        if unit.scale_code_bits:
            values["scale_code"] = keywords["scale_code"] = _held(found.scale_codes, group, tokens)
        if unit.halves:
            values["halve"] = keywords["halve"] = np.full(psum.shape, fraction_bits, np.int64)
        for name, value in values.items():
            streams.setdefault(name, []).append(_lanes(value))
        acc = unit.dequantise(acc, psum, values["scale"], **keywords)
    joined = {name: np.concatenate(parts) for name, parts in streams.items()}
    late = joined["acc"]
    joined["acc"] = np.concatenate([late[:1].repeat(DEQUANTISER_ACC_DELAY, axis=0), late])[: len(late)]
    return _finish(joined)


def fp32_accumulator(unit: Fp32Accumulator, spec: PESpec, format_name: str, *, random: bool) -> Stimulus:
    """Sums of 64 products of the fp16 PE, added to the true running sum."""
    acts = operands.activations(spec, random=random)
    wgts = operands.pe_weights(spec, operands.weights(format_name, random=random))
    acc = np.zeros((acts.shape[1], *wgts.shape[:2]), np.float32)
    psums, accs = [], []
    for group in range(GROUPS):
        psum = np.zeros_like(acc)
        for k in range(group * operands.GROUP, (group + 1) * operands.GROUP):
            psum = spec.accumulate(psum, acts[:, :, k].T[:, :, None], wgts[None, :, :, k])
        psums.append(_lanes(psum))
        accs.append(_lanes(acc))
        acc = unit.accumulate(acc, psum)
    return _finish({"psum": np.concatenate(psums), "acc": np.concatenate(accs)})


def int_accumulator(spec: PESpec, format_name: str, *, random: bool) -> Stimulus:
    """Sums of 16 products of an integer PE, added to the true running sum of the group."""
    acts = operands.activations(spec, random=random)
    wgts = operands.pe_weights(spec, operands.weights(format_name, random=random))
    acc = np.zeros((acts.shape[1], *wgts.shape[:2]), np.int64)
    psums, accs = [], []
    for part in range(operands.GROUP // ARRAY_ROWS):
        channels = slice(part * ARRAY_ROWS, (part + 1) * ARRAY_ROWS)
        psum = np.einsum("ltk,lnk->tln", acts[..., channels], wgts[..., channels])
        psums.append(_lanes(psum))
        accs.append(_lanes(acc))
        acc = acc + psum
    return _finish({"psum": np.concatenate(psums), "acc": np.concatenate(accs)})


def weight_unit(unit: WeightDequantiser | WeightDecoder, *, random: bool) -> Stimulus:
    """Codes of one column after the other input channel, with their group's metadata."""
    found = operands.weights(unit.format, random=random)

    def column(values: NDArray[Any]) -> NDArray[Any]:
        return _lanes(values.transpose(2, 0, 1))

    streams = {"code": column(found.codes)}
    is_bf16 = unit.format == "bf16"
    if not is_bf16 and unit.code.zero_bits:
        streams["zero"] = column(found.per_value(found.zeros))
    if not is_bf16 and unit.code.selector_bits:
        streams["selector"] = column(found.per_value(found.selectors))
    if isinstance(unit, WeightDequantiser) and not is_bf16:
        streams["scale"] = column(found.per_value(found.scales))
        if unit.scale_code_bits:
            streams["scale_code"] = column(found.per_value(found.scale_codes))
    return _finish(streams)


def delay_line(width: int, *, random: bool) -> Stimulus:
    """Random words of `width` bits, or nothing but zeros (random = False): for the register entry."""
    rng = np.random.default_rng([operands.SEED, width])
    words = rng.integers(0, 1 << width, (GROUPS * operands.GROUP, 64)) if random else np.zeros((64, 64), np.int64)
    return _finish({"word": words})
