// The GNU and Linux extensions live here and not in the header: _GNU_SOURCE would give Swift's view of the
// C library's structures a second, different definition.
#define _GNU_SOURCE
#include "include/platform.h"
#include <linux/filter.h>
#include <sched.h>
#include <spawn.h>

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

int lb_drop_new_connections(int fd) {
    // The filter sees the TCP header; byte 13 holds the flags: SYN is 0x02, ACK is 0x10.
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

int lb_keep_new_connections(int fd) {
    int unused = 0;
    return setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
}

static int redirect(posix_spawn_file_actions_t *actions, int output) {
    int error = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (error == 0) error = posix_spawn_file_actions_adddup2(actions, output, STDOUT_FILENO);
    if (error == 0) error = posix_spawn_file_actions_adddup2(actions, output, STDERR_FILENO);
    return error;
}

static int clear_signals(posix_spawnattr_t *attributes) {
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawnattr_setsigmask(attributes, &none);
    if (error == 0) error = posix_spawnattr_setsigdefault(attributes, &all);
    if (error == 0) error = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return error;
}

pid_t lb_start_program(const char *path, char *const *arguments, int output) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    if ((errno = posix_spawn_file_actions_init(&actions)) != 0) return -1;
    if ((errno = posix_spawnattr_init(&attributes)) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return -1;
    }
    pid_t pid = -1;
    int error = redirect(&actions, output);
    if (error == 0) error = clear_signals(&attributes);
    if (error == 0) error = posix_spawn(&pid, path, &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    errno = error;
    return error == 0 ? pid : -1;
}

void lb_become_program(const char *path, char *const *arguments) { execve(path, arguments, environ); }

int lb_keep_at_exec(int fd, int keep) {
    int flags = fcntl(fd, F_GETFD);
    if (flags < 0) return -1;
    return fcntl(fd, F_SETFD, keep ? flags & ~FD_CLOEXEC : flags | FD_CLOEXEC);
}
