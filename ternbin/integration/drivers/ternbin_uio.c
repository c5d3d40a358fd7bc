#define _DEFAULT_SOURCE
#include "ternbin_uio.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REGISTER_BYTES 4096 /* of the accelerator's AXI4-Lite slave */
#define TIMEOUT_MS 60000

static uint32_t read32(void *context, uint32_t offset) {
    return ((struct ternbin_uio *)context)->registers[offset / 4];
}

static void write32(void *context, uint32_t offset, uint32_t value) {
    ((struct ternbin_uio *)context)->registers[offset / 4] = value;
}

/* The kernel masks the interrupt when it comes: ask for the next one, then wait for it. */
static int wait_for_interrupt(void *context) {
    const struct ternbin_uio *uio = context;
    const int file = uio->registers_file;
    struct pollfd interrupt = {.fd = file, .events = POLLIN};
    uint32_t number = 1;
    if (write(file, &number, sizeof number) != sizeof number) return -1;
    const int came = poll(&interrupt, 1, uio->timeout_ms);
    if (came == 0) errno = ETIMEDOUT;
    if (came <= 0) return -1;
    return read(file, &number, sizeof number) == sizeof number ? 0 : -1;
}

static void *map(int file, size_t bytes) {
    void *place = file < 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return place == MAP_FAILED ? NULL : place;
}

int ternbin_uio_open(struct ternbin_uio *uio, const char *registers, const char *memory, uint64_t address, size_t bytes) {
    memset(uio, 0, sizeof *uio);
    uio->registers_file = open(registers, O_RDWR | O_SYNC);
    uio->memory_file = open(memory, O_RDWR | O_SYNC);
    uio->registers = map(uio->registers_file, REGISTER_BYTES);
    uio->timeout_ms = TIMEOUT_MS;
    uio->io = (struct ternbin_io){.context = uio,
                                  .read32 = read32,
                                  .write32 = write32,
                                  .wait = wait_for_interrupt,
                                  .memory = map(uio->memory_file, bytes),
                                  .address = address,
                                  .bytes = bytes};
    if (uio->registers != NULL && uio->io.memory != NULL) return 0;
    ternbin_uio_close(uio);
    return -1;
}

void ternbin_uio_close(struct ternbin_uio *uio) {
    if (uio->registers != NULL) munmap((void *)uio->registers, REGISTER_BYTES);
    if (uio->io.memory != NULL) munmap(uio->io.memory, uio->io.bytes);
    if (uio->registers_file >= 0) close(uio->registers_file);
    if (uio->memory_file >= 0) close(uio->memory_file);
    uio->registers = NULL, uio->io.memory = NULL;
    uio->registers_file = uio->memory_file = -1;
}
