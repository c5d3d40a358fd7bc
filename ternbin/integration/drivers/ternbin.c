#include "ternbin.h"

#include <stdatomic.h>
#include <string.h>

#include "ternbin_image.h"

#define BUSY_READS 1000 /* of STATUS after an error, until the bus is given up */

static void store64(uint8_t *at, uint64_t value) {
    for (int i = 0; i < 8; i++, value >>= 8) at[i] = (uint8_t)value;
}

static uint32_t crc32(const uint8_t *data, size_t bytes) {
    uint32_t crc = 0xffffffffu;
    while (bytes--) {
        crc ^= *data++;
        for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1u)));
    }
    return ~crc;
}

uint64_t ternbin_memory_bytes(const uint8_t *image, size_t bytes) {
    if (bytes < TERNBIN_MAGIC_BYTES + 8 * TERNBIN_IMAGE_NUMBERS + 4 || memcmp(image, TERNBIN_IMAGE_MAGIC, TERNBIN_MAGIC_BYTES)) return 0;
    const uint8_t *end = image + bytes - 4;
    const uint32_t sum = end[0] | (uint32_t)end[1] << 8 | (uint32_t)end[2] << 16 | (uint32_t)end[3] << 24;
    if (crc32(image, bytes - 4) != sum) return 0;
    const struct ternbin core = {.image = image};
    const uint64_t lists = 2 * ternbin_word(&core, TERNBIN_IMAGE_CALLS) + ternbin_word(&core, TERNBIN_IMAGE_PROMPT) + ternbin_word(&core, TERNBIN_IMAGE_ENDS) +
                           ternbin_word(&core, TERNBIN_IMAGE_TEXTS);
    const uint64_t size = ternbin_word(&core, TERNBIN_IMAGE_BYTES);
    return bytes - 4 - TERNBIN_MAGIC_BYTES == 8 * (TERNBIN_IMAGE_NUMBERS + lists) + size ? size : 0;
}

/* An instruction, with its address of memory, where it has one, moved to where the memory is. */
static void move(uint8_t *instruction, uint64_t base) {
    if (instruction[0] != TERNBIN_OP_LOAD && instruction[0] != TERNBIN_OP_STORE) return;
    const uint64_t mask = ((UINT64_C(1) << TERNBIN_DRAM_BITS) - 1) << TERNBIN_DRAM_BIT % 8;
    uint8_t *place = instruction + TERNBIN_DRAM_BIT / 8, *check = instruction + TERNBIN_CHECK_BIT / 8;
    const uint64_t old = ternbin_load(place, 8);
    store64(place, (old & ~mask) | ((old + (base << TERNBIN_DRAM_BIT % 8)) & mask));
    uint8_t low = TERNBIN_CHECK & 0xff, high = TERNBIN_CHECK >> 8;
    check[0] = check[1] = 0;
    for (size_t i = 0; i < TERNBIN_INSTRUCTION_BYTES; i += 2) low ^= instruction[i], high ^= instruction[i + 1];
    check[0] = low, check[1] = high;
}

int ternbin_open(struct ternbin *core, const struct ternbin_io *io, const uint8_t *image, size_t bytes) {
    const uint64_t size = ternbin_memory_bytes(image, bytes);
    if (size == 0) return TERNBIN_BAD_IMAGE;
    *core = (struct ternbin){.io = *io, .image = image};
    const uint64_t limit = UINT64_C(1) << ternbin_word(core, TERNBIN_IMAGE_ADDRESS_BITS);
    if (io->bytes < size || io->address % TERNBIN_PAGE || io->address > limit || size > limit - io->address)
        return TERNBIN_BAD_MEMORY;
    if (io->read32(io->context, TERNBIN_REG_ID) != TERNBIN_ID_VALUE) return TERNBIN_NOT_FOUND;
    memcpy(io->memory, image + bytes - 4 - size, (size_t)size);
    for (uint64_t call = 0; io->address && call < ternbin_word(core, TERNBIN_IMAGE_CALLS); call++)
        for (uint64_t i = 0; i < ternbin_call_instructions(core, call); i++)
            move(io->memory + ternbin_call_address(core, call) + i * TERNBIN_INSTRUCTION_BYTES, io->address);
    return TERNBIN_OK;
}

static uint32_t get(const struct ternbin *core, uint64_t address) {
    const uint64_t beat = ternbin_word(core, TERNBIN_IMAGE_BEAT);
    uint32_t token = 0;
    for (uint64_t i = 0; i < 4 && i < beat; i++) token |= (uint32_t)core->io.memory[address + i] << 8 * i;
    return token;
}

static int stopped(struct ternbin *core) {
    const struct ternbin_io *io = &core->io;
    const int code = (int)io->read32(io->context, TERNBIN_REG_ERROR);
    core->error_address = io->read32(io->context, TERNBIN_REG_ERROR_ADDR);
    core->error_address |= (uint64_t)io->read32(io->context, TERNBIN_REG_ERROR_ADDR_HI) << 32;
    for (int i = 0; i < BUSY_READS && io->read32(io->context, TERNBIN_REG_STATUS) & TERNBIN_STATUS_BUSY; i++) {
    }
    io->write32(io->context, TERNBIN_REG_STATUS, 1);
    return code;
}

