// The bit-serial PE (module `inner_pe`) with one fault, the one that the plusarg `fault` names; none without it.
module bit_serial_faults (
  input clk, input rst, input clear,
  input slice__valid, input [110:0] slice__payload, output slice__ready,
  input special_write, input [1:0] special_index, input [5:0] special_value,
  output column__valid, output [31:0] column__payload, input column__ready
);
  reg [3:0] fault;
  reg ever_reset, waited, kept_valid;
  reg [31:0] kept;
  initial begin
    ever_reset = 1'b0;
    if (!$value$plusargs("fault=%d", fault)) fault = 4'd0;
  end

  wire ready, valid;
  wire [31:0] column;
  wire rst_given = rst && !(fault == 4'd5 && ever_reset);
  wire later = fault == 4'd1;
  wire free = !kept_valid || column__ready;
  wire [15:0] wrong_act = slice__payload[15:0] == 16'h7bff && slice__payload[71:64] == 8'h7f ? 16'h7bfe
                        : slice__payload[15:0];

  inner_pe inner (
    .clk(clk), .rst(rst_given || fault == 4'd4 && clear), .clear(clear && fault != 4'd3),
    .slice__valid(slice__valid), .slice__ready(ready),
    .slice__payload({slice__payload[110:16], fault == 4'd7 ? wrong_act : slice__payload[15:0]}),
    .special_write(special_write && !(fault == 4'd6 && special_index == 2'd3)),
    .special_index(special_index), .special_value(special_value),
    .column__valid(valid), .column__payload(column), .column__ready(later ? free || clear : column__ready)
  );

  assign slice__ready = fault == 4'd8 && clear || ready && !(fault == 4'd9 && !slice__valid);
  assign column__valid = later ? kept_valid : valid;
  assign column__payload = later ? kept : column ^ {31'd0, fault == 4'd2 && waited};

  always @(posedge clk) begin
    waited <= valid && !column__ready && !rst;
    if (rst) ever_reset <= 1'b1;
    if (free) begin
      kept_valid <= valid && !clear;
      kept <= column;
    end
    if (rst) kept_valid <= 1'b0;
  end
endmodule
