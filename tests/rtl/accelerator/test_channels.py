"""Proofs of a channel's slots, for every order of takes and gives; and that broken links fail them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from bitwright.rtl.accelerator.channels import ChannelLink
from bitwright.rtl.accelerator.interfaces import EXTENT_BITS
from bitwright.rtl.formal import tools
from bitwright.rtl.pe.emit import emit, plain

INSIDE = ("producer_tokens", "producer_holds", "consumer_tokens", "consumer_holds", "fill_0", "fill_1")

# A slot goes through six states. What the units do: take only what can be taken; give each slot that they took for the
# last time once, later, in order. Of the counts 0..2 of slots in some states and of the four places (whose slot is next
# to be taken or given) the last claims say how they hang together: without them induction has no hypothesis.
HARNESS = """
module harness(input clk, input rst, input p_take, input p_last, input p_give, input [@TOP@:0] p_end,
  input c_take, input c_last, input c_give);
localparam FREE = 0, FILLS = 1, GOES = 2, READY = 3, READS = 4, COMES = 5;
wire p_can_take, p_slot, c_can_take, c_slot, producer_holds, consumer_holds;
wire [1:0] producer_tokens, consumer_tokens;
wire [@TOP@:0] p_fill, c_fill, fill_0, fill_1;
reg started = 0; always @(posedge clk) started <= 1;
always @* assume (started || rst);

reg [2:0] state0 = FREE, state1 = FREE;
reg [@TOP@:0] fill0 = 0, fill1 = 0;
reg p_gives = 0, c_gives = 0;
wire [2:0] p_state = p_slot ? state1 : state0, c_state = c_slot ? state1 : state0;
wire [2:0] goes = p_gives ? state1 : state0, comes = c_gives ? state1 : state0;
wire [@TOP@:0] p_filled = p_state == FILLS ? (p_slot ? fill1 : fill0) : 0;
always @* begin
  assume (!p_take || p_can_take);
  assume (!c_take || c_can_take);
  assume (!p_give || goes == GOES);
  assume (!c_give || comes == COMES);
end
always @(posedge clk) begin
  if (p_take && !p_slot) begin state0 <= p_last ? GOES : FILLS; fill0 <= p_end > p_filled ? p_end : p_filled; end
  if (p_take && p_slot) begin state1 <= p_last ? GOES : FILLS; fill1 <= p_end > p_filled ? p_end : p_filled; end
  if (c_take && !c_slot) state0 <= c_last ? COMES : READS;
  if (c_take && c_slot) state1 <= c_last ? COMES : READS;
  if (p_give) begin p_gives <= !p_gives; if (p_gives) state1 <= READY; else state0 <= READY; end
  if (c_give) begin c_gives <= !c_gives; if (c_gives) state1 <= FREE; else state0 <= FREE; end
  if (rst) begin state0 <= FREE; state1 <= FREE; p_gives <= 0; c_gives <= 0; end
end

wire [1:0] free = (state0 == FREE) + (state1 == FREE), fills = (state0 == FILLS) + (state1 == FILLS);
wire [1:0] going = (state0 == GOES) + (state1 == GOES), ready = (state0 == READY) + (state1 == READY);
wire [1:0] reads = (state0 == READS) + (state1 == READS), coming = (state0 == COMES) + (state1 == COMES);
always @* if (started) begin
  owner: assert ((!p_take || p_state == FREE || p_state == FILLS) && (!c_take || c_state == READY || c_state == READS));
  none_lost: assert (free + fills + going + ready + reads + coming == 2);
  tokens: assert (producer_tokens == free && consumer_tokens == ready);
  held: assert (producer_holds == (fills == 1) && consumer_holds == (reads == 1) && fills < 2 && reads < 2);
  can: assert (p_can_take == (free + fills > 0) && c_can_take == (ready + reads > 0));
  filled: assert (p_fill == p_filled && (!c_can_take || c_fill == (c_slot ? fill1 : fill0)));
  kept: assert ((state0 == FREE || fill_0 == fill0) && (state1 == FREE || fill_1 == fill1));
  places: assert ((p_slot ^ p_gives) == (going == 1) && (p_gives ^ c_slot) == (ready + reads == 1)
    && (c_slot ^ c_gives) == (coming == 1) && (c_gives ^ p_slot) == (free + fills == 1));
  turns: assert ((free + fills == 0 || p_state == FREE || p_state == FILLS) && (fills == 0 || p_state == FILLS)
    && (going == 0 || goes == GOES) && (ready + reads == 0 || c_state == READY || c_state == READS)
    && (reads == 0 || c_state == READS) && (coming == 0 || comes == COMES));
