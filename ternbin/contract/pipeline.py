"""Constants of the microarchitecture that the cycle model, the mapper and the RTL share."""

SCALE_WORDS = 4  # parameter words of one (M, B) pair


MUL_BITS, BIAS_BITS = 24, 40


PAGE_BYTES = 4096  # no burst crosses a multiple of this


IN_FLIGHT = 8  # instructions of one unit that were issued and are not done


DESCRIPTORS = 4  # transfers that the two stages of a unit may be apart


PREFETCH = 4  # instructions asked for ahead


ENGINES = 2  # columns that are worked through at the same time: beam b's by engine b % ENGINES


SLOTS = 4  # queries between two passes
