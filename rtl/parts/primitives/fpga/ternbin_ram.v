// One memory bank as block RAM is inferred: what the body for other targets does, but each part of a word has a write enable, and no
// word is read to be written. Small ones of whole nibbles are of look-up tables: what they show is a register, faster than block RAM.
module ternbin_ram #(
    parameter DEPTH = 16,  // words
    parameter WIDTH = 8,   // bits of a word
    parameter ADDR = 4,    // bits of an address, at least log2(DEPTH)
    parameter ELEMENTS = 1,
    parameter PLANES = 1
) (
    input wire clk,
    input wire ren,
    input wire [ADDR-1:0] raddr,
    output reg [WIDTH-1:0] rdata,
    input wire wen,
    input wire [ADDR-1:0] waddr,
    input wire [WIDTH-1:0] wdata,
    input wire [ELEMENTS-1:0] wmask
);
  localparam PART = WIDTH / (ELEMENTS * PLANES);

`ifndef __ICARUS__  // which takes no parameter in an attribute
  (* ram_style = DEPTH <= 256 && PART % 4 == 0 ? "distributed" : "auto" *)
`endif
  reg [WIDTH-1:0] mem [0:DEPTH-1];
  integer part;

  always @(posedge clk) begin
    if (ren) rdata <= mem[raddr];
    for (part = 0; part < ELEMENTS * PLANES; part = part + 1)
      if (wen && wmask[part % ELEMENTS]) mem[waddr][part * PART +: PART] <= wdata[part * PART +: PART];
  end
endmodule
