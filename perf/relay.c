/*
 * The floor relay: the least work that a user-space TCP proxy can do.
 *
 *   client ──recv──► relay ──send──► backend
 *   client ◄──send── relay ◄──recv── backend
 *
 * It parses nothing, so a request costs four data system calls and its share of one epoll_wait. What a proxy
 * spends beyond this is the price of understanding HTTP; perf/bench reports every proxy as a multiple of it.
 *
 * Invariants
 * - A pair is one client connection and the one backend connection opened for it; they live and die together.
 * - Events are edge-triggered and each descriptor is registered once: level-triggering would make the kernel look
 *   at every ready descriptor a second time. A read shorter than the buffer means the socket is drained (epoll(7),
 *   question 9), unless the event says that the peer has closed, in which case the end of file is still to be read.
 * - A direction whose receiver is full keeps the unsent bytes in `unsent` and reads no more until they are gone.
 * - Memory of a pair is freed after the batch of events in which it closed, since a later event of that batch may
 *   name it.
 *
 * Only perf/bench runs it. It has no time-outs, no half-close and no second backend; it is no proxy to deploy.
 *
 * usage: relay PORT BACKEND_PORT [WORKERS]    both ports on 127.0.0.1
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 64 * 1024, EVENTS_MAX = 256, BACKLOG = 4096 };

struct pair;

struct side {
    int fd;
    struct side *other;
    struct pair *pair;
    char *unsent; /* bytes read from the other side that this one has not taken yet */
    size_t unsent_bytes;
    size_t unsent_offset;
};

struct pair {
    struct side client;
    struct side backend;
    bool closed;
    struct pair *next_closed;
};

static char buffer[BUFFER_BYTES];
static struct pair *closed_pairs;
static struct sockaddr_in backend_address;
static int epoll_fd;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void close_pair(struct pair *pair) {
    if (pair->closed) return;
    pair->closed = true;
    close(pair->client.fd);
    close(pair->backend.fd);
    pair->next_closed = closed_pairs;
    closed_pairs = pair;
}

static void free_closed_pairs(void) {
    while (closed_pairs != NULL) {
        struct pair *pair = closed_pairs;
        closed_pairs = pair->next_closed;
        free(pair->client.unsent);
        free(pair->backend.unsent);
        free(pair);
    }
}

/* Returns how many bytes the socket took, or -1 when the connection is lost. */
static ssize_t send_some(int fd, const char *bytes, size_t count) {
    ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);
    if (sent >= 0) return sent;
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static void keep_unsent(struct side *to, const char *bytes, size_t count) {
    if (to->unsent == NULL && (to->unsent = malloc(BUFFER_BYTES)) == NULL) fail("malloc");
    memcpy(to->unsent, bytes, count);
    to->unsent_bytes = count;
    to->unsent_offset = 0;
}

/* Moves what can be read from one side to the other. The pair may be closed afterwards. */
static void pump(struct side *from, bool expect_end) {
    struct side *to = from->other;
    while (to->unsent_bytes == 0) {
        ssize_t received = recv(from->fd, buffer, sizeof buffer, 0);
        if (received < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (received <= 0) return close_pair(from->pair);
        ssize_t sent = send_some(to->fd, buffer, (size_t)received);
        if (sent < 0) return close_pair(from->pair);
        if (sent < received) return keep_unsent(to, buffer + sent, (size_t)(received - sent));
        if (received < BUFFER_BYTES && !expect_end) return;
    }
}

/* Sends what is left for a side that can take bytes again, then resumes reading for it. */
static void flush(struct side *to) {
    ssize_t sent = send_some(to->fd, to->unsent + to->unsent_offset, to->unsent_bytes);
    if (sent < 0) return close_pair(to->pair);
    to->unsent_offset += (size_t)sent;
    to->unsent_bytes -= (size_t)sent;
    /* An end of file may have been announced while the direction stood still, so read until there is no more. */
    if (to->unsent_bytes == 0) pump(to->other, true);
}

static void handle(struct side *side, uint32_t events) {
    if (side->pair->closed) return;
    if ((events & EPOLLOUT) && side->unsent_bytes > 0) flush(side);
    if (side->pair->closed || !(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
    pump(side, events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
}

static void watch(struct side *side) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = side};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, side->fd, &event) < 0) fail("epoll_ctl");
}

static void disable_nagle(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* On loopback a blocking connect completes at once, which spares a connecting state. */
static int connect_backend(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&backend_address, sizeof backend_address) < 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        close(fd);
        return -1;
    }
    disable_nagle(fd);
    return fd;
}

static void open_pair(int client_fd) {
    int backend_fd = connect_backend();
    if (backend_fd < 0) {
        perror("connect to the backend");
        close(client_fd);
        return;
    }
    disable_nagle(client_fd);
    struct pair *pair = calloc(1, sizeof *pair);
    if (pair == NULL) fail("calloc");
    pair->client = (struct side){.fd = client_fd, .other = &pair->backend, .pair = pair};
    pair->backend = (struct side){.fd = backend_fd, .other = &pair->client, .pair = pair};
    watch(&pair->client);
    watch(&pair->backend);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) open_pair(fd);
        else if (errno != EINTR && errno != ECONNABORTED) return;
    }
}

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((in_port_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket");
    int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0) fail("SO_REUSEPORT");
    struct sockaddr_in address = loopback(port);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
    if (listen(fd, BACKLOG) < 0) fail("listen");
    return fd;
}

/* Each worker has a listener of its own; the kernel spreads the connections (SO_REUSEPORT). */
static int become_worker(int port, int workers) {
    int listener = listen_on(port);
    for (int index = 1; index < workers; index++) {
        int own_listener = listen_on(port);
        pid_t pid = fork();
        if (pid < 0) fail("fork");
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(listener);
            return own_listener;
        }
        close(own_listener);
    }
    return listener;
}

static void run(int listener) {
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) fail("epoll_create1");
    struct epoll_event accepting = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &accepting) < 0) fail("epoll_ctl");
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        for (int index = 0; index < count; index++) {
            if (events[index].data.ptr == NULL) accept_all(listener);
            else handle(events[index].data.ptr, events[index].events);
        }
        free_closed_pairs();
    }
}

int main(int argc, char **argv) {
    int port = argc > 2 ? atoi(argv[1]) : 0;
    int backend_port = argc > 2 ? atoi(argv[2]) : 0;
    int workers = argc > 3 ? atoi(argv[3]) : 1;
    if (port <= 0 || port > 65535 || backend_port <= 0 || backend_port > 65535 || workers <= 0) {
        fprintf(stderr, "usage: relay PORT BACKEND_PORT [WORKERS]\n");
        return 2;
    }
    backend_address = loopback(backend_port);
    run(become_worker(port, workers));
}
