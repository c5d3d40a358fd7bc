// Number of ones of `bits`. Two bodies of the same function: a system function, which simulates fast, and a tree of full
// adders (under SYNTHESIS), which is what synthesis gets. Their equality is a test.
module ternbin_popcount #(
    parameter WIDTH = 64,
    parameter COUNT = $clog2(WIDTH + 1)
) (
    input wire [WIDTH-1:0] bits,
    output wire [COUNT-1:0] count
);
`ifdef SYNTHESIS
  ternbin_popcount_tree #(.WIDTH(WIDTH), .COUNT(COUNT)) tree (.bits(bits), .count(count));
`else
  // A reduction by $countones is 32 bits wide; the upper bits are zero by construction.
  /* verilator lint_off WIDTHTRUNC */
  assign count = $countones(bits);
  /* verilator lint_on WIDTHTRUNC */
`endif
endmodule
