"""`bitwright simulate MACHINE --gemm M,K,N` or `MODEL --engine`: matrix products on the accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bitwright.arch import pe
from bitwright.arch.errors import ConfigError, MismatchError, suggest

if TYPE_CHECKING:
    from bitwright.arch.machine import Machine
    from bitwright.workloads.shapes import ModelShape

ENGINES = ("simpy", "fast", "rtl")
MOST_RTL_CYCLES = 10_000_000
"""Of one program: a run of the Verilog is tens to hundreds of thousands of cycles a second."""


def gemm_row(machine: Machine, sizes: str, *, engine: str, weights: str | None, group: int | None) -> dict[str, Any]:
    """The row of one product: counters, bounds, utilisation; the same from every engine.

    "rtl" also compares the results in memory with the functional interpreter's. Raises ConfigError for wrong sizes, an
    unknown engine or a format that the machine does not take, MismatchError where the RTL's results are others.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine = {engine!r}: no such engine; {suggest(engine, ENGINES)}")
    m, k, n = sizes_of(sizes)
    from bitwright.sim.accelerator.gemm import Gemm, GemmResult, simulate_gemm

    chosen, group = _format(machine, weights, group)
    if engine != "rtl":
        return simulate_gemm(machine, m, k, n, fmt=chosen, group=group, engine=engine).row()
    gemm = Gemm(machine, m, k, n, chosen, group)
    _check_length(gemm, "--gemm", "a smaller product")
    return GemmResult(gemm, engine, machine.memory, _on_rtl(gemm)).row()


def model_row(
    machine: Machine, model: str | ModelShape, *, engine: str, weights: str | None, group: int | None, **workload: int
) -> dict[str, Any]:
    """The row of a model's linear layers, each distinct product a program; the same from every engine.

    "rtl" also compares every result, as of `gemm_row`. ConfigError too for a product too long for a run of the RTL.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine = {engine!r}: no such engine; {suggest(engine, ENGINES)}")
    from bitwright.sim.accelerator import model as on_accelerator
    from bitwright.sim.accelerator.gemm import counters

    fmt, group = _format(machine, weights, group)
    work = list(on_accelerator.layers(machine, model, fmt=fmt, group=group, **workload))
    if engine == "rtl":
        for layer in work:
            _check_length(layer.gemm, f"{layer.phase} {layer.name}", "fewer --prompt-tokens")

    def run(gemm: Any) -> Any:
        return _on_rtl(gemm) if engine == "rtl" else counters(gemm, engine, machine.memory)

    return on_accelerator.model_row(machine, model, work, engine, run)


def _check_length(gemm: Any, name: str, shorter: str) -> None:
    """ConfigError for a product that is too long for a run of the RTL."""
    from bitwright.sim.accelerator.gemm import counters

    cycles = counters(gemm, "fast", gemm.machine.memory).cycles
    if cycles > MOST_RTL_CYCLES:
        raise ConfigError(
            f"engine = rtl: {name} ({gemm.m},{gemm.k},{gemm.n}) takes {cycles} cycles: a run of the RTL has at most "
            f"{MOST_RTL_CYCLES} (use --engine fast, whose cycles are the same, or {shorter})"
        )


def _format(machine: Machine, weights: str | None, group: int | None) -> tuple[str, int | None]:
    """Weight format and group: the PE's own where none is given."""
    if weights is not None:
        return weights, group
    from bitwright.sim.accelerator.gemm import usual_weights
    from bitwright.sim.inference import default_policy

    if machine.pe not in pe.names():
        chosen, usual = usual_weights(machine)
        return chosen, usual if group is None else group
    policy = default_policy(machine.pe)
    return policy.weights, policy.group if group is None and isinstance(policy.group, int) else group


def _on_rtl(gemm: Any, seed: int = 0) -> Any:
    """Counters of the compiled Verilog; MismatchError where a result in memory is not the interpreter's."""
    from bitwright import rtl
    from bitwright.arch.isa import to_bytes
    from bitwright.arch.isa.interpreter import run

    lowered = gemm.lowered(seed)
    expected = [region.copy() for region in lowered.memory]
    run(lowered.program, gemm.limits, expected)
    done = rtl.run_program(gemm.machine, gemm.limits, to_bytes(lowered.program), lowered.memory)
    if done.fault is not None:
        raise MismatchError(f"{gemm.machine.name}: the RTL stops at instruction {done.index}: {done.fault.name}")
    for region, (found, wanted) in enumerate(zip(lowered.memory, expected, strict=True)):
        if (found != wanted).any():
            at = int((found != wanted).argmax())
            raise MismatchError(
                f"{gemm.machine.name}: byte {at} of region {region} is {int(found[at])} from the RTL, "
                f"{int(wanted[at])} from the interpreter"
            )
    return done.counters


def verify_machine(machine: Machine, seed: int) -> Iterator[dict[str, Any]]:
    """A machine's accelerator as `generate` writes it, format by format: random products on the compiled Verilog.

    Every byte of the results must be the functional interpreter's, every counter that of both simulators: a decoded
    token, tiles that nothing fills whole, more blocks than slots. Yields a row a format. MismatchError names the
    product of the first difference; ConfigError as of `isa.limits.limits`.
    """
    from bitwright.arch.isa.limits import limits
    from bitwright.sim.accelerator.gemm import Gemm, counters

    built = limits(machine)
    machine = machine.model_copy(update={"formats": tuple(form.name for form in built.formats)})
    for form in built.formats:
        at_once = built.weight_rows * (1 if built.tile is None else built.tile.values(form.name))
        group = None if not form.scale else 8 * at_once
        deep = 3 * (group or 8 * at_once) + 1
        tests = []
        for m, k, n in (
            (1, deep, 2 * built.cols),
            (built.rows + 1, deep, built.cols + 3),
            (3 * built.rows, 2 * deep, 40),
        ):
            gemm = Gemm(machine, m, k, n, form.name, group)
            try:
                counted = _on_rtl(gemm, seed)
            except MismatchError as error:
                raise MismatchError(f"{form.name}, gemm {m},{k},{n}, seed {seed}: {error}") from None
            for engine in ("simpy", "fast"):
                simulated = counters(gemm, engine, machine.memory, seed)
                if simulated != counted:
                    raise MismatchError(
                        f"{form.name}, gemm {m},{k},{n}, seed {seed}: {machine.name}'s RTL counts {counted}, "
                        f"the {engine} engine {simulated}"
                    )
            tests.append(f"{m}x{k}x{n}: {counted.cycles} cycles")
        yield {"design": machine.name, "kind": f"accelerator, {form.name}", "tests": tests}


def sizes_of(text: str) -> tuple[int, int, int]:
    """M, K, N of an option. ConfigError for anything but three whole numbers."""
    try:
        m, k, n = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"gemm = {text}: must be three whole numbers M,K,N such as 16,576,576") from None
    return m, k, n
