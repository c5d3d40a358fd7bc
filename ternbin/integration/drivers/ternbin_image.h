/* What the files of the driver read of an image; not for others. */
#ifndef TERNBIN_IMAGE_H
#define TERNBIN_IMAGE_H

#include "ternbin.h"
#include "ternbin_constants.h"

#define TERNBIN_MAGIC_BYTES (sizeof TERNBIN_IMAGE_MAGIC - 1)

static inline uint64_t ternbin_load(const uint8_t *at, unsigned bytes) {
    uint64_t value = 0;
    while (bytes--) value = value << 8 | at[bytes];
    return value;
}

/* A number of the image: one of TERNBIN_IMAGE_.., or of the lists behind them. */
static inline uint64_t ternbin_word(const struct ternbin *core, uint64_t number) {
    return ternbin_load(core->image + TERNBIN_MAGIC_BYTES + 8 * number, 8);
}

static inline uint64_t ternbin_call_address(const struct ternbin *core, uint64_t call) {
    return ternbin_word(core, TERNBIN_IMAGE_NUMBERS + call);
}

static inline uint64_t ternbin_call_instructions(const struct ternbin *core, uint64_t call) {
    return ternbin_word(core, TERNBIN_IMAGE_NUMBERS + ternbin_word(core, TERNBIN_IMAGE_CALLS) + call);
}

static inline uint32_t ternbin_prompt(const struct ternbin *core, uint64_t number) {
    return (uint32_t)ternbin_word(core, TERNBIN_IMAGE_NUMBERS + 2 * ternbin_word(core, TERNBIN_IMAGE_CALLS) + number);
}

static inline int ternbin_is_end(const struct ternbin *core, uint32_t token) {
    const uint64_t prompt = ternbin_word(core, TERNBIN_IMAGE_PROMPT);
    for (uint64_t i = 0; i < ternbin_word(core, TERNBIN_IMAGE_ENDS); i++)
        if (ternbin_prompt(core, prompt + i) == token) return 1;
    return 0;
}

/* A token in a beat of its own. */
static inline void ternbin_put(struct ternbin *core, uint64_t address, uint64_t token) {
    const uint64_t beat = ternbin_word(core, TERNBIN_IMAGE_BEAT);
    for (uint64_t i = 0; i < beat; i++) core->io.memory[address + i] = i < 8 ? (uint8_t)(token >> 8 * i) : 0;
}

/* Put the ids of the texts in place, if they and `max_new_tokens` are what the program takes, and run the calls of the texts. */
int ternbin_read_texts(struct ternbin *core, const uint32_t *ids, size_t count, size_t max_new_tokens);

#endif