int ternbin_call(struct ternbin *core, uint64_t number) {
    const struct ternbin_io *io = &core->io;
    if (number >= ternbin_word(core, TERNBIN_IMAGE_CALLS)) return TERNBIN_BAD_INPUT;
    if (io->read32(io->context, TERNBIN_REG_STATUS) & TERNBIN_STATUS_BUSY) return TERNBIN_BUSY;
    const uint64_t address = io->address + ternbin_call_address(core, number);
    if (io->flush) io->flush(io->context);
    atomic_thread_fence(memory_order_seq_cst);
    io->write32(io->context, TERNBIN_REG_PROGRAM, (uint32_t)address);
    io->write32(io->context, TERNBIN_REG_PROGRAM_HI, (uint32_t)(address >> 32));
    io->write32(io->context, TERNBIN_REG_CTRL,
                TERNBIN_CTRL_START | TERNBIN_CTRL_CLEAR | (io->wait ? TERNBIN_CTRL_IRQ_ENABLE : 0));
    if (io->wait && io->wait(io->context)) return TERNBIN_NO_INTERRUPT;
    uint32_t status;
    do status = io->read32(io->context, TERNBIN_REG_STATUS);
    while (!(status & (TERNBIN_STATUS_DONE | TERNBIN_STATUS_ERROR)));
    if (status & TERNBIN_STATUS_ERROR) return stopped(core);
    io->write32(io->context, TERNBIN_REG_STATUS, 1);
    atomic_thread_fence(memory_order_seq_cst);
    if (io->invalidate) io->invalidate(io->context);
    return TERNBIN_OK;
}

int ternbin_read_texts(struct ternbin *core, const uint32_t *ids, size_t count, size_t max_new_tokens) {
    const uint64_t beat = ternbin_word(core, TERNBIN_IMAGE_BEAT), source = ternbin_word(core, TERNBIN_IMAGE_SOURCE);
    if (max_new_tokens == 0 || max_new_tokens > ternbin_word(core, TERNBIN_IMAGE_MAX_NEW_TOKENS)) return TERNBIN_BAD_INPUT;
    if (count != ternbin_word(core, TERNBIN_IMAGE_SOURCE_IDS)) return TERNBIN_BAD_INPUT;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] >= ternbin_word(core, TERNBIN_IMAGE_SOURCE_LIMIT)) return TERNBIN_BAD_INPUT;
        ternbin_put(core, source + i * beat, ids[i]);
    }
    int status = TERNBIN_OK;
    for (uint64_t text = 0; status == TERNBIN_OK && text < ternbin_word(core, TERNBIN_IMAGE_TEXTS); text++)
        status = ternbin_call(core, text);
    return status;
}

int ternbin_generate(struct ternbin *core, const uint32_t *ids, size_t count, uint32_t *tokens, size_t max_new_tokens,
                     size_t *found) {
    const uint64_t beat = ternbin_word(core, TERNBIN_IMAGE_BEAT), target = ternbin_word(core, TERNBIN_IMAGE_TARGET);
    const uint64_t prompt = ternbin_word(core, TERNBIN_IMAGE_PROMPT), last = ternbin_word(core, TERNBIN_IMAGE_LAST);
    *found = 0;
    if (ternbin_word(core, TERNBIN_IMAGE_LISTED)) return TERNBIN_BAD_INPUT;
    int status = ternbin_read_texts(core, ids, count, max_new_tokens);
    if (status != TERNBIN_OK) return status;
    size_t given = 1; /* tokens of the prompt beyond the start token are the first of the text */
    for (; given < prompt && *found < max_new_tokens; given++) tokens[(*found)++] = ternbin_prompt(core, given);
    uint64_t past = 0;
    while (status == TERNBIN_OK && *found < max_new_tokens && !(*found && ternbin_is_end(core, tokens[*found - 1]))) {
        if (last != TERNBIN_NONE && *found == max_new_tokens - 1) {
            tokens[(*found)++] = (uint32_t)last;
            continue;
        }
        /* Positions up to *found + 1 - 1 hold the start token and the text so far: feed those that were not. */
        for (; status == TERNBIN_OK && past <= *found; past++) {
            ternbin_put(core, target + past * beat, past == 0 ? ternbin_prompt(core, 0) : tokens[past - 1]);
            status = ternbin_call(core, 1 + past);
        }
        if (status == TERNBIN_OK) {
            tokens[*found] = get(core, target + past * beat);
            ++*found;
        }
    }
    return status;
}

uint64_t ternbin_counter(const struct ternbin *core, uint32_t number) {
    const uint32_t offset = TERNBIN_REG_COUNTERS + 8 * number;
    const uint64_t low = core->io.read32(core->io.context, offset);
    return low | (uint64_t)core->io.read32(core->io.context, offset + 4) << 32;
}

const char *ternbin_text(int status) {
    static const char *const errors[] = TERNBIN_ERRORS;
    static const char *const refusals[] = {"bad image",  "memory that does not fit", "no accelerator", "bad input",
                                           "busy", "no interrupt"};
    if (status == TERNBIN_OK) return "good";
    if (status > 0) return (size_t)status < sizeof errors / sizeof *errors ? errors[status] : "unknown error";
    return (size_t)-status <= sizeof refusals / sizeof *refusals ? refusals[-status - 1] : "unknown status";
}
