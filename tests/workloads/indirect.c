// Calls through a table of functions in an order that data decides.
#include "bench.h"

enum { FUNCTIONS = 16, ORDER = 1 << 12 };

#define FUNCTION(n)                                                              \
    static __attribute__((noinline)) uint32_t function##n(uint32_t x) {          \
        return (x << n | x >> (32 - n)) + n * 0x9e3779b9u;                       \
    }
#define ALL(M) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15) M(16)
ALL(FUNCTION)

#define NAME(n) function##n,
static uint32_t (*const functions[FUNCTIONS])(uint32_t) = {ALL(NAME)};

static uint8_t order[ORDER];

static void prepare(void) {
    uint32_t state = 5;
    for (size_t i = 0; i < ORDER; i++)
        order[i] = next_random(&state) % FUNCTIONS;
}

static uint64_t run(uint64_t count) {
    uint32_t x = 1;
    while (count--)
        for (size_t i = 0; i < ORDER; i++)
            x = functions[order[i]](x);
    return x;
}

WORKLOAD(indirect, "indirect", prepare, run);
