/*
 * A client for latency: requests leave evenly at a fixed rate, one by one, over a ring of keep-alive connections.
 *
 *   time ──┬──────┬──────┬──────┬──►   one request an interval
 *   conn   0      1      2      0      connections take turns
 *
 * h2load --rps lets all its connections send at the same moment, so it measures the queue it makes; here the
 * proxy sees the steady arrival that its answer time is asked for. A latency counts from the moment the request was
 * due, not from when it could be sent: an answer so late that it holds up its connection's next request is thus
 * charged for that too ("coordinated omission").
 *
 * Answers must have a Content-Length. A connection that fails ends the run; what was not answered counts as failed.
 * Only perf/bench runs it.
 *
 * usage: pace PORT CONNECTIONS REQUESTS_PER_SECOND REQUESTS
 * prints "answered=N failed=N seconds=S p50=N p99=N p999=N", latencies in nanoseconds (nearest rank)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 64 * 1024, EVENTS_MAX = 64 };

static const uint64_t SECOND_NS = 1000000000;
/* How long the last answers may take before they are given up. */
static const uint64_t GRACE_NS = 5000000000;

struct connection {
    int fd;
    bool is_waiting; /* for the answer to its last request; the next is sent no earlier */
    uint64_t sent, due; /* requests of this connection that were sent, and that should have been by now */
    size_t received_bytes;
    char buffer[BUFFER_BYTES + 1];
};

static struct connection *connections;
static uint64_t connection_count, request_count, interval_ns, start_ns;
static uint64_t *latencies_ns, answered, bad_status;
static char request[128];
static char timer_fd_mark; /* its address stands for the timer among the events */

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* When request number `turn` of the connection is due; requests go round the connections in order. */
static uint64_t due_ns(const struct connection *connection, uint64_t turn) {
    uint64_t index = turn * connection_count + (uint64_t)(connection - connections);
    return start_ns + index * interval_ns;
}

static void send_one(struct connection *connection) {
    size_t length = strlen(request);
    if (send(connection->fd, request, length, MSG_NOSIGNAL) != (ssize_t)length) fail("send");
    connection->sent++;
    connection->is_waiting = true;
}

/* Returns the bytes of the answer at the start of the buffer, or 0 while it is incomplete. */
static size_t complete_answer_bytes(struct connection *connection) {
    connection->buffer[connection->received_bytes] = '\0';
    const char *head_end = strstr(connection->buffer, "\r\n\r\n");
    if (head_end == NULL) return 0;
    const char *length = strcasestr(connection->buffer, "\r\ncontent-length:");
    if (length == NULL || length > head_end) {
        fprintf(stderr, "an answer without Content-Length\n");
        exit(1);
    }
    size_t total = (size_t)(head_end - connection->buffer) + 4 + strtoul(length + 17, NULL, 10);
    return connection->received_bytes >= total ? total : 0;
}

/* Records the answer to the request that is out, and sends the next one if its moment has passed meanwhile. */
static void finish_answer(struct connection *connection) {
    if (strncmp(connection->buffer, "HTTP/1.1 200", 12) != 0) bad_status++;
    latencies_ns[answered++] = now_ns() - due_ns(connection, connection->sent - 1);
    connection->received_bytes = 0;
    connection->is_waiting = false;
    if (connection->sent < connection->due) send_one(connection);
}

static void handle_readable(struct connection *connection) {
    size_t room = BUFFER_BYTES - connection->received_bytes;
    ssize_t received = recv(connection->fd, connection->buffer + connection->received_bytes, room, MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (received <= 0) {
        fprintf(stderr, "the proxy closed a connection\n");
        exit(1);
    }
    connection->received_bytes += (size_t)received;
    if (complete_answer_bytes(connection) == connection->received_bytes) finish_answer(connection);
}

static void send_due(uint64_t *due_count, uint64_t expirations) {
    for (; expirations > 0 && *due_count < request_count; expirations--) {
        struct connection *connection = &connections[(*due_count)++ % connection_count];
        connection->due++;
        if (!connection->is_waiting) send_one(connection);
    }
}

static void watch(int epoll_fd, int fd, void *owner) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

static void open_connections(int epoll_fd, int port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((in_port_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    for (uint64_t index = 0; index < connection_count; index++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        connections[index].fd = fd;
        watch(epoll_fd, fd, &connections[index]);
    }
}

/* The timer's expirations are the requests' moments: its first is that of request 0. */
static int start_timer(void) {
    start_ns = now_ns() + SECOND_NS / 10;
    struct itimerspec times = {
        .it_value = {(time_t)(start_ns / SECOND_NS), (long)(start_ns % SECOND_NS)},
        .it_interval = {(time_t)(interval_ns / SECOND_NS), (long)(interval_ns % SECOND_NS)},
    };
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd < 0 || timerfd_settime(fd, TFD_TIMER_ABSTIME, &times, NULL) < 0) fail("timerfd");
    return fd;
}

static void run(int epoll_fd, int timer_fd) {
    uint64_t due_count = 0, end_ns = start_ns + request_count * interval_ns + GRACE_NS;
    struct epoll_event events[EVENTS_MAX];
    while (answered < request_count && now_ns() < end_ns) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, 100);
        for (int index = 0; index < count; index++) {
            uint64_t expirations;
            if (events[index].data.ptr != &timer_fd_mark) handle_readable(events[index].data.ptr);
            else if (read(timer_fd, &expirations, sizeof expirations) > 0) send_due(&due_count, expirations);
        }
    }
}

static int compare(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static uint64_t quantile_ns(uint64_t per_mille) {
    uint64_t rank = (answered * per_mille + 999) / 1000;
    return answered == 0 ? 0 : latencies_ns[rank - 1];
}

static void print_result(void) {
    double seconds = (double)(now_ns() - start_ns) / (double)SECOND_NS;
    qsort(latencies_ns, answered, sizeof *latencies_ns, compare);
    printf("answered=%lu failed=%lu seconds=%.3f p50=%lu p99=%lu p999=%lu\n", answered,
           request_count - answered + bad_status, seconds, quantile_ns(500), quantile_ns(990), quantile_ns(999));
}

int main(int argc, char **argv) {
    int port = argc == 5 ? atoi(argv[1]) : 0;
    uint64_t rate = argc == 5 ? strtoull(argv[3], NULL, 10) : 0;
    if (port <= 0 || port > 65535 || rate == 0) {
        fprintf(stderr, "usage: pace PORT CONNECTIONS REQUESTS_PER_SECOND REQUESTS\n");
        return 2;
    }
    connection_count = strtoull(argv[2], NULL, 10);
    request_count = strtoull(argv[4], NULL, 10);
    interval_ns = SECOND_NS / rate;
    snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: pace\r\n\r\n", port);
    connections = calloc(connection_count, sizeof *connections);
    latencies_ns = calloc(request_count, sizeof *latencies_ns);
    if (connections == NULL || latencies_ns == NULL || connection_count == 0) fail("calloc");
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    open_connections(epoll_fd, port);
    int timer_fd = start_timer();
    watch(epoll_fd, timer_fd, &timer_fd_mark);
    run(epoll_fd, timer_fd);
    print_result();
}
