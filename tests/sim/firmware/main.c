/* Runs the image behind it by the driver, and leaves tokens in memory. */
#include "given.h" /* IDS, NEW, REGISTERS, MEMORY, BYTES, RESULT */
#include "ternbin.h"

extern const uint8_t image[], image_end[];

static uint32_t read32(void *context, uint32_t offset) { return *(volatile uint32_t *)((uint8_t *)context + offset); }

static void write32(void *context, uint32_t offset, uint32_t value) {
    *(volatile uint32_t *)((uint8_t *)context + offset) = value;
}

int main(void) {
    static const uint32_t ids[] = IDS;
    const struct ternbin_io io = {
        .context = (void *)REGISTERS,
        .read32 = read32,
        .write32 = write32,
        .memory = (uint8_t *)MEMORY,
        .address = MEMORY,
        .bytes = BYTES,
    };
    volatile uint32_t *result = (volatile uint32_t *)RESULT;
    struct ternbin core;
    uint32_t tokens[NEW];
    size_t found = 0;
    int status = ternbin_open(&core, &io, image, (size_t)(image_end - image));
    if (status == TERNBIN_OK) status = ternbin_generate(&core, ids, sizeof ids / sizeof *ids, tokens, NEW, &found);
    for (size_t i = 0; i < found; i++) result[2 + i] = tokens[i];
    result[1] = (uint32_t)status;
    result[0] = 1 + (uint32_t)found; /* last: it is done */
    return 0;
}
