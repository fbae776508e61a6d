#define _GNU_SOURCE
#include "include/process_care.h"
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t lb_peek_ended_child(void) {
    siginfo_t info;
    info.si_pid = 0;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0) return 0;
    return info.si_pid;
}

int lb_is_subreaper(void) {
    int is_subreaper = 0;
    return prctl(PR_GET_CHILD_SUBREAPER, &is_subreaper, 0, 0, 0) == 0 && is_subreaper != 0;
}

int lb_set_user(uid_t user) { return setresuid(user, user, user); }

int lb_set_group(gid_t group) { return setresgid(group, group, group); }
