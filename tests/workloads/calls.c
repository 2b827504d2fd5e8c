// Recursion: calls, returns and the stack.
#include "bench.h"

#define PLAIN __attribute__((noipa))

static PLAIN uint32_t fibonacci(uint32_t n) {
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static PLAIN uint32_t ackermann(uint32_t m, uint32_t n) {
    if (m == 0)
        return n + 1;
    return ackermann(m - 1, n == 0 ? 1 : ackermann(m, n - 1));
}

static uint64_t run(uint64_t count) {
    uint64_t sum = 0;
    while (count--) {
        sum = mix(sum, fibonacci(18));
        sum = mix(sum, ackermann(2, 40));
    }
    return sum;
}

WORKLOAD(calls, "calls", nothing_to_prepare, run);
