"""The layout of the family."""

from ternbin.models.bart.layout import Layout

LAYOUT = Layout(pre_norm=True)
