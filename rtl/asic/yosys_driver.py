"""Runs one Yosys script in a process of its own: `python yosys_driver.py script.ys`.

pyosys ends the whole process on an error in a pass, and ABC may take much memory: neither may hurt the caller.
"""

from __future__ import annotations

import sys


def main(script: str) -> None:
    """Run the script file; an error in a pass ends this process with status 1."""
    from pyosys import libyosys

    libyosys.Design().run_pass(f"script {script}")


if __name__ == "__main__":
    main(sys.argv[1])
