// `bench ROW COUNT` runs one row between two marks on the terminal, `<` and `>`: the host
// takes the time of their arrival. `bench` alone lists the rows.
#define _GNU_SOURCE
#include "bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

extern const struct workload *const __start_workloads[];
extern const struct workload *const __stop_workloads[];

void check(int holds, const char *what) {
    if (!holds) {
        perror(what);
        exit(1);
    }
}

void *map_pages(size_t size, int protection) {
    void *memory = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "mmap");
    // Kernels without huge pages refuse, and have done what was asked.
    madvise(memory, size, MADV_NOHUGEPAGE);
    return memory;
}

static int64_t nanoseconds(void) {
    struct timespec now;
    check(clock_gettime(CLOCK_MONOTONIC, &now) == 0, "clock_gettime");
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

// What this process and its children have used of the processor.
static int64_t processor_nanoseconds(void) {
    int64_t microseconds = 0;
    const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    for (int i = 0; i < 2; i++) {
        struct rusage usage;
        check(getrusage(whose[i], &usage) == 0, "getrusage");
        const struct timeval user = usage.ru_utime, system = usage.ru_stime;
        microseconds += (user.tv_sec + system.tv_sec) * INT64_C(1000000);
        microseconds += user.tv_usec + system.tv_usec;
    }
    return microseconds * 1000;
}

static void write_all(const char *text) {
    size_t length = strlen(text);
    check(write(STDOUT_FILENO, text, length) == (ssize_t)length, "write");
}

static void measure(const struct workload *workload, uint64_t count) {
    char text[160];
    workload->prepare();
    snprintf(text, sizeof text, "BENCH %s begin\n", workload->name);
    write_all(text);
    // The first mark finds an idle serial line, so that it takes as long as the second.
    tcdrain(STDOUT_FILENO);
    usleep(20000);
    write_all("<");
    int64_t start = nanoseconds(), processor_start = processor_nanoseconds();
    uint64_t sum = workload->run(count);
    int64_t end = nanoseconds(), processor_end = processor_nanoseconds();
    snprintf(text, sizeof text,
             "> BENCH %s end sum=%016" PRIx64 " ns=%" PRId64 " cpu=%" PRId64 "\n",
             workload->name, sum, end - start, processor_end - processor_start);
    write_all(text);
}

int main(int argc, char **argv) {
    const struct workload *const *entry = __start_workloads;
    if (argc == 1) {
        for (; entry < __stop_workloads; entry++)
            puts((*entry)->name);
        return 0;
    }
    // What the row `exec` starts.
    if (argc == 2 && strcmp(argv[1], "exit") == 0)
        return 42;
    if (argc == 4 && strcmp(argv[1], "stage") == 0)
        return compiler_stage(argv[2], argv[3]);
    for (; argc == 3 && entry < __stop_workloads; entry++) {
        if (strcmp((*entry)->name, argv[1]) == 0) {
            measure(*entry, strtoull(argv[2], NULL, 10));
            return 0;
        }
    }
    fputs("usage: bench ROW COUNT\n", stderr);
    return 2;
}
