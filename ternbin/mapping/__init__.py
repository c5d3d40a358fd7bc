"""Mapping a folded graph onto an accelerator; ternbin/mapping/mapper.py is the way in."""
