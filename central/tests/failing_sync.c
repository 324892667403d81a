/* Has each sync of a file named central.db fail while the file named by FAILING_SYNC_WHILE is there. What the file had before the first
   write meanwhile, which is what a disk has that loses what is written, is in the file of that name with .before behind it. Preloaded
   into central by a test. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
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

/* Reads by the descriptor that is there: closing another one of the file would release SQLite's locks. Only one thread writes the file. */
static void keep_what_it_has(int fd) {
    static int is_kept;
    char path[4096], bytes[65536];
    if (is_kept || !fails(fd)) return;
    is_kept = 1;
    snprintf(path, sizeof path, "%s.before", getenv("FAILING_SYNC_WHILE"));
    int before = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    off_t at = 0;
    for (ssize_t length; (length = pread(fd, bytes, sizeof bytes, at)) > 0; at += length)
        if (write(before, bytes, length) != length) abort();
    close(before);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    keep_what_it_has(fd);
    return ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(fd, bytes, length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    keep_what_it_has(fd);
    return ((ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, bytes, length, at);
}

int fsync(int fd) {
    if (fails(fd)) return errno = EIO, -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    if (fails(fd)) return errno = EIO, -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
