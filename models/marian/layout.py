"""The layout of the family."""

from ternbin.models.bart.layout import Layout

LAYOUT = Layout(embedding_norm=False, sinusoidal=True, position_offset=0, tied_apart=True)
