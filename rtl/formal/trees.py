"""Proofs of the range of accumulators behind carry-save trees, which no solver adds up: algebra takes the trees out.

For each `Tree` of a PE
    tree-adds-ACC            What `held` loads is itself, or 0 at `first`, plus the groups, as polynomials (`identity`).
    group-range              Each group's range, of the whole PE with nothing cut.
    exact-ACC, no-wrap-ACC   `held` is the exact total of all steps since a first one, modulo 2**bits, and for
                             `longest_sum` steps within the range of `bits` bits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Iterable, Iterator

from bitwright.arch.pe.stream import StreamSpec
from bitwright.rtl.formal import alike, identity
from bitwright.rtl.formal.control import PHASE, cycles_of_step, phase_of
from bitwright.rtl.formal.harness import Harness, Ports, shown
from bitwright.rtl.formal.holds import add_ports
from bitwright.rtl.formal.model import Result, Setting, decide, write
from bitwright.rtl.formal.netlist import Bit, Design, Register
from bitwright.rtl.formal.ranges import extended, follow, number, settled
from bitwright.rtl.formal.tree_wires import Group, Term, Tree, Vectors, trees


def totals(setting: Setting, spec: StreamSpec, design: Design) -> Iterator[Result]:
    """The proofs of every tree of a PE."""
    found = trees(spec)
    for tree in found:
        yield _adds(setting, tree, design)
    if found:
        yield from _group_ranges(setting, spec, design, found)
    begun = time.monotonic()
    every = classes(spec, design)
    seconds = time.monotonic() - begun
    for tree, *others in every:
        yield from _exact(setting, spec, design, tree)
        if others:
            yield setting.result(f"alike-{tree.name}", alike.told(len(others)), 0, "proved", seconds)


def classes(spec: StreamSpec, design: Design) -> list[list[Tree]]:
    """The trees of a PE whose registers load under the same conditions, together: no more of the PE is in `_exact`."""
    forms, ports = alike.Forms(design), Ports.of(spec)

    def loads(tree: Tree) -> list[tuple[str, Bit, str] | None]:
        return [_load(design, wire) for wire in (*tree.held, *tree.through)]

    def form(tree: Tree) -> alike.Form:
        return forms.of([*(load[1] for load in loads(tree) if load is not None), *design.bits(tree.first)])

    def facts(tree: Tree) -> Hashable:
        pins = tuple(load and load[2] for load in loads(tree))
        whole = tree.name if None in pins else ""
        return tree.bits, tree.low, tree.high, _stage(design, ports, tree), len(tree.held), pins, whole

    return alike.classes(trees(spec), form, facts, design, ())


def _register(design: Design, wire: str) -> Register | None:
    return next((item for item in design.registers if item.bits == design.bits(wire)), None)


def _load(design: Design, wire: str) -> tuple[str, Bit, str] | None:
    """The multiplexer that lets a register load something or hold: its name, its select, the pin of what it loads."""
    register = _register(design, wire)
    names = {design.driver.get(bit) for bit in register.loads} if register is not None else {None}
    name = names.pop()
    if register is None or name is None or names:
        return None
    cell = design.module["cells"][name]
    sides = [pin for pin in "AB" if tuple(cell["connections"].get(pin, ())) != register.bits]
    if cell["type"] != "$mux" or tuple(cell["connections"]["Y"]) != register.loads or len(sides) != 1:
        return None
    return name, cell["connections"]["S"][0], sides[0]


def _adds(setting: Setting, tree: Tree, design: Design) -> Result:
    begun = time.monotonic()
    try:
        result = "proved" if _same(tree, design) else "refuted"
    except identity.TooLarge:
        result = "unknown"
    return setting.result(f"tree-adds-{tree.name}", "algebra", 0, result, time.monotonic() - begun)


def _same(tree: Tree, design: Design) -> bool:
    """Whether what `held` loads is itself, or 0 at `first`, plus the groups."""
    made: list[identity.Number] = []
    for wire, weight in tree.held.items():
        found = _new_bits(design, wire)
        if found is None or (weight << len(found)) % (1 << tree.bits):
            return False  # what is carried out of it would count
        made += [(bits, weight, False) for bits in identity.adder_inputs(design, found)]
    pipeline: dict[Bit, Bit] = {}
    for wire in tree.through:
        found = _new_bits(design, wire)
        if found is None or set(found) & {bit for name in tree.through for bit in design.bits(name)}:
            return False
        pipeline.update(zip(design.bits(wire), found, strict=True))
    if not all(_is_exact(vectors, tree, design) for vectors in tree.vectors):
        return False
    added, never = _with_vectors(tree, design)
    held: list[identity.Number] = [(design.bits(wire), weight, False) for wire, weight in tree.held.items()]
    (first,) = design.bits(tree.first)
    kept = identity.unless(identity.of_numbers(held, tree.bits), first)
    goal = identity.sum_of([kept, added], 0, tree.bits)
    parts = {bit for term in added for bit in term}
    mine = {first, *(bit for bits, _, _ in held for bit in bits)}
    late = design.cone(bit for bits, _, _ in made for bit in bits)
    if tree.through and late & parts:
        return False  # not all of the way is behind the registers
    if design.cone(pipeline.values()) & mine:
        return False  # the sum of a step before
    total = identity.of_numbers(made, tree.bits)
    return identity.opened(design, total, mine | parts, tree.bits, never, pipeline) == goal


def _numbers(design: Design, terms: Iterable[Term], weight: int = 1) -> list[identity.Number]:
    return [(design.bits(term.wire), term.weight * weight, term.signed) for term in terms]


def _with_vectors(tree: Tree, design: Design) -> tuple[identity.Polynomial, list[frozenset[Bit]]]:
    """The groups, vectors in the place of the terms that they stand for, and bits that are never both 1."""
    terms = [term for group in tree.groups for term in group.terms]
    constant, never = sum(group.constant for group in tree.groups), []
    parts = [identity.of_numbers(_numbers(design, terms), tree.bits)]
    for item in tree.vectors:
        first, second = (design.bits(wire) for wire in item.pair)
        pair: list[identity.Number] = [(bits, item.weight, False) for bits in (first, second)]
        gone = _numbers(design, item.terms, -item.weight)
        parts += [identity.of_numbers(numbers, tree.bits) for numbers in (pair, gone)]
        constant -= item.constant * item.weight
        if item.place < min(len(first), len(second)):  # they are below 2**(place + 1) together
            never.append(frozenset((first[item.place], second[item.place])))
    return identity.sum_of(parts, constant, tree.bits), never


def _is_exact(item: Vectors, tree: Tree, design: Design) -> bool:
    """Whether the vectors are the total of their terms: it is in range, and the tree loses nothing of it."""
    low, high = _limits(item, tree, design)
    pair = [design.bits(wire) for wire in item.pair]
    if low < 0 or high >= 2 << item.place or max(map(len, pair)) > item.place + 1:
        return False
    bits = item.place + 1 + identity.GUARD_BITS
    goal = identity.sum_of([identity.of_numbers(_numbers(design, item.terms), bits)], item.constant, bits)
    stops = {bit for term in goal for bit in term}
    total = identity.of_numbers([(one, 1, False) for one in pair], bits)
    return identity.exactly(design, total, goal, stops, item.place)


def _limits(item: Vectors, tree: Tree, design: Design) -> tuple[int, int]:
    """The range of the terms and the constant: that of the groups, if these are the same terms, or of the wires."""
    low = high = item.constant
    if list(item.terms) == [term for group in tree.groups for term in group.terms]:
        rest = item.constant - sum(group.constant for group in tree.groups)
        return tree.low + rest, tree.high + rest
    for term in item.terms:
        bits = len(design.bits(term.wire))
        low -= (term.weight << bits - 1) if term.signed else 0
        high += ((1 << bits - term.signed) - 1) * term.weight
    return low, high


def _new_bits(design: Design, wire: str) -> tuple[Bit, ...] | None:
    """What a register loads when it does not hold."""
    load = _load(design, wire)
    return None if load is None else tuple(design.module["cells"][load[0]]["connections"][load[2]])


def _stage(design: Design, ports: Ports, tree: Tree) -> int:
    """Registers between the step's payload and the groups of a tree."""
    ways = (design.distance(ports.wire("step_payload"), design.bits(group.terms[0].wire)) for group in tree.groups)
    return max(way or 0 for way in ways)


