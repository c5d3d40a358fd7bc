"""ternbin: hardware co-design and simulation of binary and ternary transformers."""

__version__ = "0.1.0"
