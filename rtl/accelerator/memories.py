"""Large memories as Verilog modules of their own: what a tool infers a RAM from, or a macro replaces."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import ClockSignal, Instance, Module, Shape
from amaranth.lib.memory import Memory

LEAST_BITS = 1024
"""Of a memory that a product's Verilog has as a module."""

_TEXT = """
module {name}(clk, r_en, r_addr, r_data, w_en, w_addr, w_data);
  input clk;
  input r_en;
  input [{place}:0] r_addr;
  output [{top}:0] r_data;
  input w_en;
  input [{place}:0] w_addr;
  input [{top}:0] w_data;
  reg [{top}:0] rows [{last}:0];
  reg [{top}:0] shown;
  assign r_data = shown;
  always @(posedge clk) begin
    if (r_en) shown <= rows[r_addr];
    if (w_en) rows[w_addr] <= w_data;
  end
endmodule
"""


class Memories:
    """Stands in the place of Amaranth's platform: makes an Instance of each large memory and keeps its module's text.

    A memory has one port that reads and one that writes, each with an enable, in one clock. A read shows in the next
    cycle and stays until the next read; a row that is written in the cycle in which it is read comes out old. No
    initial contents. Smaller ones than `least_bits` stay registers beside their logic.
    """

    def __init__(self, least_bits: int = LEAST_BITS) -> None:
        self._least_bits = least_bits
        self._sizes: set[tuple[int, int]] = set()

    def get_memory(self, memory: Memory) -> Module:
        """Amaranth's hook: what a memory is made of."""
        reads, writes = memory.read_ports, memory.write_ports
        bits, rows = Shape.cast(memory.shape).width, memory.depth
        simple = len(reads) == len(writes) == 1 and reads[0].domain == writes[0].domain != "comb"
        if not simple or bits * rows < self._least_bits or reads[0].transparent_for or len(writes[0].en) != 1:
            made: Any = Memory.elaborate(memory, None)
            return made
        read, write = reads[0], writes[0]
        self._sizes.add((rows, bits))
        m = Module()
        m.submodules.ram = Instance(
            _name(rows, bits),
            i_clk=ClockSignal(read.domain),
            i_r_en=read.en,
            i_r_addr=read.addr,
            o_r_data=read.data,
            i_w_en=write.en,
            i_w_addr=write.addr,
            i_w_data=write.data,
        )
        return m

    def verilog(self) -> str:
        """The modules, each size once."""
        return "".join(
            _TEXT.format(name=_name(rows, bits), place=max(1, (rows - 1).bit_length()) - 1, top=bits - 1, last=rows - 1)
            for rows, bits in sorted(self._sizes)
        )


def verilog(part: Any, name: str, least_bits: int = LEAST_BITS, **options: Any) -> str:
    """Verilog of `part` as the module `name`, with its memories; `options` as of Amaranth's backend."""
    from amaranth.back import verilog as backend

    memories = Memories(least_bits)
    top: str = backend.convert(part, name=name, emit_src=False, platform=memories, **options)
    return top + memories.verilog()


def _name(rows: int, bits: int) -> str:
    return f"memory_{rows}x{bits}"
