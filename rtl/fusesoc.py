"""What `generate MACHINE --fusesoc` writes beside the Verilog: a CAPI2 core file and a testbench that starts a run."""

from __future__ import annotations

from pathlib import Path

from bitwright.arch.isa import End, encode
from bitwright.arch.registers import BY_NAME, IDENTITY, MAJOR, MINOR, OFFSETS
from bitwright.rtl.generation import Design

_CORE = """CAPI=2:
name: bitwright:accelerators:{core}:{version}
description: {name}, by bitwright

filesets:
  rtl:
    files: [{verilog}]
    file_type: verilogSource-2005
  tb:
    files: [{testbench}]
    file_type: verilogSource-2005

targets:
  default: &default
    filesets: [rtl]
    toplevel: {module}
  lint:
    <<: *default
    description: Verilator's lint
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
  sim:
    filesets: [rtl, tb]
    description: reads the ID, runs a program of one End, and stops; prints PASS
    flow: sim
    flow_options:
      tool: icarus
      iverilog_options: [-g2005]
    toplevel: {module}_tb
"""

_TESTBENCH = """// A host on AXI4-Lite and a memory that holds one End: reads ID, runs, waits for irq. By bitwright.
`timescale 1ns/1ps
module {module}_tb;
  reg clk = 0, rst = 1;
  always #5 clk = ~clk;
  reg awvalid = 0, wvalid = 0, arvalid = 0;
  reg [11:0] awaddr = 0, araddr = 0;
  reg [31:0] wdata = 0;
  wire awready, wready, bvalid, arready, rvalid, irq;
  wire [31:0] rdata;
  wire m_arvalid, m_awvalid;
  reg m_rvalid = 0, m_rlast = 0;
  reg [{top}:0] m_rdata = 0;
  integer left = 0;

  {module} dut(.clk(clk), .rst(rst), .irq(irq),
    .s_axil_awvalid(awvalid), .s_axil_awready(awready), .s_axil_awaddr(awaddr),
    .s_axil_wvalid(wvalid), .s_axil_wready(wready), .s_axil_wdata(wdata), .s_axil_wstrb(4'hf),
    .s_axil_bvalid(bvalid), .s_axil_bready(1'b1), .s_axil_bresp(),
    .s_axil_arvalid(arvalid), .s_axil_arready(arready), .s_axil_araddr(araddr),
    .s_axil_rvalid(rvalid), .s_axil_rready(1'b1), .s_axil_rdata(rdata), .s_axil_rresp(),
    .m_axi_arvalid(m_arvalid), .m_axi_arready(left == 0), .m_axi_araddr(), .m_axi_arlen(), .m_axi_arsize(),
    .m_axi_arburst(), .m_axi_arcache(), .m_axi_arprot(),
    .m_axi_rvalid(m_rvalid), .m_axi_rready(), .m_axi_rdata(m_rdata), .m_axi_rresp(2'b00), .m_axi_rlast(m_rlast),
    .m_axi_awvalid(m_awvalid), .m_axi_awready(1'b0), .m_axi_awaddr(), .m_axi_awlen(), .m_axi_awsize(),
    .m_axi_awburst(), .m_axi_awcache(), .m_axi_awprot(),
    .m_axi_wvalid(), .m_axi_wready(1'b0), .m_axi_wdata(), .m_axi_wstrb(), .m_axi_wlast(),
    .m_axi_bvalid(1'b0), .m_axi_bready(), .m_axi_bresp(2'b00),
    .running(), .trace_starts(), .trace_dones());

  always @(posedge clk) begin
    m_rvalid <= left != 0;
    m_rlast <= left == 1;
    m_rdata <= left == {beats} ? {end} : 0;
    if (m_arvalid && left == 0) left <= {beats};
    else if (left != 0) left <= left - 1;
  end

  task write(input [11:0] address, input [31:0] data);
    begin
      @(negedge clk) begin awvalid = 1; wvalid = 1; awaddr = address; wdata = data; end
      while (awvalid || wvalid) begin
        @(posedge clk);
        if (awready) awvalid <= 0;
        if (wready) wvalid <= 0;
        @(negedge clk);
      end
      while (!bvalid) @(negedge clk);
    end
  endtask

  task read(input [11:0] address);
    begin
      @(negedge clk) begin arvalid = 1; araddr = address; end
      while (!arready) @(negedge clk);
      @(posedge clk) arvalid <= 0;
      @(negedge clk);
      while (!rvalid) @(negedge clk);
    end
  endtask

  initial begin
    repeat (4) @(negedge clk);
    rst = 0;
    read({id_at});
    if (rdata !== {id}) begin $display("FAIL: ID = %h", rdata); $finish; end
    write({words_at}, 1);
    write({base_at}, 4096);
    write({enable_at}, 3);
    write({control_at}, 1);
    repeat (1000) if (!irq) @(negedge clk);
    read({status_at});
    if (rdata !== {done}) $display("FAIL: STATUS = %h", rdata);
    else $display("PASS");
    $finish;
  end
endmodule
"""


def files(design: Design, verilog: Path, version: str) -> dict[Path, str]:
    """The core file and the testbench of an accelerator whose Verilog stands at `verilog`: path -> text."""
    core, testbench = verilog.with_suffix(".core"), verilog.with_name(f"{verilog.stem}_tb.v")
    port_bits = 8 * int(design.params["port_bytes"])
    hexadecimal = {
        f"{name}_at": f"12'h{OFFSETS[register]:03x}"
        for name, register in (
            ("id", "ID"),
            ("words", "PROGRAM_WORDS"),
            ("base", "PROGRAM_BASE_LO"),
            ("enable", "INTERRUPT_ENABLE"),
            ("control", "CONTROL"),
            ("status", "STATUS"),
        )
    }
    core_text = _CORE.format(
        core=design.module.removeprefix("accelerator_"),
        version=version,
        name=design.name,
        verilog=verilog.name,
        testbench=testbench.name,
        module=design.module,
    )
    bench_text = _TESTBENCH.format(
        module=design.module,
        top=port_bits - 1,
        beats=max(1, 128 // port_bits),
        end=encode(End()),
        id=f"32'h{IDENTITY << 16 | MAJOR << 8 | MINOR:08x}",
        done=BY_NAME["STATUS"].field("done").mask,
        **hexadecimal,
    )
    return {core: core_text, testbench: bench_text}
