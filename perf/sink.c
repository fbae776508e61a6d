/*
 * A collector that costs next to nothing: it takes OTLP/HTTP posts and throws them away, so that a benchmark of the
 * sender is not a benchmark of the receiver.
 *
 *   HEAD ──length──► SIZED_BODY ──┐
 *    ▲ └──chunked──► CHUNKED_BODY ┤ answer 200, empty body, keep-alive
 *    └────────────────────────────┘
 *
 * POST to any path that starts with /v1/traces is counted and answered with 200; anything else gets 404. A request
 * that it cannot read ends its connection. On SIGTERM it prints "requests=N bytes=N matches=N" and exits.
 *
 * With a NEEDLE it also counts how often that string stands in the bodies: a span name occurs once a tree, so
 * this tells how many trees arrived without a decoder. Without one, bodies of known length are dropped by the kernel
 * (MSG_TRUNC, tcp(7)) and are not even copied.
 *
 * Only perf/bench runs it. It knows no pipelining (an OTLP sender awaits each answer), no time-outs and no TLS.
 *
 * usage: sink [NEEDLE]    listens on a free port of 127.0.0.1 and prints "port=N"
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD_BYTES_MAX = 8192, READ_BYTES_MAX = 256 * 1024, NEEDLE_BYTES_MAX = 64, EVENTS_MAX = 64 };

enum state { HEAD, SIZED_BODY, CHUNKED_BODY };

/* Where a chunked body stands (RFC 9112 §7.1). */
enum chunk_state { SIZE, EXTENSION, DATA, DATA_END, TRAILER_START, TRAILER_LINE };

struct connection {
    int fd;
    enum state state;
    enum chunk_state chunk_state;
    uint64_t remaining_bytes; /* of the body, or of the present chunk */
    size_t head_bytes;
    char head[HEAD_BYTES_MAX + 1];
    size_t tail_bytes;
    char tail[NEEDLE_BYTES_MAX]; /* the body's last bytes, for a needle cut in two by a read */
};

static uint64_t requests, body_bytes, matches;
static const char *needle = "";
static size_t needle_bytes;
static char buffer[READ_BYTES_MAX];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t count_matches(const char *bytes, size_t count) {
    uint64_t found = 0;
    const char *end = bytes + count;
    while ((bytes = memmem(bytes, (size_t)(end - bytes), needle, needle_bytes)) != NULL) {
        found++;
        bytes += needle_bytes;
    }
    return found;
}

/* The joint holds fewer bytes of either part than the needle has, so a match in it spans both and is counted once. */
static void scan(struct connection *connection, const char *bytes, size_t count) {
    if (needle_bytes == 0) return;
    size_t keep = needle_bytes - 1, ahead = count < keep ? count : keep;
    char joint[2 * NEEDLE_BYTES_MAX];
    memcpy(joint, connection->tail, connection->tail_bytes);
    memcpy(joint + connection->tail_bytes, bytes, ahead);
    size_t joint_bytes = connection->tail_bytes + ahead;
    matches += count_matches(joint, joint_bytes) + count_matches(bytes, count);
    const char *source = count >= keep ? bytes : joint;
    size_t available = count >= keep ? count : joint_bytes;
    connection->tail_bytes = available < keep ? available : keep;
    memcpy(connection->tail, source + available - connection->tail_bytes, connection->tail_bytes);
}

static void consume(struct connection *connection, const char *bytes, size_t count) {
    body_bytes += count;
    connection->remaining_bytes -= count;
    scan(connection, bytes, count);
}

