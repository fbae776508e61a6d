#define _GNU_SOURCE
#include "include/descriptor_passing.h"
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

// Room to see that more than one came; the kernel drops what does not fit and says so.
enum { DESCRIPTORS_MAX = 4 };

union control_area {
    struct cmsghdr alignment;
    char bytes[CMSG_SPACE(sizeof(int) * DESCRIPTORS_MAX)];
};

ssize_t lb_send_packet(int socket, const uint8_t *bytes, size_t count, int descriptor) {
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
    union control_area control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (descriptor >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof descriptor);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof descriptor);
        memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    }
    return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// Collects what was installed; returns how many, of which the first DESCRIPTORS_MAX are in `found`.
static int installed(struct msghdr *message, int *found) {
    int count = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        const size_t bytes = header->cmsg_len - CMSG_LEN(0);
        for (size_t at = 0; at + sizeof(int) <= bytes && count < DESCRIPTORS_MAX; at += sizeof(int))
            memcpy(&found[count++], CMSG_DATA(header) + at, sizeof(int));
    }
    return count;
}

ssize_t lb_receive_packet(
    int socket, uint8_t *bytes, size_t capacity, int flags, int *descriptor, enum lb_passed *passed) {
    struct iovec part = {.iov_base = bytes, .iov_len = capacity};
    union control_area control;
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    *descriptor = -1;
    *passed = LB_PASSED_NOTHING;
    const ssize_t count = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | flags);
    if (count < 0) return count;
    int found[DESCRIPTORS_MAX];
    const int number = installed(&message, found);
    if (number == 1 && !(message.msg_flags & MSG_CTRUNC)) {
        *descriptor = found[0];
        *passed = LB_PASSED_DESCRIPTOR;
        return count;
    }
    for (int i = 0; i < number; i++) close(found[i]);
    if (number > 0 || (message.msg_flags & MSG_CTRUNC)) *passed = LB_PASSED_LOST;
    return count;
}
