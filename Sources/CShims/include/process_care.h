// What a process owes to children it did not start.
#ifndef LB_PROCESS_CARE_H
#define LB_PROCESS_CARE_H

#include <grp.h>
#include <pwd.h>
#include <sys/inotify.h>
#include <sys/types.h>

// The pid of some child that has ended and is not reaped yet, which it stays; 0 when there is none.
pid_t lb_peek_ended_child(void);

// Whether orphans among this process's descendants come to it, as PR_SET_CHILD_SUBREAPER makes them.
int lb_is_subreaper(void);

// Sets all three user or group ids. Return 0 or -1 with errno.
int lb_set_user(uid_t user);
int lb_set_group(gid_t group);

#endif
