"""Mutants: which sites are taken, that the bench kills them, and that what is called equivalent or found is so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from bitwright.arch import pe
from bitwright.arch.errors import ConfigError, MismatchError, ToolError
from bitwright.rtl.bench.stream import bulk, equivalence, mutants, traces
from bitwright.rtl.bench.stream.equivalence import Mutation
from bitwright.rtl.pe import streaming
from bitwright.rtl.pe.stream import HeldSum

SEED = 1
# A counter that goes 0 1 2 0: state 3 is never reached, and `first` says the same twice.
COUNTER = """\
module counter(clk, rst, out, sum, first);
  input clk; input rst; output out; output [3:0] sum; output first;
  reg [1:0] phase;
  wire done = phase[1];
  always @(posedge clk) if (rst) phase <= 0; else if (done) phase <= 0; else phase <= phase + 1;
  assign out = phase == 2;
  assign sum = {2'b00, phase} + 4'd1;
  assign first = (phase == 0) & (phase != 3);
endmodule
"""
# total <- total + digit * act as two vectors, digit -1, 0, 1; a negative digit inverts, and the one that its row then
# lacks is the carry's lowest bit. Inverted zeros and that one are zero too. Both vectors are added behind `last`.
CARRY_SAVE = """\
module keeper(clk, rst, step, last, act, one, sign, valid, out);
  input clk; input rst; input step; input last; input [5:0] act; input one; input sign;
  output reg valid; output reg [5:0] out;
  reg [5:0] sum, carry; reg busy, ended;
  wire negative = sign & one;
  wire [5:0] row = (act & {6{one}}) ^ {6{negative}};
  wire [5:0] both = (sum & carry) | ((sum ^ carry) & row);
  wire load = busy & ended;
  always @(posedge clk) begin
    if (step) begin sum <= sum ^ carry ^ row; carry <= {both[4:0], negative}; end
    busy <= step & ~rst; ended <= last;
    if (load) out <= sum + carry;
    valid <= load & ~rst;
  end
endmodule
"""
VECTORS = HeldSum(("sum", "carry"))
HELD = (VECTORS, HeldSum(("out",), ("valid",)))
BY_HELD_SUM = "equal next state and outputs in every state; of registers that hold a sum, the sum while it counts"


@pytest.fixture(scope="module")
def mutated() -> mutants.MutatedDesign:
    return mutants.build(pe.stream("int8-mac", lanes=2, pipeline=1), 60, SEED)


@pytest.fixture(scope="module")
def counter(tidied: Callable[[str, str], str]) -> str:
    return tidied(COUNTER, "counter")


@pytest.fixture(scope="module")
def keeper(tidied: Callable[[str, str], str]) -> str:
    return tidied(CARRY_SAVE, "keeper")


def site(tidy: str, kind: str, driven: str) -> str:
    """The one cell of a kind whose name begins with the wire that it drives."""
    cells = [line.split()[2] for line in tidy.splitlines() if line.startswith(f"  cell ${kind} ")]
    return next(name.lstrip("\\") for name in cells if name.lstrip("\\").startswith(driven))


def test_no_mutation_is_on_a_clock_and_numbers_select_them(mutated: mutants.MutatedDesign) -> None:
    assert len(mutated.mutations) == 60
    assert not {mutation.port for mutation in mutated.mutations} & {"CLK", "C"}
    assert {mutation.mode for mutation in mutated.mutations} <= {"inv", "const0", "const1", "cnot0", "cnot1"}
    assert mutated.design.inputs["mutsel"].bits == 6


def test_the_same_seed_takes_the_same_sites(mutated: mutants.MutatedDesign) -> None:
    again = mutants.build(mutated.spec, 60, SEED)
    other = mutants.build(mutated.spec, 60, SEED + 1)
    assert again.mutations == mutated.mutations != other.mutations


def test_every_mutant_of_int8_is_killed_or_proved_equivalent() -> None:
    print(f"seed {SEED}")
    found = mutants.examine(pe.stream("int8-mac", lanes=2, pipeline=1), 200, SEED, real=False)
    assert found.mutants == 200
    assert found.unexplained == ()
    assert found.by_value + found.by_cycle + found.by_protocol + found.equivalent == 200
    assert found.by_value > 0
    assert found.by_cycle > 0
    assert found.by_protocol > 0  # stalls, clears and resets kill what no data can


def test_the_unmutated_netlist_passes_and_a_false_trace_does_not(mutated: mutants.MutatedDesign) -> None:
    bench = mutants.Bench(mutated, SEED, real=False)
    bench.require_sound()
    player = bench.short_stalled[0]
    wrong = player.expected.sum_payload.copy()
    at = int(np.flatnonzero(player.expected.shown)[0])
    wrong[at] ^= 1
    false = traces.Player(mutated.spec, bulk.compiled(mutated.spec), replace(player.expected, sum_payload=wrong))
    got, must = (int(words[at, 0]) for words in (player.expected.sum_payload, wrong))
    with pytest.raises(MismatchError) as caught:
        false.require()
    assert str(caught.value) == f"int8_mac_l2_p32_s1, seed 1: cycle {at}: sum = {got:#x}: must be {must:#x}"


def test_a_handshake_out_of_step_is_named(mutated: mutants.MutatedDesign) -> None:
    trace = traces.stalled(mutated.spec, 300, SEED)
    ready = trace.ready.copy()
    ready[40] = not ready[40]
    player = traces.Player(mutated.spec, bulk.compiled(mutated.spec), replace(trace, ready=ready))
    found = player.difference()
    assert found is not None
    assert found.kind == "cycle"
    assert found.text == f"cycle 40: step.ready = {int(not ready[40])}: must be {int(ready[40])}"


def test_a_stalled_trace_has_stalls_resets_clears_and_sums(mutated: mutants.MutatedDesign) -> None:
    trace = traces.stalled(mutated.spec, 4000, SEED)
    assert trace.cycles == 4000 + traces.RESET_CYCLES
    assert (trace.step_valid & ~trace.ready).sum() > 100
    assert (trace.valid & ~trace.sum_ready).sum() > 100
    assert (~trace.step_valid & trace.ready).sum() > 100
    assert trace.rst.sum() > 20
    assert (trace.valid & ~trace.shown).sum() > 0  # sums that go back to before a reset: any payload
    assert trace.sums > 300


def test_what_no_state_can_show_is_proved_with_registers_cut(counter: str) -> None:
    harmless = Mutation("const1", site(counter, "ne", ""), "Y", 0, None)  # phase != 3, beside phase == 0
    assert equivalence.by_cut(counter, "counter", harmless, 20) == "equal next state and outputs in every state"


def test_what_only_unreachable_states_show_needs_induction(counter: str) -> None:
    bit_2 = Mutation("const0", site(counter, "add", "sum"), "Y", 2, None)  # set in state 3 only
    assert equivalence.by_cut(counter, "counter", bit_2, 20) == ""
    assert equivalence.by_induction(counter, "counter", bit_2, 20) == (
        "equal registers and outputs from all zero, by induction over at most 12 cycles"
    )


def test_what_differs_is_never_proved(counter: str) -> None:
    harm = Mutation("inv", site(counter, "add", "sum"), "Y", 0, None)
    assert equivalence.by_cut(counter, "counter", harm, 20) == ""
    assert equivalence.by_induction(counter, "counter", harm, 20) == ""


def test_another_split_of_a_sum_is_proved_by_the_sum_only(keeper: str) -> None:
    negative_zero = Mutation("const1", site(keeper, "and", "negative"), "B", 0, None)
    assert equivalence.by_cut(keeper, "keeper", negative_zero, 20) == ""
    assert equivalence.by_induction(keeper, "keeper", negative_zero, 20) == ""
    assert equivalence.by_held_sum(keeper, "keeper", negative_zero, 20, HELD) == BY_HELD_SUM


def test_what_a_register_holds_while_it_does_not_count_is_free(keeper: str) -> None:
    always_loads = Mutation("const1", site(keeper, "dffe", "out"), "EN", 0, None)
    assert equivalence.by_held_sum(keeper, "keeper", always_loads, 20, (VECTORS,)) == ""
    assert equivalence.by_held_sum(keeper, "keeper", always_loads, 20, HELD) == BY_HELD_SUM


@pytest.mark.parametrize(
    ("mode", "kind", "driven", "port", "bit"),
    [
        ("const1", "and", "negative", "A", 0),  # every 1 a -1
        ("const0", "dffe", "carry", "D", 0),  # a negative digit without its one
        ("const0", "or", "both", "Y", 4),  # a carry into the top bit
        ("inv", "xor", "row", "Y", 5),
        ("const0", "dffe", "sum", "Q", 5),
        ("const1", "dffe", "sum", "EN", 0),
        ("inv", "dffe", "out", "Q", 3),
        ("const1", "and", "load", "A", 0),
    ],
)
def test_what_changes_a_sum_that_counts_is_never_proved(
    keeper: str, mode: str, kind: str, driven: str, port: str, bit: int
) -> None:
    harm = Mutation(mode, site(keeper, kind, driven), port, bit, None)
    assert equivalence.by_held_sum(keeper, "keeper", harm, 20, HELD) == ""


@pytest.mark.parametrize(
    "false",
    [
        HeldSum(("sum", "carry"), ("busy",)),  # what is held between steps counts as well
        HeldSum(("sum", "out")),
        HeldSum(("out",), ("ended",)),
    ],
)
def test_a_false_declaration_proves_nothing(keeper: str, false: HeldSum) -> None:
    negative_zero = Mutation("const1", site(keeper, "and", "negative"), "B", 0, None)
    assert not equivalence.sums_suffice(keeper, "keeper", (false,), 20)
    assert equivalence.by_held_sum(keeper, "keeper", negative_zero, 20, (false,)) == ""
    assert equivalence.by_held_sum(keeper, "keeper", negative_zero, 20, ()) == ""


@pytest.mark.parametrize(
    ("held", "text"),
    [
        ((HeldSum(("sum", "carries")),), "held sum of carries: no such wire in the netlist"),
        ((HeldSum(("sum", "sum")),), "held sum of sum, sum: must be of registers that nothing else names"),
        ((HeldSum(("row",)),), "held sum of row: must be of registers that nothing else names"),
        (
            (HeldSum(("out",), ("busy",)), HeldSum(("busy",))),
            "held sum of busy: must be of registers that nothing else names",
        ),
    ],
)
def test_a_declaration_that_the_netlist_does_not_have_is_refused(
    keeper: str, held: tuple[HeldSum, ...], text: str
) -> None:
    with pytest.raises(ToolError) as caught:
        equivalence.sums_suffice(keeper, "keeper", held, 20)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "name", ["opt1", "opt3:psum_bits=24,resolve_cycles=3,pipeline=1", "opt4c:rows=2,resolve_cycles=1"]
)
def test_the_sums_that_carry_save_engines_declare_suffice(name: str) -> None:
    plain, params = pe.parse_name(name)
    engine = mutants.build(pe.stream(plain, **params), 1, SEED)
    assert engine.held[-1] == HeldSum(("sum__payload",), ("sum__valid",))
    assert equivalence.sums_suffice(engine.tidy, engine.spec.module_stem, engine.held, 60)


def test_vectors_that_go_out_as_they_are_hold_no_sum() -> None:
    assert streaming.held_sums(pe.stream("opt2", resolve_cycles=0)) == ()
    assert streaming.held_sums(pe.stream("int8-mac")) == ()


def test_inputs_that_the_solver_finds_kill_the_mutant(mutated: mutants.MutatedDesign) -> None:
    bench = mutants.Bench(mutated, SEED, real=False)
    product = next(
        number for number, each in enumerate(mutated.mutations, 1) if each.mode == "inv" and "$add.Y" in str(each)
    )
    assert bench.directed(product, 30) == "found"


def test_no_mutants_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^count = 0: must be at least 1$"):
        mutants.build(pe.stream("int8-mac"), 0, SEED)
