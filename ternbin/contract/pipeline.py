"""Constants of the microarchitecture that more than one of RTL, cycle model, mapper and machine rest on."""

# parameters of the epilogue and of LAYERNORM
SCALE_WORDS = 4  # parameter words of PBUF that hold M and B

# instructions
PREFETCH = 4  # instructions asked for ahead
IN_FLIGHT = 8  # instructions of one unit that were issued and are not done
TOKEN_BITS = 8  # of a counter of tokens
MAX_TOKENS = (1 << TOKEN_BITS) - 1  # that one unit may have given another, and the other not taken

# transfers
PAGE_BYTES = 4096  # no burst crosses a multiple of this
DESCRIPTORS = 4  # transfers that the two stages of a unit may be apart
OUTSTANDING = 16  # bursts of one unit that were asked for and not answered
READ_AHEAD = 4  # words that STORE reads ahead

# compute units
ENGINES = 4  # columns of TOP that are worked through at the same time: beam b's by engine b % ENGINES
LOGITS = 2  # of such a column that are, in a cycle
NORM_GROUP = 4  # tokens of LAYERNORM that share a fetch of parameters
SLOTS = 4  # queries between two passes of SOFTMAX
