// int8-mac by hand, in Verilog-2001: the ports and arithmetic of `bitwright generate int8-mac`, but three stages that
// wait for each other one by one. Latency 3 cycles; up to two finished sums wait inside while the first is held back.
`include "widths.vh"

module elastic_mac #(
  parameter SUM_BITS = 32
) (
  input  wire                clk,
  input  wire                rst,
  input  wire                step__valid,
  input  wire [`STEP_BITS-1:0] step__payload,  // last, first, wgt, act
  output wire                step__ready,
  output reg                 sum__valid,
  output reg  [SUM_BITS-1:0] sum__payload,
  input  wire                sum__ready
);
  wire signed [7:0] act = step__payload[7:0];
  wire signed [7:0] wgt = step__payload[15:8];

  reg                       product_valid, product_first, product_last;
  reg signed [15:0]         product;
  reg                       acc_done;  // acc holds a whole sum that is not handed on yet
  reg signed [SUM_BITS-1:0] acc;

  wire sum_free = !sum__valid || sum__ready;
  wire acc_free = !acc_done || sum_free;
  assign step__ready = !product_valid || acc_free;

  always @(posedge clk) begin
    if (step__ready) begin
      product_valid <= step__valid;
      product_first <= step__payload[16];
      product_last <= step__payload[17];
      product <= act * wgt;
    end
    if (acc_free) begin
      acc_done <= product_valid && product_last;
      if (product_valid) acc <= (product_first ? 0 : acc) + product;
    end
    if (sum_free) begin
      sum__valid <= acc_done;
      if (acc_done) sum__payload <= acc;
    end
    if (rst) begin
      product_valid <= 1'b0;
      acc_done <= 1'b0;
      sum__valid <= 1'b0;
    end
  end
endmodule
