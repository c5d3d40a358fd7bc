"""An accelerator on an FPGA: design, synthesis, placement and routing, bitstream."""
