"""Verilog text to a shared library, once, and numpy arrays through it at millions of cycles a second."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bitwright.arch.errors import ConfigError, ToolError, suggest
from bitwright.rtl.bench.driver import RESET, Port, driver_source, ports_of
from bitwright.rtl.bench.environment import cache_folder, require, verilator_root, verilator_version
from bitwright.rtl.bench.words import Words, from_integers, to_integers

# Amaranth's widths are exact-plus-carry and its registers have initial values: these four say so, nothing else.
LINT_WAIVERS = ("-Wno-UNUSEDSIGNAL", "-Wno-PROCASSINIT", "-Wno-WIDTHEXPAND", "-Wno-DECLFILENAME")
_VERILATE = (
    "--cc",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "unique",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
)
_DEFINES = tuple(
    f"-DVM_{name}=0" for name in ("COVERAGE", "SC", "TIMING", "TRACE", "TRACE_FST", "TRACE_VCD", "TRACE_SAIF")
)
_CXX = ("-std=gnu++17", "-fcf-protection=none", "-w", "-pthread", "-DVERILATOR=1", *_DEFINES)
# Several designs live in one process: none may share another's symbols.
_LIBRARY = ("-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-DVL_TIME_CONTEXT")
_SMALL_BYTES = 1 << 19
_DELAY = re.compile(r"#\s*\d")
_ZERO_INIT = re.compile(r"^(\s*reg (?:\[\d+:\d+\] )?\\?\S+\s?) = \d+'[hdb]0+;", re.MULTILINE)


def _call(command: Sequence[str], folder: Path) -> None:
    """Run a tool; ToolError with the head of its complaint when it fails."""
    environment = {**os.environ, "VERILATOR_ROOT": str(verilator_root())}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise ToolError(f"{Path(command[0]).name} failed (status {done.returncode}): " + " | ".join(lines[:6]))


def without_zero_init(verilog: str) -> str:
    """The text without the zero initial values of registers, so that they can power up random."""
    return _ZERO_INIT.sub(r"\1;", verilog)


def lint(verilog: str, top: str, waivers: Sequence[str] = LINT_WAIVERS) -> list[str]:
    """Warnings of `verilator --lint-only -Wall` that `waivers` do not cover, one line each.

    Raises ToolError when Verilator fails without naming a warning or an error.
    """
    binary = verilator_root() / "bin" / "verilator_bin"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{top}.v").write_text(verilog)
        done = subprocess.run(
            [str(binary), "--lint-only", "-Wall", *waivers, "--top-module", top, f"{top}.v"],
            cwd=folder, env={**os.environ, "VERILATOR_ROOT": str(verilator_root())}, capture_output=True, text=True,
        )  # fmt: skip
    found = [line for line in done.stderr.splitlines() if line.startswith(("%Warning", "%Error"))]
    if done.returncode and not found:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise ToolError(
            f"verilator --lint-only of {top}: status {done.returncode}: {' | '.join(lines[:6]) or 'no message'}"
        )
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path`; the system releases it when a process dies."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build_once(key: str, build: Any) -> Path:
    """The folder `cache/key`, made once by `build(folder)`: in a temporary folder under a lock, then renamed whole."""
    cache = cache_folder()
    final = cache / key
    if final.is_dir():
        return final
    with _locked(cache / f".{key}.lock"):
        if not final.is_dir():
            scratch = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=cache))
            try:
                build(scratch)
                scratch.rename(final)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return final


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _compile_all(sources: Sequence[Path], flags: Sequence[str], folder: Path) -> list[str]:
    """Compile C++ sources into objects in `folder`, on all cores; returns the objects' paths."""
    compiler = require("g++")["g++"]
    objects = [folder / f"{source.stem}.o" for source in sources]
    # Verilator's own "Slow" files run once at the start; with tables of thousands of names -O1 takes minutes on them.
    jobs = [
        [compiler, *flags, *(["-O0"] if source.stem.endswith("__Slow") else []), "-c", str(source), "-o", str(target)]
        for source, target in zip(sources, objects, strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(lambda job: _call(job, folder), jobs))
    return [str(target) for target in objects]


def _gathered(sources: Sequence[Path], whole: Path) -> list[Path]:
    """The sources, small ones as one file that includes them, since most of their time goes into headers."""
    sizes = {source: source.stat().st_size for source in sources}
    most = _SMALL_BYTES if sum(sizes.values()) <= _SMALL_BYTES else _SMALL_BYTES // 8
    whole.write_text("".join(f'#include "{source}"\n' for source in sources if sizes[source] <= most))
    return [whole, *(source for source in sources if sizes[source] > most)]


def _includes() -> list[str]:
    include = verilator_root() / "include"
    return [f"-I{include}", f"-I{include / 'vltstd'}"]


def _header(flags: Sequence[str]) -> list[str]:
    """Flags that take Verilator's header precompiled, once a set of flags: half of a small design's build."""

    def build(scratch: Path) -> None:
        (scratch / "runtime.h").write_text('#include "verilated.h"\n')
        compiler = require("g++")["g++"]
        _call([compiler, *flags, *_includes(), "-x", "c++-header", "runtime.h", "-o", "runtime.h.gch"], scratch)

    folder = build_once("header-" + digest(verilator_version(), *flags), build)
    return ["-include", str(folder / "runtime.h")]


def _runtime(names: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Objects of Verilator's own runtime, compiled once a machine and set of flags."""
    include = verilator_root() / "include"
    sources = [include / f"{name}.cpp" for name in names]
    folder = build_once(
        "runtime-" + digest(verilator_version(), *names, *flags),
        lambda scratch: _compile_all(sources, [*flags, "-O2", *_includes()], scratch),
    )
    return [str(folder / f"{name}.o") for name in names]


def _verilate(folder: Path, verilog: str, top: str, options: Sequence[str]) -> Path:
    """Translate `verilog` to C++ in `folder`/cpp; returns that folder."""
    (folder / f"{top}.v").write_text(verilog)
    binary = str(verilator_root() / "bin" / "verilator_bin")
    delays = ["--no-timing"] if _DELAY.search(verilog) else []  # of a user's Verilog: they are nothing here
    _call([binary, *_VERILATE, *delays, *options, "--top-module", top, "-Mdir", "cpp", f"{top}.v"], folder)
    return folder / "cpp"


def link(
    folder: Path, verilog: str, top: str, driver: Path, output: str, *, verilate: Sequence[str] = (),
    flags: Sequence[str] = (), runtime: Sequence[str] = ("verilated", "verilated_threads"), libraries: Sequence[str],
    optimise: str = "-O2",
) -> None:  # fmt: skip
    """Translate, compile and link design `top` and C++ file `driver` into `folder`/`output`, keeping no objects."""
    cpp = _verilate(folder, verilog, top, verilate)
    sources = _gathered([*sorted(cpp.glob("*.cpp")), driver], cpp / "all.cc")
    common = [*_CXX, *flags]
    header = _header([*common, optimise])
    objects = _compile_all(sources, [*common, optimise, *header, *_includes(), f"-I{cpp}"], cpp)
    objects += _runtime(runtime, common)
    _call([require("g++")["g++"], "-pthread", "-o", output, *objects, *libraries], folder)
    shutil.rmtree(cpp)


@dataclass
class Stream:
    """Beats for one valid/ready stream of a design.

    valid, ready : port names. payload : port name -> integers [beats], or words [beats, word_count] for a port
    wider than 64 bits. offers : bool [cycles] or None; whether the source may start a beat in that cycle (after
    the last element: always). A beat once offered is held until taken. accepted_at : filled by `Simulation.stream`
    with the cycle in which each beat was taken.
    """

    valid: str
    ready: str
    payload: Mapping[str, npt.ArrayLike]
    offers: npt.NDArray[np.bool_] | None = None
    accepted_at: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True)
class Captured:
    """Outputs of the cycles in which the capture port was high: `at` [n], `outputs` name -> [n] or words [n, w];
    `cycles` is how many cycles the call ran."""

    at: npt.NDArray[np.int64]
    outputs: dict[str, npt.NDArray[Any]]
    cycles: int


class _CStream(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("valid_word", "ready_word", "payload_words", "pad")),
        *((name, ctypes.c_int64) for name in ("beats", "offers_cycles")),
        *((name, ctypes.c_void_p) for name in ("payload_map", "data", "offers", "accepted_at")),
        *((name, ctypes.c_int64) for name in ("next", "pending")),
    )


