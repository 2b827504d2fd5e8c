// The C library's memory and string functions over sizes from a few bytes to 16 KiB, at
// changing alignments. Which of its variants runs is decided by CPUID, as for any program.
#include "bench.h"

#include <string.h>

enum { LARGEST = 1 << 14, ROOM = LARGEST + 64 };

static const size_t sizes[] = {7, 16, 33, 64, 200, 1000, 4096, LARGEST};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static char from[ROOM], to[ROOM];

static void prepare(void) {
    memset(from, 'a', ROOM);
    memset(to, 'a', ROOM);
}

static uint64_t run_memcpy(uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        size_t size = sizes[i % SIZES], offset = i / SIZES % 32;
        from[offset + size / 2] = (char)i;
        memcpy(to + 31 - offset, from + offset, size);
        sum = mix(sum, (uint8_t)to[31 - offset + size / 2]);
    }
    return sum;
}

static uint64_t run_memset(uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        size_t size = sizes[i % SIZES], offset = i / SIZES % 32;
        memset(to + offset, (int)i, size);
        sum = mix(sum, (uint8_t)to[offset + size - 1]);
    }
    return sum;
}

static uint64_t run_strlen(uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        size_t size = sizes[i % SIZES], offset = i / SIZES % 32;
        from[offset + size] = 0;
        sum = mix(sum, strlen(from + offset));
        from[offset + size] = 'a';
    }
    return sum;
}

static uint64_t run_strcmp(uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        size_t size = sizes[i % SIZES], offset = i / SIZES % 32;
        char *left = from + offset, *right = to + 31 - offset;
        left[size] = 0;
        right[size] = (char)(i & 1);
        sum = mix(sum, strcmp(left, right) < 0);
        left[size] = right[size] = 'a';
    }
    return sum;
}

static uint64_t run_memchr(uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        size_t size = sizes[i % SIZES], offset = i / SIZES % 32;
        from[offset + size] = 'b';
        sum = mix(sum, (char *)memchr(from + offset, 'b', ROOM - offset) - from);
        from[offset + size] = 'a';
    }
    return sum;
}

WORKLOAD(memcpy, "memcpy", prepare, run_memcpy);
WORKLOAD(memset, "memset", prepare, run_memset);
WORKLOAD(strlen, "strlen", prepare, run_strlen);
WORKLOAD(strcmp, "strcmp", prepare, run_strcmp);
WORKLOAD(memchr, "memchr", prepare, run_memchr);
