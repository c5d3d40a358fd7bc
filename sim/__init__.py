"""Cycle-accurate simulation: Verilator build, compiled harness, runner, cocotb benches."""