def _group_ranges(setting: Setting, spec: StreamSpec, design: Design, found: tuple[Tree, ...]) -> Iterator[Result]:
    ports, longest = Ports.of(spec), cycles_of_step(spec)[0]
    begun = time.monotonic()
    every = _group_classes(design, ports, dict.fromkeys(group for tree in found for group in tree.groups))
    groups, same = [first for first, *_ in every], sum(len(others) for _, *others in every)
    if same:
        yield setting.result("alike-groups", alike.told(same), 0, "proved", time.monotonic() - begun)
    wires = {term.wire for group in groups for term in group.terms}
    exposed = {wire: len(design.bits(wire)) for wire in sorted(wires)}
    harness = Harness(ports, {**exposed, **phase_of(design)}, stalls=False)
    stage = _stage(design, ports, found[0])
    came, _, ends = timed(harness, longest, stage)
    for index, group in enumerate(groups):
        width = _width(group)
        terms = [
            f"$signed({extended(term.wire, exposed[term.wire], width, term.signed)}) * {number(width, term.weight)}"
            for term in group.terms
        ]
        total = " + ".join([*terms, number(width, group.constant)])
        harness.wire(f"cycle_{index}", width, total, is_signed=True)
        if longest > 1:
            harness.ghost(
                f"begun_{index}", width, f"{ends} ? {number(width, 0)} : step_{index}", enable=f"{came} && !stall",
                is_signed=True,
            )  # fmt: skip
            harness.wire(f"step_{index}", width, f"begun_{index} + cycle_{index}", is_signed=True)
            harness.claim("group-range", f"!started || inside_step || begun_{index} == {number(width, 0)}")
        else:
            harness.wire(f"step_{index}", width, f"cycle_{index}", is_signed=True)
        inside = f"step_{index} >= {number(width, group.low)} && step_{index} <= {number(width, group.high)}"
        harness.claim("group-range", f"!started || !({came}) || !({ends}) || ({inside})")
    path = write(setting, "groups", harness)
    depth = spec.timing.latency_cycles + longest + 1
    results = decide(setting, "groups", harness, path, depth=depth, bounded=depth + 2)
    yield from (result for result in results if result.property != "phase-counts")


