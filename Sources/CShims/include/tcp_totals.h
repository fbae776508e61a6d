// What a TCP connection has carried. Its structure's newer fields are in the kernel's header, which does not go
// together with the C library's.
#ifndef LB_TCP_TOTALS_H
#define LB_TCP_TOTALS_H

#include <stdint.h>

// Bytes of this connection, everything above TCP included and nothing counted twice. Returns 0, or -1 for a socket
// that is not TCP or a kernel that does not count (before Linux 4.19).
int lb_tcp_totals(int socket, uint64_t *sent, uint64_t *received);

#endif
