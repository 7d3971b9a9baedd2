"""GPUs' roofline bounds as a table of a page: what no run of these formats can undercut, beside our fastest design.

The figures are the rows' own (`gpus`, of `sim.gpus`): bounds, not measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bitwright.reports.labels import POLICY_KEYS, Row, number, operands_label, weights_label

LEAD = (
    "The least time that a GPU's peak of the formats and its memory bandwidth allow, every weight and cached value "
    "moved once a step: a bound, no measurement. Beside it the fastest design here with the same formats."
)


def bounds_table(rows: Sequence[Row]) -> str:
    """HTML of the bounds of each format policy among `rows`, which share a workload; nothing where no row has them."""
    policies: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.get("gpus"):
            policies.setdefault(tuple(row[key] for key in POLICY_KEYS), []).append(row)
    if not policies:
        return ""
    lines, sources = [], {}
    for members in policies.values():
        first = members[0]
        steps = first["output_tokens"]
        prefill = number(min(row["ttft_ms"] for row in members))
        decode = number(min(row["tpot_ms"] for row in members)) if steps else "no decode"
        head = f"<th scope=row rowspan={len(first['gpus'])}>{escape(weights_label(first))}"
        head += f"<td rowspan={len(first['gpus'])}>{escape(operands_label(first))}"
        for at, gpu in enumerate(first["gpus"]):
            sources[gpu["gpu"]] = gpu["source"]
            least = number(gpu["least_decode_ms"] / steps) if steps else "no decode"
            figures = (number(gpu["least_prefill_ms"]), prefill, least, decode)
            lines.append(
                f"<tr>{head if at == 0 else ''}<td>{escape(gpu['gpu'])}<td>{escape(gpu['mac_format'])}"
                + "".join(f"<td class=n>{figure}" for figure in figures)
            )
    names = ("weights", "acts, kv, head", "GPU", "multiplies in")
    numbers = (
        "prefill, ms<br>at least",
        "prefill, ms<br>fastest here",
        "ms a step<br>at least",
        "ms a step<br>fastest here",
    )
    titles = "".join(f"<th scope=col>{name}" for name in names) + "".join(
        f"<th scope=col class=n>{name}" for name in numbers
    )
    feet = "".join(f"<p class=foot>{escape(gpu)}: {escape(source)}" for gpu, source in sources.items())
    table = f"<table class=plain><thead><tr>{titles}<tbody>{''.join(lines)}</table>"
    return f"<div class=scroll tabindex=0>{table}</div>{feet}"
