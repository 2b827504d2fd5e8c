// The C library's qsort: an indirect call and an unpredictable branch for each comparison.
#include "bench.h"

enum { LENGTH = 4096 };

static uint32_t numbers[LENGTH];

static int compare(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static uint64_t run(uint64_t count) {
    uint64_t sum = 0;
    uint32_t state = 7;
    while (count--) {
        for (size_t i = 0; i < LENGTH; i++)
            numbers[i] = next_random(&state);
        qsort(numbers, LENGTH, sizeof numbers[0], compare);
        for (size_t i = 0; i < LENGTH; i += 64)
            sum = mix(sum, numbers[i]);
    }
    return sum;
}

WORKLOAD(qsort, "qsort", nothing_to_prepare, run);
