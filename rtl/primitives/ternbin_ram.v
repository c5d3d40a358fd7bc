// One memory bank: a read port and a write port, both synchronous; a read returns the word as it was before a write of the
// same cycle. This is the behavioural body; a tape-out replaces it by a wrapper of an SRAM macro with the same ports.
// Contract: addresses are below DEPTH (the surrounding memory checks them); rdata holds between reads.
module ternbin_ram #(
    parameter DEPTH = 16,  // words
    parameter WIDTH = 8,   // bits of a word
    parameter ADDR = 4     // bits of an address, at least log2(DEPTH)
) (
    input wire clk,
    input wire ren,
    input wire [ADDR-1:0] raddr,
    output reg [WIDTH-1:0] rdata,
    input wire wen,
    input wire [ADDR-1:0] waddr,
    input wire [WIDTH-1:0] wdata,
    input wire [WIDTH-1:0] wmask  // 1: this bit is written
);
    reg [WIDTH-1:0] mem [0:DEPTH-1];

    always @(posedge clk) begin
        if (ren) rdata <= mem[raddr];
        if (wen) mem[waddr] <= (mem[waddr] & ~wmask) | (wdata & wmask);
    end
endmodule
