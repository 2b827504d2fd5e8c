// What all workloads share. A row of the benchmark is a `WORKLOAD`; `main.c` runs one by name.
#pragma once

#include <stdint.h>
#include <stdlib.h>

struct workload {
    const char *name;
    // What comes before the clock starts.
    void (*prepare)(void);
    // Does `count` units of work and returns a checksum of what came out.
    uint64_t (*run)(uint64_t count);
};

// The linker collects the pointers of all files into one array.
#define WORKLOAD(id, title, prepare, run)                                        \
    static const struct workload id##_workload = {title, prepare, run};          \
    static const struct workload *const id##_entry                               \
        __attribute__((section("workloads"), used)) = &id##_workload

static inline void nothing_to_prepare(void) {}

// Marsaglia's xorshift with 32 bits; the state must not be 0.
static inline uint32_t next_random(uint32_t *state) {
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

// One step of a checksum, after FNV-1a.
static inline uint64_t mix(uint64_t sum, uint64_t value) {
    return (sum ^ value) * 0x100000001b3;
}

// Ends the program if a system call that cannot fail has failed.
void check(int holds, const char *what);

// What a process of the row `compile` does.
int compiler_stage(const char *name, const char *seed);

// Fresh zeroed memory in pages of 4 KiB.
void *map_pages(size_t size, int protection);
