// The kernel's processes: system calls, fork, exec, and switches between two processes.
#define _GNU_SOURCE
#include "bench.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t call_system(uint64_t count) {
    uint64_t same = 0;
    long id = getpid();
    while (count--)
        same += syscall(SYS_getpid) == id;
    return same;
}

static int exit_status(pid_t child) {
    int status;
    check(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status), "fork and wait");
    return WEXITSTATUS(status);
}

static uint64_t fork_and_wait(uint64_t count) {
    uint64_t sum = 0;
    while (count--) {
        pid_t child = fork();
        if (child == 0)
            _exit(count & 0x3f);
        sum = mix(sum, exit_status(child));
    }
    return sum;
}

static uint64_t fork_and_exec(uint64_t count) {
    uint64_t sum = 0;
    while (count--) {
        pid_t child = fork();
        if (child == 0) {
            execl("/proc/self/exe", "bench", "exit", NULL);
            _exit(1);
        }
        sum = mix(sum, exit_status(child));
    }
    return sum;
}

// One processor for both sides: each message is then a switch.
static void pin_to_one_processor(void) {
    cpu_set_t set;
    check(sched_getaffinity(0, sizeof set, &set) == 0, "sched_getaffinity");
    int cpu = 0;
    while (!CPU_ISSET(cpu, &set))
        cpu++;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    check(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

static uint64_t switch_by_pipe(uint64_t count) {
    int there[2], back[2];
    uint8_t byte;
    check(pipe(there) == 0 && pipe(back) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1) {
            byte = byte * 5 + 1;
            check(write(back[1], &byte, 1) == 1, "write");
        }
        _exit(0);
    }
    uint64_t sum = 0;
    for (byte = 0; count--; sum = mix(sum, byte)) {
        check(write(there[1], &byte, 1) == 1, "write");
        check(read(back[0], &byte, 1) == 1, "read");
    }
    close(there[1]);
    return mix(sum, exit_status(child));
}

WORKLOAD(syscall, "syscall", nothing_to_prepare, call_system);
WORKLOAD(fork, "fork", nothing_to_prepare, fork_and_wait);
// The same, as often as VMware's paper of 2006 did it.
WORKLOAD(forkwait, "forkwait", nothing_to_prepare, fork_and_wait);
WORKLOAD(exec, "exec", nothing_to_prepare, fork_and_exec);
WORKLOAD(pipe, "pipe", pin_to_one_processor, switch_by_pipe);
