"""`bitwright generate MACHINE --fusesoc`: FuseSoC reads the core file, and its targets pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bitwright import rtl
from bitwright.arch.errors import ConfigError
from bitwright.rtl.bench.environment import verilator_root


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("core")
    rtl.generate("int8-2x3", folder / "small.v", fusesoc=True)
    return folder


def fusesoc(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    """Run a target of the only core in `folder`; the package's own Verilator is on the path."""
    shim = folder / "bin" / "verilator"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\nexec "{verilator_root()}/bin/verilator_bin" "$@"\n')
    shim.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "VERILATOR_ROOT": str(verilator_root()),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    name = "int8_mac_ws_2x3_p16_int8_int4_int4_asym"
    command = [str(Path(sys.executable).with_name("fusesoc")), "--cores-root", ".", "run", f"--target={target}", name]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_fusesoc_lints_the_core(core: Path) -> None:
    done = fusesoc(core, "lint")
    assert done.returncode == 0, done.stdout + done.stderr
    broken = (core / "small.v").read_text()
    (core / "small.v").write_text(broken.replace("// verilator lint_off UNUSEDSIGNAL\n", ""))
    assert fusesoc(core, "lint").returncode != 0
    (core / "small.v").write_text(broken)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed (apt-get install iverilog)")
def test_fusesoc_simulates_the_core(core: Path) -> None:
    done = fusesoc(core, "sim")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout.splitlines()


def test_only_machines_have_a_core_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        rtl.generate("int8-mac", tmp_path / "x.v", fusesoc=True)
    assert str(caught.value) == "fusesoc: int8-mac is a stream; only a machine's accelerator has a core file"
