// Handshakes that a listening port has begun and not finished: they are in no queue yet, and no socket option tells.
#ifndef LB_HANDSHAKE_COUNT_H
#define LB_HANDSHAKE_COUNT_H

#include <stdint.h>

// Whether any TCP handshake towards a local port is under way (SYN received, SYN-ACK sent), as sock_diag(7) says.
// `family` is the listener's, the port in host order. Waits for nothing. Returns 1 or 0, or -1 with errno.
int lb_has_open_handshakes(int family, uint16_t port);

#endif
