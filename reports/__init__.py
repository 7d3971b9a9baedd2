"""Pictures of results; computes nothing that a result row lacks.

`report(rows, out)` writes one self-contained HTML page; `python -m bitwright.reports.screenshot` turns it into a
PNG. Ratios, sorting and Pareto dominance for display are made here; every other number comes from a row.
"""

from bitwright.reports.html import TITLE, report

__all__ = ["TITLE", "report"]
