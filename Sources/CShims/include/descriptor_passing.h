// Packets with at most one descriptor beside them (SCM_RIGHTS). The control message macros are beyond Swift.
#ifndef LB_DESCRIPTOR_PASSING_H
#define LB_DESCRIPTOR_PASSING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// What came beside a packet.
enum lb_passed {
    LB_PASSED_NOTHING = 0,
    LB_PASSED_DESCRIPTOR = 1,
    // More than one came, or the kernel could not install what came; none is open here.
    LB_PASSED_LOST = 2,
};

// Sends one packet without waiting, with a descriptor beside it if `descriptor` is not negative; the sender
// keeps its own. Returns what sendmsg returns.
ssize_t lb_send_packet(int socket, const uint8_t *bytes, size_t count, int descriptor);

// Receives one packet without waiting. `*descriptor` is close-on-exec, or -1 unless `*passed` is
// LB_PASSED_DESCRIPTOR. Extra flags, such as MSG_PEEK (which installs a descriptor of its own), in `flags`.
// Returns what recvmsg returns.
ssize_t lb_receive_packet(
    int socket, uint8_t *bytes, size_t capacity, int flags, int *descriptor, enum lb_passed *passed);

#endif
