"""What a driver must know of an accelerator, of instructions and of images: the same in C and Python, for every configuration."""

from ternbin import formats
from ternbin.contract import hw, isa
from ternbin.contract import registers as own
from ternbin.decoding import search
from ternbin.graph import fixedpoint

REG_ID, REG_CTRL, REG_STATUS = isa.REG_ID, isa.REG_CTRL, isa.REG_STATUS
REG_ERROR, REG_ERROR_ADDR, REG_ERROR_ADDR_HI = isa.REG_ERROR, isa.REG_ERROR_ADDR, isa.REG_ERROR_ADDR_HI
REG_PROGRAM, REG_PROGRAM_HI, REG_COUNTERS = isa.REG_PROGRAM, isa.REG_PROGRAM_HI, isa.REG_COUNTERS
ID_VALUE = isa.ID_VALUE
CTRL_START, CTRL_IRQ_ENABLE, CTRL_CLEAR = own.START, own.IRQ_ENABLE, own.CLEAR
STATUS_BUSY, STATUS_DONE, STATUS_ERROR = own.BUSY, own.DONE, own.ERROR
ERRORS = tuple(code.name for code in isa.ErrorCode)  # by code

# Instructions that hold an address of external memory, which moves with the memory.
INSTRUCTION_BYTES, CHECK = isa.INSTRUCTION_BYTES, isa.CHECK
OP_LOAD, OP_STORE = int(isa.Op.LOAD), int(isa.Op.STORE)
DRAM_BIT, DRAM_BITS, _ = isa.layout(isa.Op.LOAD)["dram"]
CHECK_BIT = isa.layout(isa.Op.LOAD)["check"][0]
PAGE = 4096  # what memory is aligned to: no burst crosses a page

# An image (integration/image.py): IMAGE_MAGIC, the numbers below, 64 bits each, in this order; then numbers of 64 bits: byte address of
# every call, its instructions, tokens of the prompt, tokens that end a text, ids of each text; memory; CRC-32 of all before, 32 bits.
# Little end first.
IMAGE_MAGIC = f"{formats.IMAGE}\n".encode()
IMAGE_BYTES = 0  # of memory
IMAGE_BEAT = 1  # bytes of a beat of the bus; an id has a beat of its own
IMAGE_ADDRESS_BITS = 2  # of the bus
IMAGE_SOURCE = 3  # byte address of the ids of the texts, one text after the other
IMAGE_SOURCE_IDS = 4  # how many, of all texts
IMAGE_SOURCE_LIMIT = 5  # they are below it
IMAGE_TARGET = (
    6  # byte address of the tokens, the start token first; with lists: of those of every beam, position by position
)
IMAGE_TARGET_LIMIT = 7
IMAGE_MAX_NEW_TOKENS = 8
IMAGE_LAST = 9  # what the last possible token must be; NONE: anything
IMAGE_CALLS = 10  # the first are those of the texts, the others those of the target's positions
IMAGE_PROMPT = 11  # tokens of the prompt
IMAGE_ENDS = 12  # tokens that end a text
IMAGE_TEXTS = 13  # all decoded together
IMAGE_BEAMS = 14  # of each text. One text of one beam: the token follows the last one; else the accelerator lists the best of each beam
IMAGE_MASKS = (
    15  # byte address of what each beam sees: 16 bits for each beam of each position, bit b says whether beam b sees it
)
IMAGE_LISTS = 16  # byte address of the lists, position by position, beam by beam
IMAGE_LISTED = (
    17  # tokens of a list; an entry more holds the sum of all. An entry is three beats: token, logit low and high
)
IMAGE_CANDIDATES = 18  # how many of them a search looks at
IMAGE_LOGIT_SHIFT = 19  # listed logits are to be shifted right by it
IMAGE_LOGIT_SCALE = 20  # and are in units of 2^-this
IMAGE_LENGTH_PENALTY = 21  # of a search: a double, as it lies in memory
IMAGE_EARLY = 22  # when a search stops: one of the three below
IMAGE_NUMBERS = 23
NONE = (1 << 64) - 1
EARLY_ESTIMATE, EARLY_FULL, EARLY_NEVER = 0, 1, 2  # early_stopping false, true, "never"
MAX_BEAMS, MAX_LISTED = hw.MAX_BEAMS, hw.top_tokens(hw.MAX_BEAMS)  # of all texts
SUM_POINT = fixedpoint.TOTAL_POINT  # the sum of a list's last entry is in units of 2^-this
DEAD_SCORE = int(-search.DEAD)  # the score of a beam that is none is less than 0 by it
