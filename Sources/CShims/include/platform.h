// Linux interfaces that the Swift overlay hides, declares unavailable (fork), or that are macros.
#ifndef LB_PLATFORM_H
#define LB_PLATFORM_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// fork without exec: legal because the master has exactly one thread for its whole life.
static inline pid_t lb_fork(void) { return fork(); }

// Accepts with SOCK_NONBLOCK and SOCK_CLOEXEC.
int lb_accept4(int fd, struct sockaddr *address, socklen_t *length);

// An anonymous memory file with close-on-exec.
int lb_memfd_create(const char *name);

// A pipe, read end first, non-blocking and close-on-exec. Returns 0 or -1 with errno.
int lb_make_pipe(int *ends);

int lb_pidfd_open(pid_t pid);

// Reaps the child behind a pidfd if it has ended. Returns 1 when it was reaped, 0 while it runs, -1 with errno.
// `signal_number` is 0 when the child exited by itself with `exit_status`.
int lb_reap(int pidfd, int *exit_status, int *signal_number);

// Closes every descriptor in [first, last] (close_range(2), Linux 5.9).
int lb_close_range(unsigned first, unsigned last);

static inline int lb_clock_ns(clockid_t clock, uint64_t *out) {
    struct timespec ts;
    if (clock_gettime(clock, &ts) != 0) return -1;
    *out = (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
    return 0;
}

// epoll_event is packed on x86-64, which Swift imports only as raw bytes; these keep the layout in C.
static inline int lb_epoll_control(int epfd, int operation, int fd, uint32_t events, uint64_t token) {
    struct epoll_event event;
    event.events = events;
    event.data.u64 = token;
    return epoll_ctl(epfd, operation, fd, &event);
}
static inline uint32_t lb_epoll_events_at(const struct epoll_event *events, long index) { return events[index].events; }
static inline uint64_t lb_epoll_token_at(const struct epoll_event *events, long index) { return events[index].data.u64; }

enum {
    LB_EPOLLIN = EPOLLIN,
    LB_EPOLLOUT = EPOLLOUT,
    LB_EPOLLRDHUP = EPOLLRDHUP,
    LB_EPOLLHUP = EPOLLHUP,
    LB_EPOLLERR = EPOLLERR,
};
static const uint32_t lb_epollet = (uint32_t)EPOLLET;

static inline int lb_prctl_set_name(const char *name) { return prctl(PR_SET_NAME, name, 0, 0, 0); }

// Pins the calling process to one CPU. Returns 0 or -1 with errno.
int lb_pin_to_cpu(int cpu);

// Writes the CPUs this process may use into `cpus` (at most `capacity`), returns how many there are or -1.
int lb_available_cpus(int *cpus, int capacity);

// Makes a listening TCP socket drop segments that open a connection (SYN without ACK), and undoes that. Return 0
// or -1 with errno.
int lb_drop_new_connections(int fd);
int lb_keep_new_connections(int fd);

// Starts a program in a process of its own, with this process's environment, no signal blocked or ignored, and
// standard output and error going to `output`. Every descriptor that is not close-on-exec is inherited. Returns the
// pid or -1 with errno.
pid_t lb_start_program(const char *path, char *const *arguments, int output);

// Becomes another program, with this process's environment; returns only on failure.
void lb_become_program(const char *path, char *const *arguments);

// Marks a descriptor as kept by, or closed at, execve. Returns 0 or -1 with errno.
int lb_keep_at_exec(int fd, int keep);

// Replaces what ps shows for this process (argv area and comm). The argument is copied and cut to fit.
void lb_set_process_title(const char *title, const char *short_name);

#endif
