"""Which dot products of published chips are characterised: as wide as all that a unit of the chip sums at once, no accumulator behind."""

# Bits of a weight, of an activation (or of its slice in one of several steps), products.
DOTS = {
    "ternary dot": (2, 2, 864),
    "binary dot": (1, 1, 784),
    "binary12 dot": (1, 12, 49),
    "int8 dot": (8, 8, 64),
    "int8x2 dot": (8, 2, 128),
}
STEPS = {"int8x2 dot": 4}  # of a product, where it takes several
