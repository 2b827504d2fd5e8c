// An LZ77 compressor with a hash table of the last positions, and its decompressor.
#include "bench.h"

#include <string.h>

enum {
    LENGTH = 1 << 16,
    HASH_BITS = 12,
    SHORTEST = 4,
    LONGEST = SHORTEST + 255,
    FARTHEST = 0xffff,
    // At worst each byte is a literal with its tag.
    ROOM = 2 * LENGTH,
};

static uint8_t text[LENGTH], packed[ROOM], unpacked[LENGTH];

// Words of a small vocabulary, so that there is something to find.
static void prepare(void) {
    static const char *const words[] = {"crane ", "marsh ", "dance ", "wing", "feather ", "in the ",
                                        "reeds, ", "north ", "of ", "a ", "call", "ing ", "1957. "};
    uint32_t state = 3;
    for (size_t at = 0; at < LENGTH;) {
        const char *word = words[next_random(&state) % (sizeof words / sizeof words[0])];
        for (; *word && at < LENGTH; word++)
            text[at++] = *word;
    }
}

static uint32_t load(const uint8_t *from) {
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static size_t match_length(const uint8_t *left, const uint8_t *right, const uint8_t *end) {
    size_t length = 0;
    while (right + length < end && length < LONGEST && left[length] == right[length])
        length++;
    return length;
}

// A literal is 0 and a byte; a match is 1, its length and its distance.
static __attribute__((noinline)) size_t compress(void) {
    uint32_t last[1 << HASH_BITS] = {0};
    uint8_t *out = packed;
    for (size_t at = 0; at < LENGTH;) {
        size_t length = 0, distance = 0;
        if (at + SHORTEST <= LENGTH) {
            uint32_t hash = load(text + at) * 2654435761u >> (32 - HASH_BITS);
            distance = at - last[hash];
            last[hash] = at;
            if (distance > 0 && distance <= FARTHEST)
                length = match_length(text + at - distance, text + at, text + LENGTH);
        }
        if (length >= SHORTEST) {
            *out++ = 1;
            *out++ = length - SHORTEST;
            *out++ = distance;
            *out++ = distance >> 8;
            at += length;
        } else {
            *out++ = 0;
            *out++ = text[at++];
        }
    }
    return out - packed;
}

static __attribute__((noinline)) void decompress(size_t size) {
    uint8_t *out = unpacked;
    for (const uint8_t *in = packed; in < packed + size;) {
        if (*in++ == 0) {
            *out++ = *in++;
            continue;
        }
        size_t length = *in++ + SHORTEST;
        const uint8_t *from = out - (in[0] | in[1] << 8);
        in += 2;
        while (length--)
            *out++ = *from++;
    }
}

static uint64_t run(uint64_t count) {
    uint64_t sum = 0;
    while (count--) {
        size_t size = compress();
        decompress(size);
        sum = mix(sum, size);
        sum = mix(sum, memcmp(text, unpacked, LENGTH) == 0);
    }
    return sum;
}

WORKLOAD(lz, "lz", prepare, run);
