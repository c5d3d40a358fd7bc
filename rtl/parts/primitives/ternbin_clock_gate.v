// Integrated clock gate: `gated` has those edges of `clk` before which `enable` was 1. `enable` may change with the clock or after it:
// the latch holds it while `clk` is high, so that no pulse is cut short. A tape-out replaces this by the library's cell.
module ternbin_clock_gate (
    input wire clk,
    input wire enable,
    output wire gated
);
    reg open;

    /* verilator lint_off LATCH */
    always @* if (!clk) open = enable;
    /* verilator lint_on LATCH */
    assign gated = clk & open;
endmodule
