// A ULX3S (LFE5U-85F in CABGA381, 25 MHz): the accelerator runs at 50 MHz, the host is the serial line of the USB connector.
module ternbin_ulx3s (
    input wire clk_25mhz,
    input wire btn_pwr_n,  // pressed: reset
    input wire ftdi_txd,
    output wire ftdi_rxd,
    output wire led
);
  wire clk;
  wire locked;
  (* FREQUENCY_PIN_CLKI = "25" *)
  (* FREQUENCY_PIN_CLKOP = "50" *)
  (* ICP_CURRENT = "12" *)
  (* LPF_RESISTOR = "8" *)
  (* MFG_ENABLE_FILTEROPAMP = "1" *)
  (* MFG_GMCREF_SEL = "2" *)
  EHXPLLL #(
      .PLLRST_ENA("DISABLED"),
      .INTFB_WAKE("DISABLED"),
      .STDBY_ENABLE("DISABLED"),
      .DPHASE_SOURCE("DISABLED"),
      .OUTDIVIDER_MUXA("DIVA"),
      .OUTDIVIDER_MUXB("DIVB"),
      .OUTDIVIDER_MUXC("DIVC"),
      .OUTDIVIDER_MUXD("DIVD"),
      .CLKI_DIV(1),
      .CLKOP_ENABLE("ENABLED"),
      .CLKOP_DIV(12),
      .CLKOP_CPHASE(5),
      .CLKOP_FPHASE(0),
      .FEEDBK_PATH("CLKOP"),
      .CLKFB_DIV(2)
  ) pll (
      .RST(1'b0),
      .STDBY(1'b0),
      .CLKI(clk_25mhz),
      .CLKOP(clk),
      .CLKFB(clk),
      .PHASESEL0(1'b0),
      .PHASESEL1(1'b0),
      .PHASEDIR(1'b1),
      .PHASESTEP(1'b1),
      .PHASELOADREG(1'b1),
      .PLLWAKESYNC(1'b0),
      .ENCLKOP(1'b0),
      .LOCK(locked)
  );

  // Reset ends some cycles after clock and button are steady. No register needs a value before: whatever it holds, ones come through.
  reg [3:0] quiet;
  always @(posedge clk) quiet <= {quiet[2:0], locked & btn_pwr_n};

  ternbin_board board (.clk(clk), .rst(~&quiet), .rx(ftdi_txd), .tx(ftdi_rxd), .led(led));
endmodule
