/*
 * A client for TLS handshakes: connection after connection, one request on each, several at a time.
 *
 *   connect ─► handshake ─► GET ─► answer ─► close    then the next, until all are done
 *
 * h2load and openssl s_time either never resume a session or never say whether the server let them. Here every
 * connection counts as resumed only when the server has accepted the session that it offered. With "resumed" the
 * first connection runs alone, to get a ticket, and each later one offers the newest ticket that has come; with
 * "full" none is ever offered.
 *
 * Version, cipher, group and signature are the same for every server. Certificates are not verified against a CA.
 * A connection that fails is counted and the run goes on. Only perf/bench runs it.
 *
 * usage: handshakes PORT PARALLEL CONNECTIONS full|resumed 1.2|1.3
 * prints "answered=N failed=N resumed=N seconds=S cipher=NAME version=NAME"; why the first one failed on stderr
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 16 * 1024, EVENTS_MAX = 64, WAIT_MS_MAX = 10000 };

enum step { SHAKING, ASKING, READING };

struct slot {
    SSL *ssl;
    enum step step;
    size_t received_bytes;
    char buffer[BUFFER_BYTES + 1];
};

static SSL_CTX *context;
static SSL_SESSION *newest_session;
static bool is_resuming;
static int port, epoll_fd;
static uint64_t wanted, started, answered, failed, resumed;
static char request[128], cipher[64] = "none", version[16] = "none";

static void die(const char *what) {
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static uint64_t ended(void) {
    return answered + failed;
}

/* OpenSSL hands over each ticket; returning 1 keeps the reference. */
static int keep_session(SSL *ssl, SSL_SESSION *session) {
    (void)ssl;
    SSL_SESSION_free(newest_session);
    newest_session = session;
    return 1;
}

static int connected_socket(void) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((in_port_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) die("fcntl");
    return fd;
}

/* OpenSSL lets a TLS 1.3 session be offered once. Servers accept it again, so each connection gets a copy. */
static void offer_session(SSL *ssl) {
    SSL_SESSION *copy = SSL_SESSION_dup(newest_session);
    if (copy == NULL || SSL_set_session(ssl, copy) != 1) die("SSL_set_session");
    SSL_SESSION_free(copy);
}

static void open_next(struct slot *slot) {
    int fd = connected_socket();
    *slot = (struct slot){.ssl = SSL_new(context), .step = SHAKING};
    if (slot->ssl == NULL || SSL_set_fd(slot->ssl, fd) != 1) die("SSL_new");
    if (is_resuming && newest_session != NULL) offer_session(slot->ssl);
    SSL_set_connect_state(slot->ssl);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = slot};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    started++;
}

/* Without the close_notify OpenSSL would take the session for spoilt and not offer it again. */
static void close_slot(struct slot *slot) {
    int fd = SSL_get_fd(slot->ssl);
    if (slot->step != SHAKING) SSL_shutdown(slot->ssl);
    SSL_free(slot->ssl);
    ERR_clear_error();
    close(fd);
    slot->ssl = NULL;
}

static bool is_whole_answer(struct slot *slot) {
    slot->buffer[slot->received_bytes] = '\0';
    const char *head_end = strstr(slot->buffer, "\r\n\r\n");
    const char *length = strcasestr(slot->buffer, "\r\ncontent-length:");
    if (strncmp(slot->buffer, "HTTP/1.1 200", 12) != 0 || head_end == NULL || length == NULL) return false;
    return slot->received_bytes == (size_t)(head_end - slot->buffer) + 4 + strtoul(length + 17, NULL, 10);
}

static void finish(struct slot *slot, const char *failure) {
    if (failure == NULL) {
        answered++;
    } else if (failed++ == 0) {
        fprintf(stderr, "a connection failed: %s\n", failure);
        ERR_print_errors_fp(stderr);
    }
    close_slot(slot);
    if (started < wanted) open_next(slot);
}