class Compiled:
    """A design compiled to a shared library. `inputs` and `outputs` map port names (clock left out) to Ports.

    Parameters
        verilog : text holding module `top` in the style that Yosys writes; top : str
        optimise : flag of the C++ compiler; "-O1" builds large designs sooner.
        extra : C++ that is compiled behind the driver and may use it; its functions are in the library too.
    Zero initial values of registers are taken out, so that `open(random_state=True)` can power up unknown.
    Raises ToolError when Verilator or g++ is missing or refuses the text.
    """

    def __init__(self, verilog: str, top: str, *, optimise: str = "-O2", extra: str = "") -> None:
        self.top = top
        ports = ports_of(verilog, top)
        self.inputs: dict[str, Port] = {p.name: p for p in ports if not p.output}
        self.outputs: dict[str, Port] = {p.name: p for p in ports if p.output}
        self.in_words = sum(p.words for p in self.inputs.values())
        self.out_words = sum(p.words for p in self.outputs.values())
        stripped = without_zero_init(verilog)
        driver = driver_source(verilog, top) + extra
        key = digest(verilator_version(), *_VERILATE, *_CXX, *_LIBRARY, optimise, top, stripped, driver)
        folder = build_once(f"{top[:40]}-{key}", lambda scratch: self._build(scratch, stripped, driver, optimise))
        self._library = ctypes.CDLL(str(folder / "design.so"))
        self._library.bw_open.restype = ctypes.c_void_p
        self._library.bw_stream.restype = ctypes.c_int64

    def _build(self, folder: Path, verilog: str, driver: str, optimise: str) -> None:
        (folder / "driver.cpp").write_text(driver)
        link(
            folder, verilog, self.top, folder / "driver.cpp", "design.so", flags=_LIBRARY, libraries=["-shared"],
            optimise=optimise,
        )  # fmt: skip

    def open(self, *, random_state: bool = False, seed: int = 1) -> Simulation:
        """A new instance: registers zero, or random from `seed` (1..2**31-1) when `random_state`. No reset is given."""
        return Simulation(self, self._library, random_state, seed)

    def input_words(self, inputs: Mapping[str, npt.ArrayLike], cycles: int) -> Words:
        """Values a port to input words [cycles, in_words]; a scalar stands for every cycle, a port not named is 0.

        Raises ConfigError for an unknown port or a wrong number of cycles.
        """
        words = np.zeros((cycles, self.in_words), dtype=np.uint32)
        for name, values in inputs.items():
            port = _port(self.inputs, name, self.top)
            part = np.asarray(values) if port.bits > 64 else from_integers(np.atleast_1d(values), port.bits)
            wanted = f"{cycles} values" if port.bits <= 64 else f"{cycles} rows of {port.words} words"
            if part.shape not in ((cycles, port.words), (1, port.words)):
                raise ConfigError(f"{self.top}.{name} shape = {np.shape(values)}: must be {wanted}")
            words[:, port.word : port.word + port.words] = part
        return words

    def output_values(self, words: Words) -> dict[str, npt.NDArray[Any]]:
        """Output words [cycles, out_words] to uint64 [cycles] a port, or words [cycles, w] if wider than 64 bits."""
        values: dict[str, npt.NDArray[Any]] = {}
        for name, port in self.outputs.items():
            part = words[:, port.word : port.word + port.words]
            values[name] = part if port.bits > 64 else to_integers(part, port.bits)
        return values


