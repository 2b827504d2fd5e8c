// The sieve of Eratosthenes over bytes: short loops of stores with growing strides.
#include "bench.h"

#include <string.h>

enum { LIMIT = 1 << 18 };

static uint8_t composite[LIMIT];

static uint32_t count_primes(void) {
    uint32_t primes = 0;
    memset(composite, 0, sizeof composite);
    for (uint32_t n = 2; n < LIMIT; n++) {
        if (composite[n])
            continue;
        primes++;
        for (uint32_t multiple = 2 * n; multiple < LIMIT; multiple += n)
            composite[multiple] = 1;
    }
    return primes;
}

static uint64_t run(uint64_t count) {
    uint64_t sum = 0;
    while (count--)
        sum = mix(sum, count_primes());
    return sum;
}

WORKLOAD(sieve, "sieve", nothing_to_prepare, run);
