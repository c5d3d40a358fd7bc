"""The accelerator, generated with Amaranth."""
