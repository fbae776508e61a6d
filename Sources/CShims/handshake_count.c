#include "include/handshake_count.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// The kernel's number of a state that netinet/tcp.h spells for other purposes.
enum { SYN_RECEIVED = 3 };

static int ask(int netlink, int family, uint16_t port) {
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 wanted;
    } request;
    memset(&request, 0, sizeof request);
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.wanted.sdiag_family = (uint8_t)family;
    request.wanted.sdiag_protocol = IPPROTO_TCP;
    request.wanted.idiag_states = 1u << SYN_RECEIVED;
    request.wanted.id.idiag_sport = htons(port);
    return send(netlink, &request, sizeof request, 0) == (ssize_t)sizeof request ? 0 : -1;
}

// The first message decides: it is a socket, the end of the list, or an error.
static int first_is_socket(int netlink) {
    char answer[16384] __attribute__((aligned(NLMSG_ALIGNTO)));
    const ssize_t count = recv(netlink, answer, sizeof answer, MSG_DONTWAIT);
    if (count < 0) return -1;
    struct nlmsghdr header;
    if ((size_t)count < sizeof header) {
        errno = EBADMSG;
        return -1;
    }
    memcpy(&header, answer, sizeof header);
    if (header.nlmsg_type != NLMSG_ERROR) return header.nlmsg_type == SOCK_DIAG_BY_FAMILY;
    struct nlmsgerr error = {.error = -EBADMSG};
    if ((size_t)count >= sizeof header + sizeof error) memcpy(&error, answer + NLMSG_HDRLEN, sizeof error);
    errno = -error.error;
    return -1;
}

int lb_has_open_handshakes(int family, uint16_t port) {
    const int netlink = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (netlink < 0) return -1;
    const int found = ask(netlink, family, port) == 0 ? first_is_socket(netlink) : -1;
    const int error = errno;
    close(netlink);
    errno = error;
    return found;
}
