// Popcount of WIDTH bits from WIDTH - (ones of WIDTH) full adders: two halves and, as carry in, the bit left over.
module ternbin_popcount_tree #(
    parameter WIDTH = 64,
    parameter COUNT = $clog2(WIDTH + 1)
) (
    input wire [WIDTH-1:0] bits,
    output wire [COUNT-1:0] count
);
  localparam LOW = WIDTH / 2;
  localparam HIGH = WIDTH - 1 - LOW;
  localparam LOW_COUNT = $clog2(LOW + 1);
  localparam HIGH_COUNT = $clog2(HIGH + 1);

  generate
    if (WIDTH == 1) begin : g_one
      assign count = bits;
    end else if (WIDTH == 2) begin : g_two
      assign count = {bits[1] & bits[0], bits[1] ^ bits[0]};
    end else begin : g_more
      wire [LOW_COUNT-1:0] low;
      wire [HIGH_COUNT-1:0] high;
      wire [LOW_COUNT-1:0] addend;
      wire [LOW_COUNT:0] carry;
      wire [LOW_COUNT-1:0] sum;
      ternbin_popcount_tree #(.WIDTH(LOW), .COUNT(LOW_COUNT)) low_half (.bits(bits[LOW-1:0]), .count(low));
      ternbin_popcount_tree #(.WIDTH(HIGH), .COUNT(HIGH_COUNT)) high_half (.bits(bits[LOW+HIGH-1:LOW]), .count(high));
      if (HIGH_COUNT == LOW_COUNT) begin : g_same
        assign addend = high;
      end else begin : g_shorter
        assign addend = {{(LOW_COUNT - HIGH_COUNT) {1'b0}}, high};
      end
      assign carry[0] = bits[WIDTH-1];
      genvar i;
      for (i = 0; i < LOW_COUNT; i = i + 1) begin : g_digit
        ternbin_full_adder adder (.a(low[i]), .b(addend[i]), .c(carry[i]), .sum(sum[i]), .carry(carry[i+1]));
      end
      if (COUNT == LOW_COUNT) begin : g_fits
        wire unused = carry[LOW_COUNT];  // always zero: WIDTH fits in as many bits as its larger half
        assign count = sum;
      end else begin : g_grows
        assign count = {carry[LOW_COUNT], sum};
      end
    end
  endgenerate
endmodule

// Kept as a module of its own: synthesis maps it to the library's full adder cell.
module ternbin_full_adder (
    input wire a,
    input wire b,
    input wire c,
    output wire sum,
    output wire carry
);
  assign sum = a ^ b ^ c;
  assign carry = (a & b) | (c & (a ^ b));
endmodule
