/* Driver of a ternbin accelerator: registers through two functions, memory through a pointer. C11, no allocation.
 *
 *     struct ternbin core;
 *     if (ternbin_open(&core, &io, image, image_bytes) == TERNBIN_OK)
 *         status = ternbin_generate(&core, ids, count, tokens, max_new_tokens, &found);
 *
 * An image is a file that `ternbin lower --image` writes. For one of several texts or of a search with beams see ternbin_search.h. */
#ifndef TERNBIN_H
#define TERNBIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How to reach one accelerator. `wait`, `flush` and `invalidate` may be NULL. */
struct ternbin_io {
    void *context; /* handed to every function */
    uint32_t (*read32)(void *context, uint32_t offset);
    void (*write32)(void *context, uint32_t offset, uint32_t value);
    int (*wait)(void *context);        /* returns 0 once the interrupt came; NULL: STATUS is read until the program is done */
    void (*flush)(void *context);      /* what the processor wrote to memory becomes visible to the accelerator */
    void (*invalidate)(void *context); /* and the other way round */
    uint8_t *memory;                   /* as the processor sees it */
    uint64_t address;                  /* as the accelerator sees it: a multiple of 4096 */
    size_t bytes;
};

/* Positive: the accelerator stopped with that error code (register ERROR). */
enum ternbin_status {
    TERNBIN_OK = 0,
    TERNBIN_BAD_IMAGE = -1,  /* no image, truncated or damaged */
    TERNBIN_BAD_MEMORY = -2, /* memory too small, not at a page, or beyond what the accelerator can address */
    TERNBIN_NOT_FOUND = -3,  /* register ID is not that of an accelerator */
    TERNBIN_BAD_INPUT = -4,  /* ids or their number, or the number of tokens, are not what the program takes */
    TERNBIN_BUSY = -5,       /* the bus did not answer: reset the accelerator */
    TERNBIN_NO_INTERRUPT = -6
};

struct ternbin {
    struct ternbin_io io;
    const uint8_t *image;
    uint64_t error_address; /* of the last error of the accelerator, as it sees it */
};

/* Bytes of memory that an image needs, 0 for what is no image or a damaged one. */
uint64_t ternbin_memory_bytes(const uint8_t *image, size_t bytes);

/* Check image, memory and registers, and copy the program to memory. The image must stay where it is. */
int ternbin_open(struct ternbin *core, const struct ternbin_io *io, const uint8_t *image, size_t bytes);

/* Tokens after the start token, decoded greedily, for a text of `count` ids, at most `max_new_tokens`: room for as many must be at `tokens`. */
int ternbin_generate(struct ternbin *core, const uint32_t *ids, size_t count, uint32_t *tokens, size_t max_new_tokens,
                     size_t *found);

/* Run one call of the program to its end. */
int ternbin_call(struct ternbin *core, uint64_t number);

/* A counter of the last call, by its number in the manifest. */
uint64_t ternbin_counter(const struct ternbin *core, uint32_t number);

/* A word for a status. */
const char *ternbin_text(int status);

#ifdef __cplusplus
}
#endif
#endif
