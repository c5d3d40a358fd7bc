// popcount(plus) - popcount(minus). Under SYNTHESIS one tree counts plus and the inverse of minus; WIDTH is then too much.
module ternbin_difference #(
    parameter WIDTH = 64,
    parameter OUT = $clog2(WIDTH + 1) + 1
) (
    input wire [WIDTH-1:0] plus,
    input wire [WIDTH-1:0] minus,
    output wire [OUT-1:0] difference
);
`ifdef SYNTHESIS
  localparam COUNT = $clog2(2 * WIDTH + 1);
  wire [COUNT-1:0] count;
  ternbin_popcount_tree #(.WIDTH(2 * WIDTH), .COUNT(COUNT)) tree (.bits({plus, ~minus}), .count(count));
  /* verilator lint_off WIDTHTRUNC */
  /* verilator lint_off WIDTHEXPAND */
  assign difference = count - WIDTH;
  /* verilator lint_on WIDTHEXPAND */
  /* verilator lint_on WIDTHTRUNC */
`else
  /* verilator lint_off WIDTHTRUNC */
  assign difference = $countones(plus) - $countones(minus);
  /* verilator lint_on WIDTHTRUNC */
`endif
endmodule
