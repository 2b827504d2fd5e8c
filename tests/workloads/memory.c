// The kernel's memory management: first touches of pages, and mapping and unmapping.
#include "bench.h"

#include <sys/mman.h>

enum { PAGE = 4096, FRESH = 256, MAPPED = 16 };

static uint64_t touch_fresh_pages(uint64_t count) {
    uint64_t sum = 0;
    while (count--) {
        volatile uint8_t *pages = map_pages(FRESH * PAGE, PROT_READ | PROT_WRITE);
        for (size_t i = 0; i < FRESH; i++) {
            pages[i * PAGE] += i + 1;
            sum = mix(sum, pages[i * PAGE]);
        }
        check(munmap((void *)pages, FRESH * PAGE) == 0, "munmap");
    }
    return sum;
}

static uint64_t map_and_unmap(uint64_t count) {
    uint64_t sum = 0;
    while (count--) {
        volatile uint8_t *pages = map_pages(MAPPED * PAGE, PROT_READ | PROT_WRITE);
        pages[0] += 1;
        sum = mix(sum, pages[0]);
        check(munmap((void *)pages, MAPPED * PAGE) == 0, "munmap");
    }
    return sum;
}

WORKLOAD(fault, "fault", nothing_to_prepare, touch_fresh_pages);
WORKLOAD(mmap, "mmap", nothing_to_prepare, map_and_unmap);