def _group_classes(design: Design, ports: Ports, groups: Iterable[Group]) -> list[list[Group]]:
    """Groups that are the same circuit of operands of their own, together: see `alike`."""
    watched = [ports.wire("step_ready"), ports.wire("sum_valid"), *phase_of(design)]
    control = design.history(bit for wire in watched for bit in design.bits(wire))
    operands = frozenset(design.bits(ports.wire("step_payload"))[: ports.first]) - control
    forms = alike.Forms(design)

    def form(group: Group) -> alike.Form:
        return forms.of((bit for term in group.terms for bit in design.bits(term.wire)), operands=operands)

    def facts(group: Group) -> Hashable:
        terms = tuple((term.weight, term.signed, len(design.bits(term.wire))) for term in group.terms)
        return terms, group.low, group.high, group.constant

    return alike.classes(groups, form, facts, design, control)


def _width(group: Group) -> int:
    return max(-group.low, group.high).bit_length() + 6


def timed(harness: Harness, longest: int, stage: int) -> tuple[str, str, str]:
    """Conditions at the stage given: a cycle of a step is there, the first of a sum, the last of its step.

    And the wire `inside_step`: a step has begun there and not ended.
    """
    follow(harness, "step_valid && !rst", stage)
    begins, ends, fresh = ["first"], ["1"], ["1"]
    if longest > 1:
        harness.ghost("cycles", 8, "taken ? 0 : cycles + 1", enable="step_valid && !stall")
        counted = f"{shown(PHASE)} == cycles && " if PHASE in harness.exposed else ""
        harness.claim("phase-counts", f"!started || {counted}(rst || cycles == 0 || waiting)")
        begins, ends, fresh = ["first && cycles == 0"], ["taken"], ["cycles == 0"]
    for at in range(stage):
        for name, stages in (("begins", begins), ("ends", ends), ("fresh", fresh)):
            harness.ghost(f"{name}_{at + 1}", 1, stages[-1], enable="!stall")
            stages.append(f"{name}_{at + 1}")
    if longest > 1:
        harness.ghost("inside_step", 1, f"!({ends[-1]})", enable=f"!stall && came_{stage}")
        harness.claim("phase-counts", f"!started || rst || inside_step == (came_{stage} && !({fresh[-1]}))")
    else:
        harness.wire("inside_step", 1, "0")
    return f"came_{stage}", begins[-1], "1" if longest == 1 else ends[-1]


