"""A model on an array of data-dependent PEs, with cycles from the real codes of a trace beside the Gaussian guess.

One event is a tile: `rows` tokens by `cols` outputs, the whole reduction. All PEs of a column share a weight; columns
run apart and meet when the tile ends, so a tile takes the most that a column's weights take together, and

    cycles of a matrix = ceil(tokens / rows) * sum over its tiles of max over columns of sum over k of weight cycles

Energy and area are of the PEs alone, from the table of PEs behind streams: an active cycle for each cycle that a weight
takes, an idle one for each in which a column waits for the longest, and for a PE whose rows have no token.

Fidelity: a weight's cycles are the PE's golden timing, exact; the tile is the rule above (`tile_cycles`: another may
be given). Not modelled is listed in `NOT_MODELLED`, which every result carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from bitwright.arch import costs, pe
from bitwright.arch import machine as machines
from bitwright.arch.costs import StreamCost
from bitwright.arch.errors import ConfigError, shown
from bitwright.arch.pe.stream import StreamSpec
from bitwright.arch.trace import Operator, Trace
from bitwright.workloads import models
from bitwright.workloads.data_cycles import (
    CycleCounts,
    TileCycles,
    data_dependent,
    drawn_sums,
    gaussian_like,
    longest_column,
    tiles_cycles,
    weight_cycles,
)
from bitwright.workloads.shapes import ModelShape

SCHEMA_VERSION = 1
NOT_MODELLED = (
    "cycles of the array alone while its columns work: filling, draining, loading operands and DRAM are not in them",
    "weight matrices and head only: no attention with the KV cache, no element-wise work",
    "energy and area of the PEs alone: no buffers, wires between PEs or DRAM; an active cycle costs "
    "what one on SmolLM2's weights and activations in the PE's own format does",
    "the Gaussian guess: independent values of the tensor's root mean square, encoded in the same format and group",
)
_SEED = 6
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ColumnArray:
    """`rows` tokens by `cols` outputs of a data-dependent PE."""

    name: str
    spec: StreamSpec
    rows: int
    cols: int
    tile_cycles: TileCycles = longest_column

    @property
    def pes(self) -> int:
        """PEs in it; one of several lanes takes as many rows."""
        return self.cols * self._pe_rows(self.rows)

    def working(self, tokens: int) -> int:
        """PEs of a column that have a token, summed over the passes that `tokens` take."""
        passes, rest = divmod(tokens, self.rows)
        return passes * self._pe_rows(self.rows) + self._pe_rows(rest)

    def _pe_rows(self, rows: int) -> int:
        return -(-rows // self.spec.macs_per_step)


def array(name: str) -> ColumnArray:
    """The array of a machine ("opt3-32x32", a YAML file). ConfigError: no such machine, or no data-dependent PE."""
    machine = machines.load(name)
    pe_name, params = pe.parse_name(machine.pe)
    return ColumnArray(machine.name, data_dependent(pe_name, **params), machine.array.rows, machine.array.cols)


@dataclass(frozen=True)
class _Tensor:
    """One matrix: the cycles of its weights, and of all its tiles once, from real codes and from Gaussian ones.

    real, gaussian : of one weight, as they are distributed; of a stand-in's in the other model's
    weight_cycles : of all real weights, one after the other
    """

    name: str
    operator: str
    count: int
    n: int
    k: int
    real: CycleCounts
    gaussian: CycleCounts
    weight_cycles: int
    tiles: int
    tiles_gaussian: int

    def energy_pj(self, machine: ColumnArray, cost: StreamCost, passes: int, working: int) -> tuple[float, float]:
        """Dynamic energy of all PEs over `passes`, of which `working` of a column have a token; its standard error."""
        busy = self.count * working * self.weight_cycles
        waiting = self.count * passes * machine.pes * self.tiles - busy
        return busy * cost.active_pj + waiting * cost.idle_pj, busy * cost.active_error_pj


def simulate_trace(
    machine: ColumnArray,
    model: str,
    trace: Trace,
    *,
    prompt_tokens: int = 128,
    output_tokens: int = 32,
    batch: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The row of prefill and decode of `model`: cycles a layer and in all, real and Gaussian; area and energy of the
    PEs (None where the table has no row of the PE).

    A model with weights must be the trace's own (`source` "trace": every code is counted). A model of which only the
    shape is known (a name, a config.json) takes each operator's distribution of cycles from the trace, all layers
    together, in independent draws (`source` "stand-in"). Raises ConfigError for sizes below 1 (output_tokens below 0),
    a model of another hash and a format that the PE does not take; CheckpointError for an operator
    that the trace lacks.
    """
    for name, value, least in (
        ("prompt_tokens", prompt_tokens, 1), ("output_tokens", output_tokens, 0), ("batch", batch, 1),
    ):  # fmt: skip
        if type(value) is not int or value < least:
            raise ConfigError(f"{name} = {value}: must be a whole number of at least {least}; the workload")
    shape = models.shape_of(model)
    sha256 = None if model.endswith(".json") else models.weights_sha256(model)
    if sha256 is not None and sha256 != trace.header.weights_sha256:
        raise ConfigError(
            f"{trace.folder}: is a trace of {trace.header.model} (weights sha256 {trace.header.weights_sha256[:12]}), "
            f"and {model} has sha256 {sha256[:12]} (bitwright trace {model} -o DIR)"
        )
    own = [_layer_name(shape, matmul, i) for matmul, count in _matmuls(shape) for i in range(count)]
    needed = own if sha256 is not None else list(trace.operators)
    measured = []
    for index, name in enumerate(needed):
        measured.append(_measure(machine, trace, trace.operator(name), index))
        if progress is not None:
            progress(index + 1, len(needed))
    tensors = measured if sha256 is not None else list(_stand_in(machine, shape, trace, measured))
    passes = -(-batch * prompt_tokens // machine.rows), output_tokens * -(-batch // machine.rows)
    head_passes = -(-batch // machine.rows), passes[1]  # only the last token of a prompt has logits
    layers, energies, macs = [], [], 0
    cost = costs.stream(machine.spec.name, machine.spec.params)
    for tensor in tensors:
        prefill, decode = head_passes if tensor.operator == "head" else passes
        layers.append(_layer(tensor, prefill, decode))
        tokens = batch * (1 if tensor.operator == "head" else prompt_tokens)
        macs += tensor.count * tensor.n * tensor.k * (tokens + batch * output_tokens)
        if cost is not None:
            working = machine.working(tokens) + output_tokens * machine.working(batch)
            energies.append(tensor.energy_pj(machine, cost, prefill + decode, working))
    row = _row(machine, model, trace, tensors, layers, "trace" if sha256 is not None else "stand-in")
    return (
        row
        | _costs(machine, cost, energies, row["array_cycles"], macs)
        | {
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
            "batch": batch,
        }
    )


def _matmuls(shape: ModelShape) -> list[tuple[str, int]]:
    return [(matmul.name, matmul.count) for matmul in shape.matmuls()]


def _layer_name(shape: ModelShape, matmul: str, layer: int) -> str:
    return matmul if matmul == "head" else f"layers.{layer}.{matmul}"


def _measure(machine: ColumnArray, trace: Trace, row: Operator, index: int) -> _Tensor:
    cycles = weight_cycles(machine.spec, trace.codes(row.name))
    guess = gaussian_like((row.n, row.k), row.weight_rms, row.weight_format, row.group, (_SEED, index))
    guessed = weight_cycles(machine.spec, guess)
    tiles, tiles_gaussian = (
        tiles_cycles(found.sum(axis=1), machine.cols, machine.tile_cycles) for found in (cycles, guessed)
    )
    counts = CycleCounts.of(cycles), CycleCounts.of(guessed)
    return _Tensor(row.name, row.operator, 1, row.n, row.k, *counts, int(cycles.sum()), tiles, tiles_gaussian)


def _stand_in(machine: ColumnArray, shape: ModelShape, trace: Trace, measured: list[_Tensor]) -> Iterable[_Tensor]:
    for index, matmul in enumerate(shape.matmuls()):
        same = [tensor for tensor in measured if tensor.operator == matmul.name]
        if not same:
            raise ConfigError(
                f"{trace.folder}: a trace of {trace.header.model} has no operator {shown(matmul.name)} to stand in for "
                f"that of {shape.name}"
            )
        real, gaussian = (reduce(add, (getattr(t, kind) for t in same)) for kind in ("real", "gaussian"))
        sums, guessed = (
            drawn_sums(counts, matmul.n, matmul.k, (_SEED, index, kind)) for kind, counts in enumerate((real, gaussian))
        )
        tiles, tiles_gaussian = (tiles_cycles(found, machine.cols, machine.tile_cycles) for found in (sums, guessed))
        sizes = matmul.count, matmul.n, matmul.k
        total = int(sums.sum())
        yield _Tensor(matmul.name, matmul.name, *sizes, real, gaussian, total, tiles, tiles_gaussian)


def _layer(tensor: _Tensor, prefill: int, decode: int) -> dict[str, Any]:
    passes = (prefill + decode) * tensor.count
    return {
        "name": tensor.name,
        "count": tensor.count,
        "n": tensor.n,
        "k": tensor.k,
        "mean_cycles_per_weight": tensor.real.mean,
        "max_cycles_per_weight": tensor.real.most,
        "gaussian_mean_cycles_per_weight": tensor.gaussian.mean,
        "prefill_cycles": prefill * tensor.count * tensor.tiles,
        "decode_cycles": decode * tensor.count * tensor.tiles,
        "array_cycles": passes * tensor.tiles,
        "gaussian_array_cycles": passes * tensor.tiles_gaussian,
        "gaussian_error": tensor.tiles_gaussian / tensor.tiles - 1,
    }


def _costs(
    machine: ColumnArray, cost: StreamCost | None, energies: list[tuple[float, float]], cycles: int, macs: int
) -> dict[str, Any]:
    """Area and energy of the PEs at the table's node and clock; `energies`: dynamic ones and their errors, pJ."""
    names = ("node", "clock_mhz", "area_mm2", "energy_uj", "energy_error_uj", "leakage_uj", "energy_pj_per_mac")
    found: dict[str, Any] = {"array_pes": machine.pes, **dict.fromkeys(f"array_{name}" for name in names)}
    found["pe_rtl_sha256"] = None
    if cost is None:
        return found
    dynamic_pj, error_pj = (sum(each) for each in zip(*energies, strict=True))
    leakage_pj = machine.pes * cost.leakage_uw / cost.clock_mhz * cycles
    whole_pj = dynamic_pj + leakage_pj
    area_mm2, energies_uj = machine.pes * cost.area_um2 / 1e6, (pj / 1e6 for pj in (whole_pj, error_pj, leakage_pj))
    values = (cost.node, cost.clock_mhz, area_mm2, *energies_uj, whole_pj / macs)
    figures = dict(zip((f"array_{name}" for name in names), values, strict=True))
    return found | figures | {"pe_rtl_sha256": cost.rtl_sha256}


def _row(
    machine: ColumnArray, model: str, trace: Trace, tensors: list[_Tensor], layers: list[dict[str, Any]], source: str
) -> dict[str, Any]:
    total, guessed = (sum(layer[key] for layer in layers) for key in ("array_cycles", "gaussian_array_cycles"))
    weights = sum(tensor.count * tensor.n * tensor.k for tensor in tensors)
    notes = list(NOT_MODELLED)
    if source == "stand-in":
        notes.insert(
            0,
            f"stand-in: {model} has no weights here; each operator's cycles are drawn, independently, from those of "
            f"the same operator of {trace.header.model}, all layers together: an estimate, no bound",
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine.name,
        "pe": machine.spec.name,
        "rows": machine.rows,
        "cols": machine.cols,
        "model": model,
        "source": source,
        "trace_model": trace.header.model,
        "trace_weights_sha256": trace.header.weights_sha256,
        "weights": trace.header.policy["weights"],
        "group": trace.header.policy["group"],
        "mean_cycles_per_weight": sum(t.real.mean * t.count * t.n * t.k for t in tensors) / weights,
        "gaussian_mean_cycles_per_weight": sum(t.gaussian.mean * t.count * t.n * t.k for t in tensors) / weights,
        "max_cycles_per_weight": max(t.real.most for t in tensors),
        "prefill_cycles": sum(layer["prefill_cycles"] for layer in layers),
        "decode_cycles": sum(layer["decode_cycles"] for layer in layers),
        "array_cycles": total,
        "gaussian_array_cycles": guessed,
        "gaussian_error": guessed / total - 1,
        "layers": layers,
        "notes": notes,
    }
