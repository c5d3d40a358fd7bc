"""Mapping a folded graph onto an accelerator; ternbin/mapper.py is the way in."""
