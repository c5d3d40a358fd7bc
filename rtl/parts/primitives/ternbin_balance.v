// Ones of `bits` less zeros of `bits`, negated with `negate`, sign-extended to OUT bits (more than WIDTH needs).
module ternbin_balance #(
    parameter WIDTH = 64,
    parameter OUT = 24
) (
    input wire [WIDTH-1:0] bits,
    input wire negate,
    output wire [OUT-1:0] balance
);
  localparam COUNT = $clog2(WIDTH + 1);
  wire [COUNT-1:0] count;
  ternbin_popcount #(.WIDTH(WIDTH), .COUNT(COUNT)) popcount (.bits(bits), .count(count));
`ifdef SYNTHESIS
  localparam BITS = COUNT + 1;
  localparam [BITS-1:0] EXCESS = WIDTH[BITS-1:0];
  wire [BITS-1:0] value;
  assign value = (({count, 1'b0} - EXCESS) ^ {BITS{negate}}) + {{(BITS - 1) {1'b0}}, negate};
  assign balance = {{(OUT - BITS) {value[BITS-1]}}, value};
`else
  localparam [OUT-1:0] EXCESS = WIDTH[OUT-1:0];
  assign balance = (({{(OUT - COUNT - 1) {1'b0}}, count, 1'b0} - EXCESS) ^ {OUT{negate}}) + {{(OUT - 1) {1'b0}}, negate};
`endif
endmodule
