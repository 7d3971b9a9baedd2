// Models of ours of the two ECP5 blocks that Yosys has no model of, for simulating netlists of `synth_ecp5`.
//
// Only what those netlists use; a parameter beyond it ends elaboration (an instance of a module that is none), and so
// does a connection to a pin that is not here. Zero delay. Tests: tests/fpga/test_ecp5_cells.py.
//
// Sources: Lattice FPGA-TN-02205 (sysDSP usage guide: MULT18X18D, its operand sources and signs) and FPGA-TN-02204 (memory
// usage guide, before: TN1264: DP16KD, its widths, write modes, byte enables and reset). Which pin is which bit of a
// narrow port, and where INITVAL has a word, is as Yosys connects them (techlibs/lattice/brams_map_16kd.v).

// A * B. SIGNEDA, SIGNEDB: the operand is in two's complement. SOURCEA, SOURCEB: 1 takes the shift input.
// C is the ALU's: no part of the product. Not modelled: its registers (all must be NONE), shift and ROA..ROC outputs, bypass.
module MULT18X18D(
  input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
  input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
  input SRIA17, SRIA16, SRIA15, SRIA14, SRIA13, SRIA12, SRIA11, SRIA10, SRIA9, SRIA8, SRIA7, SRIA6, SRIA5, SRIA4, SRIA3,
      SRIA2, SRIA1, SRIA0,
  input SRIB17, SRIB16, SRIB15, SRIB14, SRIB13, SRIB12, SRIB11, SRIB10, SRIB9, SRIB8, SRIB7, SRIB6, SRIB5, SRIB4, SRIB3,
      SRIB2, SRIB1, SRIB0,
  input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
  input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
  output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15, P14,
      P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
  parameter REG_INPUTA_CLK = "NONE";
  parameter REG_INPUTB_CLK = "NONE";
  parameter REG_INPUTC_CLK = "NONE";
  parameter REG_PIPELINE_CLK = "NONE";
  parameter REG_OUTPUT_CLK = "NONE";
  parameter MULT_BYPASS = "DISABLED";
  parameter CAS_MATCH_REG = "FALSE";
  parameter HIGHSPEED_CLK = "NONE";
  parameter SOURCEB_MODE = "B_SHIFT";
  parameter REG_INPUTA_CE = "CE0";
  parameter REG_INPUTA_RST = "RST0";
  parameter REG_INPUTB_CE = "CE0";
  parameter REG_INPUTB_RST = "RST0";
  parameter REG_INPUTC_CE = "CE0";
  parameter REG_INPUTC_RST = "RST0";
  parameter REG_PIPELINE_CE = "CE0";
  parameter REG_PIPELINE_RST = "RST0";
  parameter REG_OUTPUT_CE = "CE0";
  parameter REG_OUTPUT_RST = "RST0";
  parameter CLK0_DIV = "ENABLED";
  parameter CLK1_DIV = "ENABLED";
  parameter CLK2_DIV = "ENABLED";
  parameter CLK3_DIV = "ENABLED";
  parameter GSR = "ENABLED";
  parameter RESETMODE = "SYNC";
  generate
    if (REG_INPUTA_CLK != "NONE" || REG_INPUTB_CLK != "NONE" || REG_INPUTC_CLK != "NONE")
      MULT18X18D_input_registers_are_not_modelled refused();
    if (REG_PIPELINE_CLK != "NONE" || REG_OUTPUT_CLK != "NONE")
      MULT18X18D_pipeline_and_output_registers_are_not_modelled refused();
    if (MULT_BYPASS != "DISABLED" || CAS_MATCH_REG != "FALSE" || HIGHSPEED_CLK != "NONE" || SOURCEB_MODE != "B_SHIFT")
      MULT18X18D_this_mode_is_not_modelled refused();
  endgenerate
  wire [17:0] a = SOURCEA ? {SRIA17, SRIA16, SRIA15, SRIA14, SRIA13, SRIA12, SRIA11, SRIA10, SRIA9, SRIA8, SRIA7, SRIA6,
      SRIA5, SRIA4, SRIA3, SRIA2, SRIA1, SRIA0} :
    {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
  wire [17:0] b = SOURCEB ? {SRIB17, SRIB16, SRIB15, SRIB14, SRIB13, SRIB12, SRIB11, SRIB10, SRIB9, SRIB8, SRIB7, SRIB6,
      SRIB5, SRIB4, SRIB3, SRIB2, SRIB1, SRIB0} :
    {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
  // Each operand as 19 bits with a sign of its own.
  wire signed [37:0] product = $signed({SIGNEDA & a[17], a}) * $signed({SIGNEDB & b[17], b});
  assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15, P14,
      P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = product[35:0];
endmodule

// 18,432 bits of RAM with two ports of 1, 2, 4, 9 or 18 bits, or (A is 36) one that writes and one, B, that reads.
// A port that is enabled (CE, CS 0) reads, registered; one that writes holds its output (NORMAL) or reads what was there
// before (READBEFOREWRITE). 18 and 36 bits have byte enables in the lowest address bits. RST clears the output.
// Read by one port in the cycle in which the other writes it, a bit is the opposite of what it was: Lattice promises
// nothing there. Both clocks must be one net for that.
// Not modelled: output registers, WRITETHROUGH, RESETMODE SYNC, inverted clocks, chip selects beyond 0.
module DP16KD(
  input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
  input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
  input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
  output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
  input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
  input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
  input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
  output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
);
  parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18;
  parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG";
  parameter RESETMODE = "ASYNC";
  parameter CSDECODE_A = "0b000", CSDECODE_B = "0b000";
  parameter WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL";
  parameter CLKAMUX = "CLKA", CLKBMUX = "CLKB";
  parameter GSR = "ENABLED", ASYNC_RESET_RELEASE = "SYNC", INIT_DATA = "STATIC";  // of power-up and of reset's end
  parameter [319:0] INITVAL_00 = 320'h0;
  parameter [319:0] INITVAL_01 = 320'h0;
  parameter [319:0] INITVAL_02 = 320'h0;
  parameter [319:0] INITVAL_03 = 320'h0;
  parameter [319:0] INITVAL_04 = 320'h0;
  parameter [319:0] INITVAL_05 = 320'h0;
  parameter [319:0] INITVAL_06 = 320'h0;
  parameter [319:0] INITVAL_07 = 320'h0;
  parameter [319:0] INITVAL_08 = 320'h0;
  parameter [319:0] INITVAL_09 = 320'h0;
  parameter [319:0] INITVAL_0A = 320'h0;
  parameter [319:0] INITVAL_0B = 320'h0;
  parameter [319:0] INITVAL_0C = 320'h0;
  parameter [319:0] INITVAL_0D = 320'h0;
  parameter [319:0] INITVAL_0E = 320'h0;
  parameter [319:0] INITVAL_0F = 320'h0;
  parameter [319:0] INITVAL_10 = 320'h0;
  parameter [319:0] INITVAL_11 = 320'h0;
  parameter [319:0] INITVAL_12 = 320'h0;
  parameter [319:0] INITVAL_13 = 320'h0;
  parameter [319:0] INITVAL_14 = 320'h0;
  parameter [319:0] INITVAL_15 = 320'h0;
  parameter [319:0] INITVAL_16 = 320'h0;
  parameter [319:0] INITVAL_17 = 320'h0;
  parameter [319:0] INITVAL_18 = 320'h0;
  parameter [319:0] INITVAL_19 = 320'h0;
  parameter [319:0] INITVAL_1A = 320'h0;
  parameter [319:0] INITVAL_1B = 320'h0;
  parameter [319:0] INITVAL_1C = 320'h0;
  parameter [319:0] INITVAL_1D = 320'h0;
  parameter [319:0] INITVAL_1E = 320'h0;
  parameter [319:0] INITVAL_1F = 320'h0;
  parameter [319:0] INITVAL_20 = 320'h0;
  parameter [319:0] INITVAL_21 = 320'h0;
  parameter [319:0] INITVAL_22 = 320'h0;
  parameter [319:0] INITVAL_23 = 320'h0;
  parameter [319:0] INITVAL_24 = 320'h0;
  parameter [319:0] INITVAL_25 = 320'h0;
  parameter [319:0] INITVAL_26 = 320'h0;
  parameter [319:0] INITVAL_27 = 320'h0;
  parameter [319:0] INITVAL_28 = 320'h0;
  parameter [319:0] INITVAL_29 = 320'h0;
  parameter [319:0] INITVAL_2A = 320'h0;
  parameter [319:0] INITVAL_2B = 320'h0;
  parameter [319:0] INITVAL_2C = 320'h0;
  parameter [319:0] INITVAL_2D = 320'h0;
  parameter [319:0] INITVAL_2E = 320'h0;
  parameter [319:0] INITVAL_2F = 320'h0;
  parameter [319:0] INITVAL_30 = 320'h0;
  parameter [319:0] INITVAL_31 = 320'h0;
  parameter [319:0] INITVAL_32 = 320'h0;
  parameter [319:0] INITVAL_33 = 320'h0;
  parameter [319:0] INITVAL_34 = 320'h0;
  parameter [319:0] INITVAL_35 = 320'h0;
  parameter [319:0] INITVAL_36 = 320'h0;
  parameter [319:0] INITVAL_37 = 320'h0;
  parameter [319:0] INITVAL_38 = 320'h0;
  parameter [319:0] INITVAL_39 = 320'h0;
  parameter [319:0] INITVAL_3A = 320'h0;
  parameter [319:0] INITVAL_3B = 320'h0;
  parameter [319:0] INITVAL_3C = 320'h0;
  parameter [319:0] INITVAL_3D = 320'h0;
  parameter [319:0] INITVAL_3E = 320'h0;
  parameter [319:0] INITVAL_3F = 320'h0;
  generate
    if (REGMODE_A != "NOREG" || REGMODE_B != "NOREG") DP16KD_output_registers_are_not_modelled refused();
    if (RESETMODE != "ASYNC") DP16KD_a_synchronous_reset_is_not_modelled refused();
    if (CSDECODE_A != "0b000" || CSDECODE_B != "0b000") DP16KD_chip_selects_are_not_modelled refused();
    if (CLKAMUX != "CLKA" || CLKBMUX != "CLKB") DP16KD_inverted_clocks_are_not_modelled refused();
    if ((WRITEMODE_A != "NORMAL" && WRITEMODE_A != "READBEFOREWRITE")
        || (WRITEMODE_B != "NORMAL" && WRITEMODE_B != "READBEFOREWRITE")) DP16KD_this_write_mode_is_not_modelled refused();
    if ((DATA_WIDTH_A != 1 && DATA_WIDTH_A != 2 && DATA_WIDTH_A != 4 && DATA_WIDTH_A != 9 && DATA_WIDTH_A != 18
         && DATA_WIDTH_A != 36)
        || (DATA_WIDTH_B != 1 && DATA_WIDTH_B != 2 && DATA_WIDTH_B != 4 && DATA_WIDTH_B != 9 && DATA_WIDTH_B != 18
            && DATA_WIDTH_B != 36)
        || (DATA_WIDTH_B == 36 && DATA_WIDTH_A != 36)) DP16KD_this_width_is_not_modelled refused();
  endgenerate
  localparam [20479:0] INIT = {
    INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38,
    INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30,
    INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
    INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20,
    INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18,
    INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10,
    INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
    INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00};

  // A port's row of 9-bit bytes: its first, and how many.
  function [10:0] first(input integer width, input [13:0] address);
    first = width == 36 ? {address[13:5], 2'b0} : width == 18 ? {address[13:4], 1'b0} : address[13:3];
  endfunction
  localparam COUNT_A = DATA_WIDTH_A == 36 ? 4 : DATA_WIDTH_A == 18 ? 2 : 1;
  localparam COUNT_B = DATA_WIDTH_B == 36 ? 4 : DATA_WIDTH_B == 18 ? 2 : 1;

  // Bits of byte `at` that a write to `address` changes.
  function [8:0] touched(input integer width, input [13:0] address, input [10:0] at);
    if (at >> (width == 36 ? 2 : width == 18 ? 1 : 0) != first(width, address) >> (width == 36 ? 2 : width == 18 ? 1 : 0))
      touched = 9'h000;
    else
      case (width)
        36: touched = {9{address[at[1:0]]}};
        18: touched = {9{address[at[0]]}};
        9: touched = 9'h1FF;
        4: touched = 9'h00F << {address[2], 2'b0};
        2: touched = 9'h003 << {address[2:1], 1'b0};
        default: touched = 9'h001 << address[2:0];
      endcase
  endfunction

  // What a write would put into a byte, in each place where it may go.
  function [8:0] put(input integer width, input [35:0] data, input [1:0] place);
    case (width)
      36: put = data[9 * place +: 9];
      18: put = data[9 * place[0] +: 9];
      9: put = data[8:0];
      4: put = {1'b0, {2{data[3:0]}}};
      2: put = {1'b0, {4{data[1:0]}}};
      default: put = {9{data[0]}};
    endcase
  endfunction

  // The part of a byte that a narrow port shows.
  function [8:0] part(input integer width, input [13:0] address, input [8:0] got);
    case (width)
      4: part = got >> {address[2], 2'b0} & 9'h00F;
      2: part = got >> {address[2:1], 1'b0} & 9'h003;
      1: part = got >> address[2:0] & 9'h001;
      default: part = got;
    endcase
  endfunction

  reg [8:0] bytes [0:2047];
  reg [35:0] got_a = 36'b0, got_b = 36'b0;
  wire [13:0] address_a =
    {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
  wire [13:0] address_b =
    {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
  wire [17:0] low = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3,
      DIA2, DIA1, DIA0};
  wire [17:0] high = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3,
      DIB2, DIB1, DIB0};
  wire [35:0] data_a = {high, low};
  wire [35:0] data_b = {18'b0, high};
  wire on_a = CEA & ~CSA2 & ~CSA1 & ~CSA0;
  wire on_b = CEB & ~CSB2 & ~CSB1 & ~CSB0;
  wire write_a = on_a & WEA;
  wire write_b = on_b & WEB & DATA_WIDTH_A != 36;
  integer word, i, j;

  initial
    for (word = 0; word < 1024; word = word + 1) begin
      bytes[2 * word] = INIT[20 * word +: 9];
      bytes[2 * word + 1] = INIT[20 * word + 9 +: 9];
    end

  // Bits of byte `at` that each port writes now, and the byte behind both writes (of one bit: Lattice promises nothing).
  function [8:0] by_a(input [10:0] at);
    by_a = write_a ? touched(DATA_WIDTH_A, address_a, at) : 9'h000;
  endfunction
  function [8:0] by_b(input [10:0] at);
    by_b = write_b ? touched(DATA_WIDTH_B, address_b, at) : 9'h000;
  endfunction
  function [8:0] written(input [10:0] at);
    written = (put(DATA_WIDTH_A, data_a, at[1:0]) & by_a(at)) | (put(DATA_WIDTH_B, data_b, at[1:0]) & by_b(at) & ~by_a(at))
      | (bytes[at] & ~by_a(at) & ~by_b(at));
  endfunction
  always @(posedge CLKA)
    if (write_a)
      for (i = 0; i < COUNT_A; i = i + 1)
        bytes[first(DATA_WIDTH_A, address_a) + i] <= written(first(DATA_WIDTH_A, address_a) + i);

  always @(posedge CLKB)
    if (write_b)
      for (j = 0; j < COUNT_B; j = j + 1)
        bytes[first(DATA_WIDTH_B, address_b) + j] <= written(first(DATA_WIDTH_B, address_b) + j);

  // Byte `place` of what port A would read now.
  function [8:0] seen_a(input [1:0] place);
    reg [10:0] at;
    begin
      at = first(DATA_WIDTH_A, address_a) + place;
      seen_a = part(DATA_WIDTH_A, address_a, bytes[at] ^ by_b(at));
    end
  endfunction
  always @(posedge CLKA or posedge RSTA)
    if (RSTA)
      got_a <= 36'b0;
    else if (on_a && !(write_a && WRITEMODE_A == "NORMAL"))
      got_a <= {seen_a(2'd3), seen_a(2'd2), COUNT_A > 1 ? seen_a(2'd1) : 9'b0, seen_a(2'd0)};

  // Byte `place` of what port B would read now.
  function [8:0] seen_b(input [1:0] place);
    reg [10:0] at;
    begin
      at = first(DATA_WIDTH_B, address_b) + place;
      seen_b = part(DATA_WIDTH_B, address_b, bytes[at] ^ by_a(at));
    end
  endfunction
  always @(posedge CLKB or posedge RSTB)
    if (RSTB)
      got_b <= 36'b0;
    else if (on_b && !(write_b && WRITEMODE_B == "NORMAL"))
      got_b <= {seen_b(2'd3), seen_b(2'd2), COUNT_B > 1 ? seen_b(2'd1) : 9'b0, seen_b(2'd0)};

  assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} =
    DATA_WIDTH_B == 36 ? got_b[17:0] : got_a[17:0];
  assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} =
    DATA_WIDTH_B == 36 ? got_b[35:18] : got_b[17:0];
endmodule