def _exact(setting: Setting, spec: StreamSpec, design: Design, tree: Tree) -> Iterator[Result]:
    """Of the PE's control and one register in the place of `held`, which loads what `tree-adds` says."""
    longest, label = cycles_of_step(spec)[0], f"tree_{tree.name}"
    loads = {_load(design, wire) for wire in tree.held}
    if None in loads:
        yield setting.result(f"exact-{tree.name}", "structure", 0, "refuted", 0)
        return
    selects = {load[1:]: load for load in loads if load is not None}
    enables = {f"load_{index}": load for index, load in enumerate(selects.values())}
    passed = {f"pass_{index}": load for index, wire in enumerate(tree.through) if (load := _load(design, wire))}
    module, outputs = dict(design.module), {**enables, **passed}
    add_ports(module, {name: [bit] for name, (_, bit, _) in outputs.items()}, "output")
    (setting.work / f"{label}.json").write_text(json.dumps({"creator": "bitwright", "modules": {design.top: module}}))
    conditions = {name: f"{'' if pin == 'B' else '!'}{shown(name)}" for name, (_, _, pin) in outputs.items()}
    harness = _exact_harness(spec, design, tree, conditions)
    path = write(setting, label, harness, source=f"{label}.json")
    depth = spec.timing.latency_cycles + longest + 1
    results = decide(setting, label, harness, path, depth=depth, bounded=depth + 2)
    kept = (result for result in results if result.property != "phase-counts")
    yield from settled(kept, tree.bits, spec.longest_sum, tree.low, tree.high)


def _exact_harness(spec: StreamSpec, design: Design, tree: Tree, conditions: dict[str, str]) -> Harness:
    """`conditions`: when the registers `load_*` of the total and `pass_*` of the way to it load."""
    bits, ports = tree.bits, Ports.of(spec)
    harness = Harness(ports, {tree.first: 1, **dict.fromkeys(conditions, 1), **phase_of(design)}, stalls=False)
    longest = spec.longest_sum or 1
    width = max(bits, (max(-tree.low, tree.high) * longest).bit_length() + 1) + 3
    harness.lines.append(f"(* anyseq *) reg signed [{width - 1}:0] added;")
    harness.lines.append(f"reg [{bits - 1}:0] held;  // any value at power-up")
    following = f"({shown(tree.first)} ? {bits}'d0 : held) + added[{bits - 1}:0]"
    load = conditions["load_0"]
    harness.lines.append(f"always @(posedge clk) if ({load}) held <= {following};")
    stage = _stage(design, ports, tree) + bool(tree.through)
    came, begins, ends = timed(harness, cycles_of_step(spec)[0], stage)
    for name, condition in conditions.items():
        one_with = f"{condition} == {load}" if name.startswith("load") else f"rst || !came_{stage - 1} || {condition}"
        harness.claim(f"exact-{tree.name}", f"!started || {one_with}")
    # `before`: the exact total of the sum's whole steps; `partial`: what the unfinished step has added.
    harness.wire("start", width, f"({begins}) ? {number(width, 0)} : before", is_signed=True)
    harness.wire("step", width, "partial + added", is_signed=True)
    harness.assume(f"!({ends}) || step >= {number(width, tree.low)} && step <= {number(width, tree.high)}")
    enable = f"!stall && {came}"
    zero = number(width, 0)
    harness.ghost("partial", width, f"({ends}) ? {zero} : step", enable=enable, is_signed=True)
    harness.ghost("before", width, f"({ends}) ? start + step : start", enable=enable, is_signed=True)
    harness.ghost("summing", 1, f"({begins}) || summing", enable=enable)
    harness.claim(f"exact-{tree.name}", f"!started || inside_step || partial == {zero}")
    harness.wire("whole", width, "before + partial", is_signed=True)
    harness.claim(f"exact-{tree.name}", f"!started || !summing || held == whole[{bits - 1}:0]")
    if spec.longest_sum is None:
        return harness
    # n steps leave least = n * low and most = n * high, without a multiplier in the proof.
    inside = f"least >= {number(width, longest * tree.low)} && most <= {number(width, longest * tree.high)}"
    for name, more in (("least", tree.low), ("most", tree.high)):
        so_far = f"(({begins}) ? {zero} : {name})"
        following = f"({inside}) || ({begins}) ? {so_far} + (({ends}) ? {number(width, more)} : {zero}) : {name}"
        harness.ghost(name, width, following, enable=enable, is_signed=True)
    ends_of_range = f"before >= {number(width, -1 << bits - 1)} && before <= {number(width, (1 << bits - 1) - 1)}"
    bounds = f"before >= least && before <= most && {ends_of_range}"
    harness.claim(f"no-wrap-{tree.name}", f"!started || !summing || !({inside}) || ({bounds})")
    return harness
