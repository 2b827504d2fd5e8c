// An interpreter of byte code with registers: one indirect jump for each instruction. Its
// program finds the longest Collatz sequence below a limit.
#include "bench.h"

enum op { SET, ADD, MULTIPLY, HALVE, COPY, JUMP, JUMP_IF_ODD, JUMP_IF_LESS, STOP };

struct instruction {
    uint8_t op, a, b;
    int8_t target;
    uint32_t value;
};

// r0: limit, r1: start, r2: number, r3: length, r4: longest, r5: 1, r6: 2
static const struct instruction program[] = {
    /*  0 */ {SET, .a = 0, .value = 1000},
    /*  1 */ {SET, .a = 1, .value = 1},
    /*  2 */ {SET, .a = 4, .value = 0},
    /*  3 */ {SET, .a = 5, .value = 1},
    /*  4 */ {SET, .a = 6, .value = 2},
    /*  5 */ {COPY, .a = 2, .b = 1},
    /*  6 */ {SET, .a = 3, .value = 0},
    /*  7 */ {JUMP_IF_LESS, .a = 2, .b = 6, .target = 15},
    /*  8 */ {ADD, .a = 3, .b = 5},
    /*  9 */ {JUMP_IF_ODD, .a = 2, .target = 12},
    /* 10 */ {HALVE, .a = 2},
    /* 11 */ {JUMP, .target = 7},
    /* 12 */ {MULTIPLY, .a = 2, .value = 3},
    /* 13 */ {ADD, .a = 2, .b = 5},
    /* 14 */ {JUMP, .target = 7},
    /* 15 */ {JUMP_IF_LESS, .a = 3, .b = 4, .target = 17},
    /* 16 */ {COPY, .a = 4, .b = 3},
    /* 17 */ {ADD, .a = 1, .b = 5},
    /* 18 */ {JUMP_IF_LESS, .a = 1, .b = 0, .target = 5},
    /* 19 */ {STOP, .a = 4},
};

static __attribute__((noipa)) uint32_t interpret(const struct instruction *code) {
    uint32_t registers[8] = {0};
    for (const struct instruction *i = code;;) {
        uint32_t *a = &registers[i->a], b = registers[i->b];
        const struct instruction *next = i + 1, *target = code + i->target;
        switch ((enum op)i->op) {
        case SET: *a = i->value; break;
        case ADD: *a += b; break;
        case MULTIPLY: *a *= i->value; break;
        case HALVE: *a >>= 1; break;
        case COPY: *a = b; break;
        case JUMP: next = target; break;
        case JUMP_IF_ODD: next = *a & 1 ? target : next; break;
        case JUMP_IF_LESS: next = *a < b ? target : next; break;
        case STOP: return *a;
        }
        i = next;
    }
}

static uint64_t run(uint64_t count) {
    uint64_t sum = 0;
    while (count--)
        sum = mix(sum, interpret(program));
    return sum;
}

WORKLOAD(bytecode, "bytecode", nothing_to_prepare, run);
