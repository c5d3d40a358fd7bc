// A bank of ABUF whose words have eight planes: `ren` and `wen` have a bit for each, plane 0 lowest. Plane 0 has two bits a lane, the
// others one: rdata is plane 0, then a bit a lane of planes 1 to 7. Planes that are not read keep their part of it. `wmask` has a bit a
// lane. This is the behavioural body, one array `mem` with plane p at p * DEPTH; a tape-out replaces it by eight SRAM macros, of
// 2 * LANES and LANES bits. Contract: addresses are below DEPTH; a read returns the word as it was before a write of the same cycle.
module ternbin_plane_ram #(
    parameter DEPTH = 16,  // words of a plane
    parameter LANES = 8,
    parameter ADDR = 4     // bits of an address, log2(DEPTH)
) (
    input wire clk,
    input wire [7:0] ren,
    input wire [ADDR-1:0] raddr,
    output reg [9*LANES-1:0] rdata,
    input wire [7:0] wen,
    input wire [ADDR-1:0] waddr,
    input wire [2*LANES-1:0] wdata,
    input wire [LANES-1:0] wmask
);
    reg [2*LANES-1:0] mem [0:8*DEPTH-1];
    wire [2*LANES-1:0] low = {wmask, wmask}, high = {{LANES{1'b0}}, wmask};

    integer plane;
    always @(posedge clk) begin
        if (ren[0]) rdata[2*LANES-1:0] <= mem[raddr];
        for (plane = 1; plane < 8; plane = plane + 1)
            if (ren[plane]) rdata[(plane+1)*LANES +: LANES] <= mem[plane*DEPTH + raddr][LANES-1:0];
        if (wen[0]) mem[waddr] <= (mem[waddr] & ~low) | (wdata & low);
        for (plane = 1; plane < 8; plane = plane + 1)
            if (wen[plane])
                mem[plane*DEPTH + waddr] <=
                    {{LANES{1'b0}}, (mem[plane*DEPTH + waddr][LANES-1:0] & ~wmask) | (wdata[LANES-1:0] & wmask)};
    end
endmodule
