"""The rows of the comparison and the table that they print as."""

from __future__ import annotations

from dataclasses import dataclass

from peers.runs import Run, Status


@dataclass(frozen=True)
class Row:
    """One run beside ours: `ours_cycles`, `ours_processor_s` are of our answer under the same assumptions."""

    work: str
    array: int
    dataflow: str
    who: str
    run: Run
    cycles: float | None
    ours_cycles: int | None
    ours_processor_s: float | None
    remark: str = ""


HEADER = ("GEMM M,K,N", "array", "who", "cycles", "cycles / ours", "CPU s", "CPU s / fast engine", "wall s", "MiB", "")


def cells(row: Row) -> tuple[str, ...]:
    """The cells of `HEADER`; a run without an answer says why in the last."""
    took = row.run.processor_s
    return (
        row.work,
        f"{row.array} {row.dataflow}",
        row.who,
        "-" if row.cycles is None else f"{row.cycles:,.0f}",
        _ratio(row.cycles, row.ours_cycles),
        _seconds(took),
        _ratio(took, row.ours_processor_s) if row.run.status is Status.DONE else "-",
        _seconds(row.run.wall_s),
        "-" if row.run.peak_mib is None or row.run.peak_mib < 1 else f"{row.run.peak_mib:,.0f}",
        "; ".join(
            part for part in ("" if row.run.status is Status.DONE else row.run.status, row.run.why, row.remark) if part
        ),
    )


def _ratio(left: float | None, right: float | None) -> str:
    if left is None or not right:
        return "-"
    ratio = left / right
    return f"{ratio:.3f}" if 0.1 <= ratio < 10 else f"{ratio:.3g}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table; a work's name is printed once, above the rows that share it."""
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    before: tuple[str, ...] = ()
    for row in rows:
        first = ("", "") if row[:2] == before else row[:2]
        lines.append(f"| {' | '.join((*first, *row[2:]))} |")
        before = row[:2]
    return "\n".join(lines)


def same_cycles(found: list[tuple[str, float, int]]) -> list[str]:
    """The messages of (name, a peer's cycles, ours) that must be equal and are not."""
    return [f"{name}: {theirs:,.0f} of the peer, {ours:,} of ours" for name, theirs, ours in found if theirs != ours]
