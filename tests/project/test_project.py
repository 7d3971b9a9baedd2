"""The project's own rules: packages as listed, walls between rooms, generated pages not aged."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from bitwright.arch.machine import Machine
from bitwright.arch.space import Space
from bitwright.workloads.description import Workload
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("arch", "workloads", "rtl", "sim", "fpga", "reports", "cli")

# room -> rooms of ours it may import, and libraries it may not.
WALLS: dict[str, tuple[set[str], set[str]]] = {
    "arch": (set(), {"amaranth", "simpy"}),
    "workloads": ({"arch"}, {"amaranth", "simpy"}),
    "rtl": ({"arch"}, {"simpy"}),
    "sim": ({"arch", "workloads"}, {"amaranth"}),
    "reports": ({"arch", "workloads", "sim"}, {"amaranth", "simpy"}),
    "fpga": ({"arch", "rtl", "workloads"}, {"simpy"}),
    "cli": ({"arch", "workloads", "rtl", "sim", "fpga", "reports"}, {"amaranth", "simpy", "plotly"}),
}


def test_listed_packages_are_the_tree() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        "bitwright." + path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert listed == found


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_walls_between_rooms_hold(room: str) -> None:
    allowed, forbidden = WALLS[room]
    for path in (ROOT / room).rglob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            assert parts[0] not in forbidden, f"{path.relative_to(ROOT)} imports {name}"
            if parts[0] == "bitwright" and len(parts) > 1:
                assert parts[1] in allowed | {room}, f"{path.relative_to(ROOT)} imports {name}"


def test_of_the_fpga_room_only_the_host_knows_workloads_and_it_needs_no_hardware_description() -> None:
    for path in (ROOT / "fpga").rglob("*.py"):
        if "host" not in path.parts:
            assert not [name for name in imports(path) if name.startswith("bitwright.workloads")], path
    loaded = "import sys, bitwright.fpga.host.running as r; print('amaranth' in sys.modules, 'serial' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"], done.stderr


@pytest.mark.parametrize(("name", "model"), [("machine", Machine), ("space", Space), ("workload", Workload)])
def test_committed_json_schema_is_the_generated_one(name: str, model: type[BaseModel]) -> None:
    committed = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text())
    assert committed == model.model_json_schema(), "run `make docs`"


@pytest.mark.parametrize("page", ["format-list.md", "isa.md", "one-layer.md", "pes.md", "qsnr.md", "reproductions.md"])
def test_generated_page_has_not_aged(page: str) -> None:
    script = ROOT / "docs" / f"{page.removesuffix('.md').replace('-', '_')}.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert (ROOT / "docs" / page).read_text() == done.stdout, "run `make docs`"


def test_example_space_has_at_least_sixty_designs() -> None:
    from bitwright.arch import space

    assert sum(1 for _ in space.load(ROOT / "examples" / "first-sweep.yaml").points()) >= 60


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
)
def test_relative_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target
