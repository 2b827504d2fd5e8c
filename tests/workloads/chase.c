// Follows pointers through 64 MiB in random order: each step misses caches and TLB.
#include "bench.h"

#include <sys/mman.h>

struct line {
    struct line *next;
    char padding[64 - sizeof(struct line *)];
};

enum { LINES = (64 << 20) / sizeof(struct line), STEPS = 1000 };

static struct line *lines;

// Sattolo's shuffle makes one cycle through all lines.
static void prepare(void) {
    lines = map_pages(LINES * sizeof(struct line), PROT_READ | PROT_WRITE);
    for (uint32_t i = 0; i < LINES; i++)
        lines[i].next = &lines[i];
    uint32_t state = 11;
    for (uint32_t i = LINES - 1; i > 0; i--) {
        uint32_t other = next_random(&state) % i;
        struct line *next = lines[i].next;
        lines[i].next = lines[other].next;
        lines[other].next = next;
    }
}

static uint64_t run(uint64_t count) {
    const struct line *line = lines;
    for (uint64_t step = 0; step < count * STEPS; step++)
        line = line->next;
    return line - lines;
}

WORKLOAD(chase, "chase", prepare, run);
