"""`python -m bitwright.cli` is `bitwright`."""

from bitwright.cli.main import run

run()