end
dut link(.clk(clk), .rst(rst), .producer__take(p_take), .producer__last(p_last), .producer__give(p_give),
  .producer__end(p_end), .producer__can_take(p_can_take), .producer__slot(p_slot), .producer__fill(p_fill),
  .consumer__take(c_take), .consumer__last(c_last), .consumer__give(c_give), .consumer__end(@BITS@'d0),
  .consumer__can_take(c_can_take), .consumer__slot(c_slot), .consumer__fill(c_fill), @INSIDE@);
endmodule
"""
SCRIPT = """read_verilog dut.v
hierarchy -top dut
proc
expose @EXPOSED@
read_verilog -formal harness.v
hierarchy -top harness
proc
flatten
opt_clean
chformal -lower
dffunmap
opt_clean
write_smt2 -wires link.smt2
"""


@cache
def verilog() -> str:
    return plain(emit(ChannelLink(), "dut"))


def proved(text: str, work: Path) -> tuple[str, tuple[str, ...]]:
    """From reset for 12 cycles, then by induction; the result, and what failed."""
    wires = ", ".join(f".{name}({name})" for name in INSIDE)
    harness = HARNESS.replace("@TOP@", str(EXTENT_BITS - 1)).replace("@BITS@", str(EXTENT_BITS))
    (work / "dut.v").write_text(text)
    (work / "harness.v").write_text(harness.replace("@INSIDE@", wires))
    tools.yosys(SCRIPT.replace("@EXPOSED@", " ".join(f"w:{name}" for name in INSIDE)), work)
    answer = tools.smtbmc(work / "link.smt2", "yices", 12)
    if answer.result == "passed":
        answer = tools.smtbmc(work / "link.smt2", "yices", 2, induction=True)
    return answer.result, answer.failed


def test_a_slot_has_one_owner_at_a_time(tmp_path: Path) -> None:
    """And none is lost, tokens are the slots, in turn, and a reader sees how far its slot was written."""
    assert proved(verilog(), tmp_path) == ("passed", ())


@pytest.mark.parametrize(
    ("pattern", "replacement", "claim"),
    [
        (r"      (n\d+)  = 2'h2;", r"      \1  = 2'h3;", "tokens"),
        (r"assign (n\d+)  = producer_tokens - 1'h1;", r"assign \1  = producer_tokens;", "tokens"),
        (r"assign producer_takes_token = .*;", "assign producer_takes_token = producer__take;", "tokens"),
        (r"assign (n\d+)  = consumer__slot \^ consumer__last;", r"assign \1  = consumer__slot;", "turns"),
        (r"assign producer__fill = producer_holds \? (n\d+)  : 17'h00000;", r"assign producer__fill = \1;", "filled"),
        (r"assign consumer__can_take = .*;", "assign consumer__can_take = consumer_holds;", "can"),
    ],
)
def test_a_broken_link_fails(pattern: str, replacement: str, claim: str, tmp_path: Path) -> None:
    text, count = re.subn(pattern, replacement, verilog())
    assert count == 1, f"{pattern} matches {count} places"
    result, failed = proved(text, tmp_path)
    assert result == "failed"
    assert claim in failed
