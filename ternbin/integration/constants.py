"""What a driver must know of an accelerator, of instructions and of images: the same in C and Python, for every configuration."""

from ternbin import formats
from ternbin.contract import isa
from ternbin.contract import registers as own

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
# every call, its instructions, tokens of the prompt, tokens that end a text; memory; CRC-32 of all before, 32 bits. Little end first.
IMAGE_MAGIC = f"{formats.IMAGE}\n".encode()
IMAGE_BYTES = 0  # of memory
IMAGE_BEAT = 1  # bytes of a beat of the bus; an id has a beat of its own
IMAGE_ADDRESS_BITS = 2  # of the bus
IMAGE_SOURCE = 3  # byte address of the ids of the text
IMAGE_SOURCE_IDS = 4  # how many
IMAGE_SOURCE_LIMIT = 5  # they are below it
IMAGE_TARGET = 6  # byte address of the tokens, the start token first
IMAGE_TARGET_LIMIT = 7
IMAGE_MAX_NEW_TOKENS = 8
IMAGE_LAST = 9  # what the last possible token must be; NONE: anything
IMAGE_CALLS = 10  # the first is that of the text, the others those of the target's positions
IMAGE_PROMPT = 11  # tokens of the prompt
IMAGE_ENDS = 12  # tokens that end a text
IMAGE_NUMBERS = 13
NONE = (1 << 64) - 1
