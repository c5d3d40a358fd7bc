// One memory bank: a read port and a write port, both synchronous; a read returns the word as it was before a write of the
// same cycle. This is the behavioural body; a tape-out replaces it by a wrapper of an SRAM macro with the same ports.
// A word is PLANES times ELEMENTS equal parts; bit e of `wmask` says whether part e of every plane is written.
// Contract: addresses are below DEPTH (the surrounding memory checks them); rdata holds between reads.
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

    reg [WIDTH-1:0] mem [0:DEPTH-1];

    function [WIDTH-1:0] spread(input [ELEMENTS-1:0] mask);
        integer part;
        for (part = 0; part < ELEMENTS * PLANES; part = part + 1)
            spread[part * PART +: PART] = {PART{mask[part % ELEMENTS]}};
    endfunction

`ifdef VERILATOR
    // The same, as it simulates fast: nothing is evaluated without its enable, for every operand is used once and within the process, and
    // a word is written at once, after it was read.
    reg [WIDTH-1:0] word;
    /* verilator lint_off BLKSEQ */
    always @(posedge clk) begin
        if (ren) rdata <= mem[raddr];
        if (wen) begin
            word = wdata;
            if (!(&wmask)) word = (mem[waddr] & ~spread(wmask)) | (word & spread(wmask));
            mem[waddr] = word;
        end
    end
    /* verilator lint_on BLKSEQ */
`else
    wire [WIDTH-1:0] bits;
    generate
        if (PART == 1) begin : g_bits
            assign bits = {PLANES{wmask}};
        end else begin : g_parts
            assign bits = spread(wmask);
        end
    endgenerate

    always @(posedge clk) begin
        if (ren) rdata <= mem[raddr];
        if (wen) begin
            if (&wmask) mem[waddr] <= wdata;
            else mem[waddr] <= (mem[waddr] & ~bits) | (wdata & bits);
        end
    end
`endif
endmodule
