"""The random programs of the simulator's tests, and the comparison beside these tests, are modules."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).parent
for folder in (_HERE, _HERE.parents[1] / "sim" / "accelerator"):
    sys.path.insert(0, str(folder))