def _port(ports: Mapping[str, Port], name: str, top: str) -> Port:
    if name not in ports:
        raise ConfigError(f"{top}.{name}: no such port ({suggest(name, ports)})")
    return ports[name]


class Simulation:
    """One running instance of a design. State stays between calls; use it in a `with`, or `close()` it.

    Cycle t of any call: the inputs of t are applied, the outputs are read after they settle, then the clock rises.
    """

    def __init__(self, design: Compiled, library: Any, random_state: bool, seed: int) -> None:
        self.design = design
        self._library = library
        self._handle: int | None = library.bw_open(ctypes.c_int32(random_state), ctypes.c_int32(seed))

    def __enter__(self) -> Simulation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the instance."""
        if self._handle is not None:
            self._library.bw_close(ctypes.c_void_p(self._handle))
            self._handle = None

    def reset(self, cycles: int = 2) -> None:
        """Hold `rst` high, all else zero, for some cycles."""
        self.run({RESET: 1}, cycles)

    def run(self, inputs: Mapping[str, npt.ArrayLike], cycles: int | None = None) -> dict[str, npt.NDArray[Any]]:
        """Apply inputs (name -> integers [cycles], any sign) and return outputs (name -> uint64 [cycles])."""
        if cycles is None:
            cycles = max((np.shape(values)[0] for values in inputs.values() if np.ndim(values)), default=1)
        return self.design.output_values(self.run_words(self.design.input_words(inputs, cycles)))

    def run_words(self, words: Words) -> Words:
        """As `run`, on packed words [cycles, in_words] -> [cycles, out_words]."""
        words = np.ascontiguousarray(words, dtype=np.uint32)
        out = np.empty((len(words), self.design.out_words), dtype=np.uint32)
        self._library.bw_run(ctypes.c_void_p(self._handle), ctypes.c_int64(len(words)), _pointer(words), _pointer(out))
        return out

    def stream(
        self,
        streams: Sequence[Stream],
        *,
        capture: str,
        expected: int,
        max_cycles: int,
        idle: Mapping[str, npt.ArrayLike] | None = None,
    ) -> Captured:
        """Feed valid/ready streams until port `capture` was high in `expected` cycles, or for `max_cycles`.

        `idle` gives the constant values of the other inputs. Fills `accepted_at` of each stream (-1: never taken).
        """
        design, keep = self.design, []
        table = (_CStream * max(len(streams), 1))()
        for entry, stream in zip(table, streams, strict=False):
            keep.append(_fill(entry, stream, design))
        base = design.input_words(idle or {}, 1)
        captured = np.empty((expected, design.out_words), dtype=np.uint32)
        at = np.empty(expected, dtype=np.int64)
        done = ctypes.c_int64()
        cycles = self._library.bw_stream(
            ctypes.c_void_p(self._handle), ctypes.c_int64(max_cycles), _pointer(base), ctypes.c_int32(len(streams)),
            table, ctypes.c_int32(_port(design.outputs, capture, design.top).word), ctypes.c_int64(expected),
            _pointer(captured), _pointer(at), ctypes.byref(done),
        )  # fmt: skip
        return Captured(at[: done.value], design.output_values(captured[: done.value]), int(cycles))


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _fill(entry: Any, stream: Stream, design: Compiled) -> list[npt.NDArray[Any]]:
    """Describe `stream` to the driver; returns the arrays that must outlive the call."""
    columns: list[npt.NDArray[np.int32]] = []
    parts: list[Words] = []
    for name, values in stream.payload.items():
        port = _port(design.inputs, name, design.top)
        columns.append(np.arange(port.word, port.word + port.words, dtype=np.int32))
        parts.append(np.asarray(values, np.uint32) if port.bits > 64 else from_integers(np.asarray(values), port.bits))
    mapping = np.concatenate(columns)
    data = np.ascontiguousarray(np.concatenate(parts, axis=1))
    stream.accepted_at = np.full(len(data), -1, dtype=np.int64)
    keep: list[npt.NDArray[Any]] = [mapping, data, stream.accepted_at]
    entry.valid_word = _port(design.inputs, stream.valid, design.top).word
    entry.ready_word = _port(design.outputs, stream.ready, design.top).word
    entry.payload_words, entry.beats = len(mapping), len(data)
    entry.payload_map, entry.data, entry.accepted_at = (array.ctypes.data for array in keep)
    if stream.offers is not None:
        offers = np.ascontiguousarray(stream.offers, dtype=np.uint8)
        keep.append(offers)
        entry.offers, entry.offers_cycles = offers.ctypes.data, len(offers)
    return keep
