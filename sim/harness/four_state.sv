// An accelerator with clock and external memory, for simulators of four states: commands come from standard input, answers go to
// standard output (sim/four_state.py). The memory has the timing of axi_memory.h, the cycle that of bench.cpp: cycle counts are equal.
// Included: the declarations of all ports of the accelerator, its instance, and `unknown`, a bit a checked output.
`timescale 1ns / 1ns
module four_state;
  localparam BYTES = `DATA_BITS / 8;
  localparam OPEN = 8;  // bursts in flight in each direction
  localparam [1:0] OKAY = 0, DECERR = 3;
  localparam STDIN = 32'h8000_0000;

`include "ports.vh"

  reg [`DATA_BITS-1:0] memory [0:`WORDS-1];
  reg [63:0] random;
  integer now = 0;

  // Bursts in flight: rings of OPEN places.
  reg [63:0] r_addr [0:OPEN-1], w_addr [0:OPEN-1];
  integer r_beats [0:OPEN-1], r_id [0:OPEN-1], r_due [0:OPEN-1], w_beats [0:OPEN-1], w_id [0:OPEN-1], b_due [0:OPEN-1], b_id [0:OPEN-1];
  reg w_bad [0:OPEN-1], b_bad [0:OPEN-1];
  integer r_first, r_count, w_first, w_count, b_first, b_count, r_credit, w_credit;
  reg ar_ready, r_valid, aw_ready, w_ready, b_valid;

  integer unknown_count [0:`CHECKED-1];
  integer unknown_first [0:`CHECKED-1];

  function stall(input integer channel);
    stall = random != 0 && random[8*channel+:8] < 96;
  endfunction

  function holds(input [63:0] addr);
    holds = addr < 64'd`WORDS * BYTES;
  endfunction

  function integer gain(input integer credit);
    gain = (credit < 63 ? credit : 63) + `BEATS;
  endfunction

  task restart_memory;
    begin
      random = `STALLS;
      r_first = 0; r_count = 0; w_first = 0; w_count = 0; b_first = 0; b_count = 0; r_credit = 64; w_credit = 64;
      ar_ready = 0; r_valid = 0; aw_ready = 0; w_ready = 0; b_valid = 0;
    end
  endtask

  task step_read;
    begin
      if (r_valid && m_axi_rready) begin
        r_valid = 0;
        r_addr[r_first] = r_addr[r_first] + BYTES;
        r_beats[r_first] = r_beats[r_first] - 1;
        if (r_beats[r_first] == 0) begin
          r_first = (r_first + 1) % OPEN;
          r_count = r_count - 1;
        end
      end
      if (m_axi_arvalid && ar_ready) begin
        r_addr[(r_first + r_count) % OPEN] = m_axi_araddr;
        r_beats[(r_first + r_count) % OPEN] = m_axi_arlen + 1;
        r_id[(r_first + r_count) % OPEN] = m_axi_arid;
        r_due[(r_first + r_count) % OPEN] = now + `LATENCY;
        r_count = r_count + 1;
      end
      r_credit = gain(r_credit);
      if (!r_valid && r_count != 0 && now + 1 >= r_due[r_first] && r_credit >= 64 && !stall(1)) begin
        r_valid = 1;
        r_credit = r_credit - 64;
      end
      ar_ready = r_count < OPEN && !stall(0);
    end
  endtask

  task write_beat;
    integer i, last;
    begin
      w_credit = w_credit - 64;
      if (holds(w_addr[w_first])) begin
        for (i = 0; i < BYTES; i = i + 1)
          if (m_axi_wstrb[i] !== 1'b0) memory[w_addr[w_first] / BYTES][8*i+:8] = m_axi_wdata[8*i+:8];
      end else w_bad[w_first] = 1;
      w_addr[w_first] = w_addr[w_first] + BYTES;
      w_beats[w_first] = w_beats[w_first] - 1;
      if (w_beats[w_first] == 0) begin
        last = (b_first + b_count) % OPEN;
        b_due[last] = now + `LATENCY;
        b_id[last] = w_id[w_first];
        b_bad[last] = w_bad[w_first];
        b_count = b_count + 1;
        w_first = (w_first + 1) % OPEN;
        w_count = w_count - 1;
      end
    end
  endtask

  task step_write;
    begin
      if (b_valid && m_axi_bready) begin
        b_valid = 0;
        b_first = (b_first + 1) % OPEN;
        b_count = b_count - 1;
      end
      if (w_ready && m_axi_wvalid) write_beat;
      if (m_axi_awvalid && aw_ready) begin
        w_addr[(w_first + w_count) % OPEN] = m_axi_awaddr;
        w_beats[(w_first + w_count) % OPEN] = m_axi_awlen + 1;
        w_id[(w_first + w_count) % OPEN] = m_axi_awid;
        w_bad[(w_first + w_count) % OPEN] = 0;
        w_count = w_count + 1;
      end
      if (!b_valid && b_count != 0 && now + 1 >= b_due[b_first] && !stall(4)) b_valid = 1;
      aw_ready = w_count + b_count < OPEN && !stall(2);
      w_credit = gain(w_credit);
      w_ready = w_count != 0 && w_credit >= 64 && !stall(3);
    end
  endtask

  // Inputs that carry nothing are unknown.
  task drive;
    begin
      m_axi_arready = ar_ready;
      m_axi_rvalid = r_valid;
      m_axi_rdata = {`DATA_BITS{1'bx}};
      m_axi_rresp = 2'bx;
      m_axi_rlast = 1'bx;
      m_axi_rid = 1'bx;
      if (r_valid) begin
        m_axi_rdata = holds(r_addr[r_first]) ? memory[r_addr[r_first] / BYTES] : 0;
        m_axi_rresp = holds(r_addr[r_first]) ? OKAY : DECERR;
        m_axi_rlast = r_beats[r_first] == 1;
        m_axi_rid = r_id[r_first];
      end
      m_axi_awready = aw_ready;
      m_axi_wready = w_ready;
      m_axi_bvalid = b_valid;
      m_axi_bresp = b_valid ? (b_bad[b_first] ? DECERR : OKAY) : 2'bx;
      m_axi_bid = b_valid ? b_id[b_first] : 1'bx;
    end
  endtask

  task check;
    integer i;
    if (|unknown)
      for (i = 0; i < `CHECKED; i = i + 1)
        if (unknown[i]) begin
          if (unknown_count[i] == 0) unknown_first[i] = now;
          unknown_count[i] = unknown_count[i] + 1;
        end
  endtask

  reg seen_aw, seen_w, seen_b, seen_ar, seen_r;

  task cycle;
    begin
      clk = 1;
      #1 clk = 0;
      #1 now = now + 1;
      seen_aw = s_axil_awvalid && s_axil_awready;
      seen_w = s_axil_wvalid && s_axil_wready;
      seen_b = s_axil_bvalid && s_axil_bready;
      seen_ar = s_axil_arvalid && s_axil_arready;
      seen_r = s_axil_rvalid && s_axil_rready;
      if (!rst) begin
        check;
        random = random ^ (random << 13);
        random = random ^ (random >> 7);
        random = random ^ (random << 17);
        step_read;
        step_write;
      end
      drive;
    end
  endtask

  task reset(input integer cycles);
    begin
      s_axil_awvalid = 0; s_axil_wvalid = 0; s_axil_bready = 0; s_axil_arvalid = 0; s_axil_rready = 0;
      restart_memory;
      drive;
      rst = 1;
      repeat (cycles) cycle;
      rst = 0;
      cycle;
    end
  endtask

  task write_register(input [31:0] address, input [31:0] value);
    integer left;
    begin
      s_axil_awaddr = address; s_axil_wdata = value; s_axil_wstrb = 4'hf;
      s_axil_awvalid = 1; s_axil_wvalid = 1; s_axil_bready = 1;
      left = 1000;
      seen_b = 0;
      while (seen_b !== 1'b1 && left != 0) begin
        cycle;
        left = left - 1;
        if (seen_aw === 1'b1) s_axil_awvalid = 0;
        if (seen_w === 1'b1) s_axil_wvalid = 0;
      end
      s_axil_bready = 0;
      $display("written %b", left != 0 ? s_axil_bresp : 2'bxx);
    end
  endtask

  task read_register(input [31:0] address);
    integer left;
    begin
      s_axil_araddr = address;
      s_axil_arvalid = 1; s_axil_rready = 1;
      left = 1000;
      seen_r = 0;
      while (seen_r !== 1'b1 && left != 0) begin
        cycle;
        left = left - 1;
        if (seen_ar === 1'b1) s_axil_arvalid = 0;
      end
      s_axil_rready = 0;
      $display("read %b %b", left != 0 ? s_axil_rresp : 2'bxx, s_axil_rdata);
    end
  endtask

  task run(input integer limit);
    integer begun;
    begin
      begun = now;
      while (irq !== 1'b1 && now - begun < limit) cycle;
      $display("ran %0d %0d", irq === 1'b1, now);
    end
  endtask

  reg [8*16-1:0] command;
  integer a, b, got, i;
  initial begin
    clk = 0;
    now = 0;
    for (i = 0; i < `CHECKED; i = i + 1) unknown_count[i] = 0;
    forever begin
      got = $fscanf(STDIN, "%s %d %d", command, a, b);
      case (command)
        "load": begin $readmemh("memory.hex", memory); $display("loaded"); end
        "dump": begin $writememh("memory.hex", memory); $display("dumped"); end
        "reset": begin reset(a); $display("reset"); end
        "write": write_register(a, b);
        "read": read_register(a);
        "run": run(a);
        "cycle": begin repeat (a) cycle; $display("now %0d", now); end
        "now": $display("now %0d", now);
        "unknown": begin
          for (i = 0; i < `CHECKED; i = i + 1) $display("%0d %0d", unknown_count[i], unknown_count[i] ? unknown_first[i] : 0);
        end
        default: $finish;
      endcase
      $fflush;
    end
  end
endmodule
