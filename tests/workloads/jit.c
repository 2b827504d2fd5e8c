// A program that writes code and runs it, in a loop: the same bytes each time, or others.
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, OPERATIONS = 24, RUNS = 64 };

// The argument and the result are in EAX, in 32- and 64-bit code.
#ifdef __x86_64__
typedef uint32_t function(uint32_t);
static const uint8_t prologue[] = {0x89, 0xf8}; // mov eax, edi
#else
typedef uint32_t __attribute__((regparm(1))) function(uint32_t);
static const uint8_t prologue[] = {0x90}; // nop
#endif

static uint8_t *code;

static void prepare(void) {
    code = map_pages(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
}

static uint8_t *emit(uint8_t *to, uint32_t random) {
    switch (random % 4) {
    case 0: *to++ = 0x05; break;                      // add eax, imm32
    case 1: *to++ = 0x35; break;                      // xor eax, imm32
    case 2: *to++ = 0x69, *to++ = 0xc0, random |= 1; break; // imul eax, eax, imm32
    case 3: *to++ = 0xc1, *to++ = 0xc0, *to++ = random >> 8 & 31; return to; // rol eax, imm8
    }
    memcpy(to, &random, sizeof random);
    return to + sizeof random;
}

static void write_function(uint32_t seed) {
    uint8_t *to = code;
    memcpy(to, prologue, sizeof prologue);
    to += sizeof prologue;
    for (int i = 0; i < OPERATIONS; i++)
        to = emit(to, next_random(&seed));
    *to = 0xc3; // ret
}

static uint64_t write_and_run(uint64_t count, uint32_t seed_step) {
    uint32_t x = 1;
    for (uint32_t i = 0; i < count; i++) {
        write_function(0x1234567 + i * seed_step);
        for (int run = 0; run < RUNS; run++)
            x = ((function *)(uintptr_t)code)(x);
    }
    return x;
}

static uint64_t run_same(uint64_t count) {
    return write_and_run(count, 0);
}

static uint64_t run_changed(uint64_t count) {
    return write_and_run(count, 2);
}

WORKLOAD(same, "jit-same", prepare, run_same);
WORKLOAD(changed, "jit-changed", prepare, run_changed);
