// A bank of ABUF whose words have eight planes, as eight memories that infer as block RAM: what the body for other targets does.
module ternbin_plane_ram #(
    parameter DEPTH = 16,  // words of a plane
    parameter LANES = 8,
    parameter ADDR = 4     // bits of an address, log2(DEPTH)
) (
    input wire clk,
    input wire [7:0] ren,
    input wire [ADDR-1:0] raddr,
    output wire [9*LANES-1:0] rdata,
    input wire [7:0] wen,
    input wire [ADDR-1:0] waddr,
    input wire [2*LANES-1:0] wdata,
    input wire [LANES-1:0] wmask
);
  ternbin_ram #(.DEPTH(DEPTH), .WIDTH(2 * LANES), .ADDR(ADDR), .ELEMENTS(LANES), .PLANES(2)) plane0 (
      .clk(clk), .ren(ren[0]), .raddr(raddr), .rdata(rdata[2*LANES-1:0]),
      .wen(wen[0]), .waddr(waddr), .wdata(wdata), .wmask(wmask));
  genvar plane;
  generate
    for (plane = 1; plane < 8; plane = plane + 1) begin : g_planes
      ternbin_ram #(.DEPTH(DEPTH), .WIDTH(LANES), .ADDR(ADDR), .ELEMENTS(LANES), .PLANES(1)) ram (
          .clk(clk), .ren(ren[plane]), .raddr(raddr), .rdata(rdata[(plane+1)*LANES +: LANES]),
          .wen(wen[plane]), .waddr(waddr), .wdata(wdata[LANES-1:0]), .wmask(wmask));
    end
  endgenerate
endmodule
