#include "tcp_totals.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

int lb_tcp_totals(int socket, uint64_t *sent, uint64_t *received) {
    struct tcp_info info;
    socklen_t length = sizeof info;
    if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return -1;
    if (length < offsetof(struct tcp_info, tcpi_bytes_retrans) + sizeof info.tcpi_bytes_retrans) return -1;
    *sent = info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
    *received = info.tcpi_bytes_received;
    return 0;
}
