/* The accelerator through Linux's generic-uio, memory through u-dma-buf or any other file that can be mapped. */
#ifndef TERNBIN_UIO_H
#define TERNBIN_UIO_H

#include "ternbin.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ternbin_uio {
    struct ternbin_io io; /* for ternbin_open; it points to this structure, which must stay where it is */
    volatile uint32_t *registers;
    int registers_file, memory_file;
    int timeout_ms; /* the longest wait for the interrupt of a call, a minute unless you set it; negative: without end */
};

/* Map registers (such as /dev/uio0) and memory (such as /dev/udmabuf0, of `bytes` bytes, at `address` for the accelerator, what
 * /sys/class/u-dma-buf/udmabuf0/phys_addr says), opened so that the processor does not cache it. 0, or -1 with errno. */
int ternbin_uio_open(struct ternbin_uio *uio, const char *registers, const char *memory, uint64_t address, size_t bytes);
void ternbin_uio_close(struct ternbin_uio *uio);

#ifdef __cplusplus
}
#endif
#endif
