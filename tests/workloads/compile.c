// What a compiler's driver does: many short processes, each started anew and joined by pipes. A
// unit is a writer of source text, a compiler that numbers its names and sorts them, and an
// assembler that makes a checksum of what that one writes.
#define _GNU_SOURCE
#include "bench.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STAGES 3
#define TOKENS 4000
#define NAMES 1024
#define SLOTS 4096
#define DIGITS 16

static const char *const stages[STAGES] = {"write", "compile", "assemble"};

struct name {
    char text[12];
    uint32_t number, uses;
};

static int write_source(uint32_t seed) {
    for (int i = 0; i < TOKENS; i++) {
        uint32_t random = next_random(&seed);
        printf("name_%u%c", random % NAMES, random >> 16 & 7 ? ' ' : '\n');
    }
    return 0;
}

static struct name *find(struct name *table, const char *text) {
    uint64_t hash = 0;
    for (const char *c = text; *c; c++)
        hash = mix(hash, (unsigned char)*c);
    struct name *slot = &table[hash % SLOTS];
    while (slot->text[0] && strcmp(slot->text, text) != 0)
        slot = slot == &table[SLOTS - 1] ? table : slot + 1;
    return slot;
}

static int by_uses(const void *a, const void *b) {
    const struct name *left = a, *right = b;
    if (left->uses != right->uses)
        return left->uses < right->uses ? 1 : -1;
    return left->number < right->number ? -1 : left->number > right->number;
}

static int compile_source(void) {
    struct name *table = calloc(SLOTS, sizeof *table);
    check(table != NULL, "calloc");
    char text[12];
    uint32_t names = 0;
    while (scanf("%11s", text) == 1) {
        struct name *name = find(table, text);
        if (!name->text[0]) {
            strcpy(name->text, text);
            name->number = ++names;
        }
        name->uses++;
        printf("load %u\n", name->number);
    }
    qsort(table, SLOTS, sizeof *table, by_uses);
    for (uint32_t i = 0; i < names; i++)
        printf("%s: %u\n", table[i].text, table[i].uses);
    return 0;
}

static int assemble(void) {
    uint64_t sum = 0;
    for (int c; (c = getchar()) != EOF;)
        sum = mix(sum, isalnum(c) ? c : 0);
    printf("%0*" PRIx64, DIGITS, sum);
    return 0;
}

int compiler_stage(const char *name, const char *seed) {
    if (strcmp(name, stages[0]) == 0)
        return write_source(strtoul(seed, NULL, 10));
    return strcmp(name, stages[1]) == 0 ? compile_source() : assemble();
}

// Starts a stage that reads from one end of a pipe and writes to one of another.
static pid_t start(const char *stage, uint64_t seed, int from, int to) {
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child > 0)
        return child;
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, seed);
    check(dup2(from, STDIN_FILENO) >= 0 && dup2(to, STDOUT_FILENO) >= 0, "dup2");
    execl("/proc/self/exe", "bench", "stage", stage, text, NULL);
    _exit(1);
}

// Only the end of the last pipe stays open, or readers would wait for more for ever.
static uint64_t compile_unit(uint64_t seed) {
    int from = STDIN_FILENO, status;
    for (int i = 0; i < STAGES; i++) {
        int ends[2];
        check(pipe2(ends, O_CLOEXEC) == 0, "pipe2");
        start(stages[i], seed, from, ends[1]);
        close(ends[1]);
        if (i > 0)
            close(from);
        from = ends[0];
    }
    char digits[DIGITS + 1] = "";
    check(read(from, digits, DIGITS) == DIGITS, "read");
    close(from);
    for (int i = 0; i < STAGES; i++)
        check(wait(&status) > 0 && status == 0, "a stage");
    return strtoull(digits, NULL, 16);
}

static uint64_t compile_units(uint64_t count) {
    uint64_t sum = 0;
    while (count--)
        sum = mix(sum, compile_unit(count + 1));
    return sum;
}

WORKLOAD(compile, "compile", nothing_to_prepare, compile_units);
