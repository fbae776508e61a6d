// ps shows the memory where the kernel put argv. The loader hands argc, argv and envp to constructors,
// so the area is found before Swift's main runs; a title may use argv's own bytes and, because glibc's
// environment is moved away first, those of the environment strings behind them.
#include "include/platform.h"
#include <stdlib.h>

extern char **environ;

static char *title_start;
static size_t title_capacity;

__attribute__((constructor)) static void find_title_area(int argc, char **argv, char **envp) {
    if (argc < 1 || argv == NULL || argv[0] == NULL) return;
    title_start = argv[0];
    char *end = argv[0];
    for (int i = 0; i < argc; i++)
        if (argv[i] == end) end += strlen(argv[i]) + 1;
    for (int i = 0; envp && envp[i]; i++)
        if (envp[i] == end) end += strlen(envp[i]) + 1;
    title_capacity = (size_t)(end - title_start);
}

// Moves the environment strings out of the title area, once. Without memory the title keeps to argv[0].
static void move_environment(void) {
    static int moved;
    if (moved || environ == NULL) return;
    moved = 1;
    for (size_t i = 0; environ[i]; i++) {
        char *copy = strdup(environ[i]);
        if (copy == NULL) {
            title_capacity = strlen(title_start) + 1;
            return;
        }
        environ[i] = copy;
    }
}

void lb_set_process_title(const char *title, const char *short_name) {
    lb_prctl_set_name(short_name);
    if (title_start == NULL || title_capacity < 2) return;
    move_environment();
    size_t length = strlen(title);
    if (length > title_capacity - 1) length = title_capacity - 1;
    memset(title_start, 0, title_capacity);
    memcpy(title_start, title, length);
}
