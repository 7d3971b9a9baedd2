"""Recording and reading traces: what they hold, how they survive a stop, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bitwright.arch import formats, trace
from bitwright.arch.errors import CheckpointError, ConfigError
from bitwright.arch.trace import Trace
from bitwright.workloads import checkpoint, tracing
from bitwright.workloads.policy import FormatPolicy
from bitwright.workloads.transformer import forward

POLICY = FormatPolicy(pe="float32", weights="int4_asym", group=16, acts="int8", kv="fp16", head="bitmod_fp4")
SIZE = {"tokens": 12, "samples": 5, "seed": 3}


def recorded(path: Path, folder: Path, **changes: Any) -> Trace:
    return tracing.record(path, folder, changes.pop("policy", POLICY), **(SIZE | changes))


def contents(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    header = json.loads(found[trace.HEADER])
    del header["command"]  # names the folder
    return found | {trace.HEADER: json.dumps(header).encode()}


def test_codes_decode_to_the_weights_in_their_format_and_acts_are_the_forward_passes(
    make_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    tiny = make_tiny()
    made = recorded(tiny.path, tmp_path / "t")
    again = trace.load(tmp_path / "t")
    assert again.header == made.header
    assert len(again.operators) == 15
    for name, row in again.operators.items():
        weight = tiny.weights["embed" if name == "head" else name]
        form = formats.get("bitmod_fp4" if name == "head" else "int4_asym")
        expected = form.decode(form.encode(weight, group=16))
        found = form.decode(again.codes(name))
        np.testing.assert_array_equal(found, expected)
        assert (row.n, row.k) == weight.shape
        assert row.weight_rms == pytest.approx(float(np.sqrt((weight.astype(float) ** 2).mean())))
        error = ((found - weight) ** 2).sum() / (weight.astype(float) ** 2).sum()
        assert row.weight_error == pytest.approx(error, rel=1e-5)
    seen: dict[str, Any] = {}
    tokens = np.asarray([again.header.token_ids])
    run = forward(
        checkpoint.load(tiny.path), POLICY, tokens, observe=lambda name, acts: seen.setdefault(name, acts.copy())
    )
    assert run.hidden.shape[1] == 12
    at = again.header.sampled_positions
    assert len(at) == 5
    for name, whole in (("layers.1.down", "layers.1.down_input"), ("layers.0.k", "layers.0.attn_input")):
        np.testing.assert_array_equal(again.acts(name), seen[whole][at])
    np.testing.assert_array_equal(again.acts("head"), seen["head.input"][at])


def test_files_are_safetensors_for_its_own_package(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed (pip install safetensors)")
    made = recorded(make_tiny().path, tmp_path / "t")
    loaded = package.load_file(tmp_path / "t" / "layer-001.safetensors")
    np.testing.assert_array_equal(loaded["up.codes"], made.codes("layers.1.up").codes)
    np.testing.assert_array_equal(loaded["down_input.acts"], made.acts("layers.1.down"))


class _Stop(Exception):
    pass


def test_a_run_stopped_at_any_write_goes_on_to_the_same_bytes(
    make_tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tiny().path
    recorded(path, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    assert set(expected) == {"trace.json", "layers.parquet", "layer-000.safetensors", "layer-001.safetensors",
                             "head.safetensors"}  # fmt: skip
    real, writes = os.replace, 0
    for point in range(100):
        folder = tmp_path / f"stopped-{point}"
        for after in (False, True):
            calls = 0

            def stopping(source: Any, target: Any, point: int = point, after: bool = after) -> None:
                nonlocal calls
                if Path(target).parent.name.startswith("stopped"):
                    calls += 1
                    if calls == point + 1:
                        if after:
                            real(source, target)
                        raise _Stop
                real(source, target)

            with monkeypatch.context() as patched:
                patched.setattr(os, "replace", stopping)
                try:
                    recorded(path, folder)
                except _Stop:
                    writes += 1
            recorded(path, folder)
            assert contents(folder) == expected, (point, after)
            if after:
                break
            for file in folder.iterdir():
                file.unlink()
        if calls <= point:
            break
    assert writes == 2 * 8, "begun, two layers and streams each, the head, parquet, trace.json"


def test_a_killed_process_leaves_a_trace_that_goes_on(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    path = make_tiny().path
    script = f"""
import os, signal
from pathlib import Path
from bitwright.workloads import tracing
from bitwright.workloads.policy import FormatPolicy
write = tracing._write_tensors
def killed(path, tensors, extra):
    write(path, tensors, extra)
    if path.name == "layer-001.safetensors":
        os.kill(os.getpid(), signal.SIGKILL)
