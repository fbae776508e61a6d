// The GNU and Linux extensions live here and not in the header: _GNU_SOURCE would give Swift's view of the
// C library's structures a second, different definition.
#define _GNU_SOURCE
#include "include/platform.h"
#include <sched.h>

int lb_accept4(int fd, struct sockaddr *address, socklen_t *length) {
    return accept4(fd, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

int lb_memfd_create(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

int lb_make_pipe(int *ends) { return pipe2(ends, O_NONBLOCK | O_CLOEXEC); }

int lb_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int lb_reap(int pidfd, int *exit_status, int *signal_number) {
    siginfo_t info;
    info.si_pid = 0;
    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) != 0) return -1;
    if (info.si_pid == 0) return 0;
    const int exited = info.si_code == CLD_EXITED;
    *exit_status = exited ? info.si_status : 0;
    *signal_number = exited ? 0 : info.si_status;
    return 1;
}

int lb_close_range(unsigned first, unsigned last) { return (int)syscall(SYS_close_range, first, last, 0); }

int lb_pin_to_cpu(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set);
}

int lb_available_cpus(int *cpus, int capacity) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return -1;
    int count = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &set)) continue;
        if (count < capacity) cpus[count] = cpu;
        count++;
    }
    return count;
}
