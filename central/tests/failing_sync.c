/* Has each sync of a file named central.db fail while the file named by FAILING_SYNC_WHILE is there. Preloaded into central by a test. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    const char *name = "/central.db";
    const char *trigger = getenv("FAILING_SYNC_WHILE");
    char link[64], path[4096];
    if (!trigger || access(trigger, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < (ssize_t)strlen(name)) return 0;
    path[length] = 0;
    return strcmp(path + length - strlen(name), name) == 0;
}

int fsync(int fd) {
    if (fails(fd)) return errno = EIO, -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    if (fails(fd)) return errno = EIO, -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
