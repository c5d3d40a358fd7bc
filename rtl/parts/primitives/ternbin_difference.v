// Ones of `plus` less ones of `minus`, negated with `negate`, sign-extended to OUT bits (more than WIDTH needs). Under SYNTHESIS one
// tree counts `plus` and the inverse of `minus`, WIDTH too much, and all arithmetic is as narrow as the value.
module ternbin_difference #(
    parameter WIDTH = 64,
    parameter OUT = 24
) (
    input wire [WIDTH-1:0] plus,
    input wire [WIDTH-1:0] minus,
    input wire negate,
    output wire [OUT-1:0] difference
);
`ifdef SYNTHESIS
  localparam BITS = $clog2(WIDTH + 1) + 1;
  localparam [BITS-1:0] EXCESS = WIDTH[BITS-1:0];
  wire [BITS-1:0] count;
  wire [BITS-1:0] value;
  // 2*WIDTH ones need no more bits than a signed number up to WIDTH.
  ternbin_popcount_tree #(.WIDTH(2 * WIDTH), .COUNT(BITS)) tree (.bits({plus, ~minus}), .count(count));
  assign value = ((count - EXCESS) ^ {BITS{negate}}) + {{(BITS - 1) {1'b0}}, negate};
  assign difference = {{(OUT - BITS) {value[BITS-1]}}, value};
`else
  // Every operand is used once: a simulator can evaluate all this where, and when, the result is used.
  wire [OUT-1:0] value;
  /* verilator lint_off WIDTHTRUNC */
  assign value = $countones(plus) - $countones(minus);
  /* verilator lint_on WIDTHTRUNC */
  assign difference = (value ^ {OUT{negate}}) + {{(OUT - 1) {1'b0}}, negate};
`endif
endmodule
