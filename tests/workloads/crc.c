// CRC-32 (ISO 3309) by a table of bytes: each load depends on the one before.
#include "bench.h"

enum { LENGTH = 1 << 16 };

static uint32_t table[256];
static uint8_t data[LENGTH];

static void prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
        table[byte] = crc;
    }
    uint32_t state = 1;
    for (size_t i = 0; i < LENGTH; i++)
        data[i] = next_random(&state);
}

static uint64_t run(uint64_t count) {
    uint32_t crc = ~0u;
    while (count--)
        for (size_t i = 0; i < LENGTH; i++)
            crc = crc >> 8 ^ table[(crc ^ data[i]) & 0xff];
    return ~crc;
}

WORKLOAD(crc, "crc", prepare, run);