tracing._write_tensors = killed
tracing.record(Path({str(path)!r}), {str(tmp_path / "t")!r}, FormatPolicy(**{POLICY.model_dump()!r}), **{SIZE!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(CheckpointError) as error:
        trace.load(tmp_path / "t")
    assert str(error.value) == (
        f"{tmp_path / 't'}: has no trace.json: an unfinished trace, or none "
        f"(bitwright trace MODEL -o {tmp_path / 't'}; it goes on where it stopped)"
    )
    recorded(path, tmp_path / "t")
    recorded(path, tmp_path / "whole")
    assert contents(tmp_path / "t") == contents(tmp_path / "whole")


def test_a_folder_of_something_else_is_refused(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    path, folder = make_tiny().path, tmp_path / "t"
    recorded(path, folder)
    before = contents(folder)
    with pytest.raises(ConfigError) as error:
        recorded(path, folder, seed=4)
    assert str(error.value) == (
        f"{folder}: holds a trace of other inputs: its sampled_positions differs (name another folder with -o, or "
        "remove this one)"
    )
    assert contents(folder) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError) as error:
        recorded(path, other)
    assert str(error.value) == f"{other}: is not empty and holds no trace (name another folder with -o)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 13}, "samples = 13: must be a whole number in 1..12, the tokens"),
        ({"seed": -1}, "seed = -1: must be a whole number of at least 0"),
        (
            {"policy": FormatPolicy(pe="float32", weights="stored")},
            "weights = stored: a trace records codes of a named format",
        ),
        (
            {"policy": FormatPolicy(pe="float32", weights="int4", method="mse")},
            "method = mse: a trace records weights rounded to nearest (use rtn)",
        ),
        (
            {"policy": FormatPolicy(pe="float32", weights="int4", group="tensor")},
            "group = tensor: a trace has one scale a row or a group (leave it out, or give a number)",
        ),
    ],
)
def test_bad_inputs_are_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, make_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        recorded(make_tiny().path, tmp_path / "t", **changes)
    assert str(error.value) == message
    assert not (tmp_path / "t").exists()


def test_damaged_traces_are_refused(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "t"
    made = recorded(make_tiny().path, folder)
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    head, layers, header = folder / "head.safetensors", folder / "layers.parquet", folder / "trace.json"

    def message(path: Path, content: bytes | None) -> str:
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            trace.load(folder)
        path.write_bytes(kept[path])
        return str(error.value)

    size = len(kept[head])
    assert f"past the end of the file at byte {size - 1}: not a readable safetensors file" in message(
        head, kept[head][:-1]
    )
    assert message(head, None) == f"{head}: no such file"
    assert message(head, kept[folder / "layer-000.safetensors"]) == f"{head}: has no tensor 'head.codes' (trace again)"
    assert message(layers, kept[layers][:-9]) == f"{layers}: not a readable parquet file (trace again)"
    assert message(layers, None) == f"{layers}: no such file (trace again)"
    fields = dataclasses.asdict(made.header)
    again = "(trace again with this bitwright)"
    assert message(header, json.dumps(fields | {"schema_version": 1}).encode()) == (
        f"{header}: schema_version = 1: must be 2 {again}"
    )
    assert message(header, json.dumps(fields | {"seed": "0"}).encode()) == f"{header}: seed = '0': must be int {again}"
    assert message(header, json.dumps(fields | {"more": 1}).encode()) == f"{header}: has an unknown 'more' {again}"
    assert message(header, json.dumps(fields | {"operators": 14}).encode()) == (
        f"{layers}: 15 rows: trace.json has 14 operators (trace again)"
    )
    files = made.header.files
    assert files == {path.name: hashlib.sha256(kept[path]).hexdigest() for path in kept if path != header}
    flipped = bytearray(kept[head])
    flipped[-1] ^= 1  # in the last tensor: no size and no name is wrong
    assert message(head, bytes(flipped)) == (
        f"{head}: damaged: its sha256 begins {hashlib.sha256(flipped).hexdigest()[:12]}, trace.json has "
        f"{files['head.safetensors'][:12]} (remove {folder} and trace again: {made.header.command})"
    )
    without = {name: sha256 for name, sha256 in files.items() if name != layers.name}
    assert message(header, json.dumps(fields | {"files": without}).encode()) == (
        f"{layers}: damaged: its sha256 begins {files[layers.name][:12]}, trace.json has no sha256 "
        f"(remove {folder} and trace again: {made.header.command})"
    )
    assert message(header, json.dumps(fields | {"files": files | {"head.safetensors": "0"}}).encode()) == (
        f"{header}: files: 'head.safetensors': '0': must be a sha256, 64 hexadecimal digits {again}"
    )
    assert message(header, json.dumps(fields | {"files": files | {"../t/trace.json": "0" * 64}}).encode()) == (
        f"{header}: files: '../t/trace.json': no such file in the folder"
    )
    trace.load(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError) as error:
        trace.load(empty)
    assert str(error.value) == (
        f"{empty}: an empty folder, no trace (bitwright trace MODEL -o {empty}; it goes on where it stopped)"
    )
    with pytest.raises(CheckpointError) as error:
        made.codes("layers.2.q")
    assert str(error.value) == (
        f"{folder}: has no operator 'layers.2.q': it is a trace of tiny, 15 operators (trace the model that is "
        "simulated)"
    )