static void note_handshake(struct slot *slot) {
    resumed += SSL_session_reused(slot->ssl) == 1;
    snprintf(cipher, sizeof cipher, "%s", SSL_get_cipher_name(slot->ssl));
    snprintf(version, sizeof version, "%s", SSL_get_version(slot->ssl));
    slot->step = ASKING;
}

/* The call of the present step. Like those of OpenSSL it returns above 0 when it got on. */
static int take_step(struct slot *slot) {
    if (slot->step == SHAKING) return SSL_do_handshake(slot->ssl);
    if (slot->step == ASKING) return SSL_write(slot->ssl, request, (int)strlen(request));
    size_t room = BUFFER_BYTES - slot->received_bytes;
    return SSL_read(slot->ssl, slot->buffer + slot->received_bytes, (int)room);
}

static void advance(struct slot *slot) {
    while (true) {
        ERR_clear_error();
        int result = take_step(slot);
        if (result <= 0) {
            int reason = SSL_get_error(slot->ssl, result);
            if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return;
            bool is_end = slot->step == READING && reason == SSL_ERROR_ZERO_RETURN;
            finish(slot, is_end && is_whole_answer(slot) ? NULL : is_end ? "the answer" : "TLS or the connection");
            return;
        }
        if (slot->step == SHAKING) note_handshake(slot);
        else if (slot->step == ASKING) slot->step = READING;
        else slot->received_bytes += (size_t)result;
    }
}

static void drive_until_ended(uint64_t count) {
    struct epoll_event events[EVENTS_MAX];
    while (ended() < count) {
        int ready = epoll_wait(epoll_fd, events, EVENTS_MAX, WAIT_MS_MAX);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        if (ready == 0) {
            fprintf(stderr, "no answer within %d ms\n", WAIT_MS_MAX);
            failed = wanted - answered;
        }
        for (int index = 0; index < ready; index++) advance(events[index].data.ptr);
    }
}

static void run(struct slot *slots, uint64_t parallel) {
    open_next(&slots[0]);
    if (is_resuming) drive_until_ended(1);
    for (uint64_t index = 1; index < parallel && started < wanted; index++) open_next(&slots[index]);
    drive_until_ended(wanted);
}

static void set_up(bool is_tls13) {
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL) die("SSL_CTX_new");
    /* All servers take X25519. P-256 is for the certificate, which TLS 1.2 else forbids them to use. */
    int only = is_tls13 ? TLS1_3_VERSION : TLS1_2_VERSION;
    SSL_CTX_set_min_proto_version(context, only);
    SSL_CTX_set_max_proto_version(context, only);
    if (SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") != 1
        || SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256") != 1
        || SSL_CTX_set1_groups_list(context, "X25519:P-256") != 1)
        die("ciphers");
    /* Some servers close without a close_notify; whether the answer is whole is told by its length. */
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
}

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void usage(void) {
    fprintf(stderr, "usage: handshakes PORT PARALLEL CONNECTIONS full|resumed 1.2|1.3\n");
    exit(2);
}

int main(int argc, char **argv) {
    if (argc != 6) usage();
    port = atoi(argv[1]);
    uint64_t parallel = strtoull(argv[2], NULL, 10);
    wanted = strtoull(argv[3], NULL, 10);
    is_resuming = strcmp(argv[4], "resumed") == 0;
    if (port <= 0 || port > 65535 || parallel == 0 || wanted == 0) usage();
    snprintf(request, sizeof request,
             "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: handshakes\r\nConnection: close\r\n\r\n", port);
    set_up(strcmp(argv[5], "1.3") == 0);
    struct slot *slots = calloc(parallel, sizeof *slots);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (slots == NULL || epoll_fd < 0) die("epoll_create1");
    double start = now_seconds();
    run(slots, parallel);
    printf("answered=%lu failed=%lu resumed=%lu seconds=%.3f cipher=%s version=%s\n", answered, failed, resumed,
           now_seconds() - start, cipher, version);
}