/* A few bytes on a connection whose peer waits for them always fit in the socket's buffer. */
static bool answer(int fd, const char *text) {
    return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

static bool finish_request(struct connection *connection) {
    requests++;
    connection->state = HEAD;
    connection->head_bytes = 0;
    connection->tail_bytes = 0;
    return answer(connection->fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

static int hex_digit(char character) {
    if (character >= '0' && character <= '9') return character - '0';
    character |= 0x20;
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

/* Takes one byte outside chunk data. Returns false for what is not chunked coding. */
static bool take_chunk_framing(struct connection *connection, char byte, bool *finished) {
    switch (connection->chunk_state) {
    case SIZE:
        if (hex_digit(byte) >= 0) {
            if (connection->remaining_bytes >> 56) return false;
            connection->remaining_bytes = connection->remaining_bytes * 16 + (uint64_t)hex_digit(byte);
            return true;
        }
        connection->chunk_state = EXTENSION;
        /* fall through */
    case EXTENSION:
        if (byte == '\n') connection->chunk_state = connection->remaining_bytes == 0 ? TRAILER_START : DATA;
        return true;
    case DATA_END:
        if (byte == '\n') connection->chunk_state = SIZE;
        return byte == '\r' || byte == '\n';
    case TRAILER_START:
        *finished = byte == '\n';
        if (byte != '\n' && byte != '\r') connection->chunk_state = TRAILER_LINE;
        return true;
    case TRAILER_LINE:
        if (byte == '\n') connection->chunk_state = TRAILER_START;
        return true;
    case DATA:
        break;
    }
    return false;
}

static bool take_chunked(struct connection *connection, const char *bytes, size_t count) {
    for (size_t index = 0; index < count;) {
        if (connection->chunk_state == DATA) {
            size_t part = count - index;
            if (part > connection->remaining_bytes) part = connection->remaining_bytes;
            consume(connection, bytes + index, part);
            index += part;
            if (connection->remaining_bytes == 0) connection->chunk_state = DATA_END;
            continue;
        }
        bool finished = false;
        if (!take_chunk_framing(connection, bytes[index++], &finished)) return false;
        if (finished) return index == count && finish_request(connection);
    }
    return true;
}

static bool take_sized(struct connection *connection, const char *bytes, size_t count) {
    if (count > connection->remaining_bytes) return false;
    consume(connection, bytes, count);
    return connection->remaining_bytes > 0 || finish_request(connection);
}

static const char *field_value(const char *head, const char *name) {
    const char *field = strcasestr(head, name);
    return field == NULL ? NULL : field + strlen(name) + strspn(field + strlen(name), " \t");
}

/* Reads a complete head, then whatever of the body came with it. */
static bool take_head(struct connection *connection, size_t length) {
    char first_of_body = connection->head[length];
    connection->head[length] = '\0';
    if (strncmp(connection->head, "POST /v1/traces", 15) != 0) {
        answer(connection->fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return false;
    }
    const char *expectation = field_value(connection->head, "\r\nexpect:");
    if (expectation != NULL && strncasecmp(expectation, "100-continue", 12) == 0 &&
        !answer(connection->fd, "HTTP/1.1 100 Continue\r\n\r\n"))
        return false;
    const char *coding = field_value(connection->head, "\r\ntransfer-encoding:");
    const char *size = field_value(connection->head, "\r\ncontent-length:");
    bool chunked = coding != NULL && strncasecmp(coding, "chunked", 7) == 0;
    connection->state = chunked ? CHUNKED_BODY : SIZED_BODY;
    connection->chunk_state = SIZE;
    connection->remaining_bytes = chunked || size == NULL ? 0 : strtoull(size, NULL, 10);
    connection->head[length] = first_of_body;
    size_t rest = connection->head_bytes - length;
    return chunked ? take_chunked(connection, connection->head + length, rest)
                   : take_sized(connection, connection->head + length, rest);
}

static ssize_t read_head(struct connection *connection, bool *valid) {
    size_t room = HEAD_BYTES_MAX - connection->head_bytes;
    ssize_t received = recv(connection->fd, connection->head + connection->head_bytes, room, 0);
    if (received <= 0) return received;
    connection->head_bytes += (size_t)received;
    connection->head[connection->head_bytes] = '\0';
    const char *end = strstr(connection->head, "\r\n\r\n");
    if (end != NULL) *valid = take_head(connection, (size_t)(end - connection->head) + 4);
    else *valid = connection->head_bytes < HEAD_BYTES_MAX;
    return received;
}

static ssize_t read_sized(struct connection *connection, bool *valid) {
    size_t wanted = sizeof buffer < connection->remaining_bytes ? sizeof buffer : connection->remaining_bytes;
    ssize_t received = recv(connection->fd, buffer, wanted, needle_bytes == 0 ? MSG_TRUNC : 0);
    if (received > 0) *valid = take_sized(connection, buffer, (size_t)received);
    return received;
}

static ssize_t read_chunked(struct connection *connection, bool *valid) {
    ssize_t received = recv(connection->fd, buffer, sizeof buffer, 0);
    if (received > 0) *valid = take_chunked(connection, buffer, (size_t)received);
    return received;
}

static ssize_t read_some(struct connection *connection, bool *valid) {
    switch (connection->state) {
    case HEAD: return read_head(connection, valid);
    case SIZED_BODY: return read_sized(connection, valid);
    case CHUNKED_BODY: return read_chunked(connection, valid);
    }
    return 0;
}

static void handle(struct connection *connection) {
    bool valid = true;
    ssize_t received = read_some(connection, &valid);
    if (received < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (received > 0 && valid) return;
    close(connection->fd);
    free(connection);
}

static void watch(int epoll_fd, int fd, void *owner) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

static void accept_one(int epoll_fd, int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL) fail("calloc");
    connection->fd = fd;
    watch(epoll_fd, fd, connection);
}

static int listen_on_free_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0) fail("bind");
    if (listen(fd, 128) < 0) fail("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0) fail("getsockname");
    printf("port=%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static int termination_signals(void) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (fd < 0) fail("signalfd");
    return fd;
}

int main(int argc, char **argv) {
    if (argc > 2 || (argc == 2 && strlen(argv[1]) > NEEDLE_BYTES_MAX)) {
        fprintf(stderr, "usage: sink [NEEDLE of at most %d bytes]\n", NEEDLE_BYTES_MAX);
        return 2;
    }
    needle = argc == 2 ? argv[1] : "";
    needle_bytes = strlen(needle);
    int stop_fd = termination_signals();
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on_free_port();
    watch(epoll_fd, listener, &listener);
    watch(epoll_fd, stop_fd, &stop_fd);
    for (bool stopped = false; !stopped;) {
        struct epoll_event events[EVENTS_MAX];
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        for (int index = 0; index < count; index++) {
            void *owner = events[index].data.ptr;
            if (owner == &listener) accept_one(epoll_fd, listener);
            else if (owner == &stop_fd) stopped = true;
            else handle(owner);
        }
    }
    printf("requests=%lu bytes=%lu matches=%lu\n", requests, body_bytes, matches);
}
