/*
 * What lies between a daemon and its files, loaded into it by LD_PRELOAD: it ends the process at a chosen point, and keeps an undo journal
 * of what a power cut would take away.
 *
 * Promises: each change to a file or a directory below CRASH_ROOT is in the journal before it happens, with what was there before; a
 * successful fsync or fdatasync is in the journal before the caller sees it. A change that the layer can't journal (a shared writable
 * mapping, a vectored write, buffered output of the C library) ends the process by SIGABRT with a line on standard error, so that nothing
 * escapes in silence. Files whose names end in -shm are no business of its: they need not survive.
 *
 * The environment:
 *   CRASH_ROOT     the directory whose files are watched, without links in its path
 *   CRASH_JOURNAL  a directory elsewhere on the same file system: the journal, and in saved/ what was unlinked or written over by a rename
 *   CRASH_POINT    "OP PHASE NTH PATH", may be missing: die by SIGKILL at the NTH call of OP (create mkdir write sync rename unlink truncate
 *                  answer) on a path that has PATH in it ("*": any, "X$": at its end); PHASE is before, after, or half (of a write)
 *   CRASH_ANSWERS  counting for CRASH_POINT begins once so many answers of the next server have been received
 *   CRASH_SWALLOW  "any PATH", "file PATH" or "directory PATH": syncs of such paths are not noted, as if they had never been called
 *   CRASH_FAULT    a path: while there is a file, every sync fails by EIO, as on a disk that fails
 *
 * An `answer` is a piece of a socket's input that has MARKER in it: the next server has taken a message, and nobody but us knows yet.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MARKER "250 2.0.0 Ok: " /* behind the final dot, or the last BDAT */
#define DESCRIPTORS 65536

enum phase { NEVER, BEFORE, HALF, AFTER };

/* One record of the journal; behind it come `first` octets (a path, or what was in the file) and `second` octets (another path). */
struct record {
    uint32_t magic;
    uint32_t op;
    uint64_t inode;  /* the file's; for entries their directory's */
    int64_t offset;  /* of a write; the new size of a truncation; how far into the journal a sync reaches; microseconds of a death */
    int64_t size;    /* the file's before */
    uint64_t length; /* of a write */
    uint32_t first;
    uint32_t second;
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], saved[PATH_MAX];
static size_t root_length;
static int journal = -1;
static uint64_t position;
static char *watched[DESCRIPTORS];

static char point_op[16], point_path[PATH_MAX];
static enum phase point_phase;
static long point_nth, answers_first;
static char swallow_kind, swallow_path[PATH_MAX], fault[PATH_MAX];

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL)
        abort();
    return found;
}

static ssize_t raw_write(int fd, const void *buffer, size_t count)
{
    static ssize_t (*function)(int, const void *, size_t);
    if (function == NULL)
        function = REAL(write);
    return function(fd, buffer, count);
}

static void refuse(const char *what, const char *path)
{
    char line[PATH_MAX + 100];
    int length = snprintf(line, sizeof line, "crash shim: %s on %s can't be journalled\n", what, path);
    raw_write(2, line, (size_t)length);
    abort();
}

__attribute__((constructor)) static void begin(void)
{
    const char *where = getenv("CRASH_JOURNAL"), *point = getenv("CRASH_POINT"), *answers = getenv("CRASH_ANSWERS");
    const char *swallow = getenv("CRASH_SWALLOW"), *top = getenv("CRASH_ROOT"), *failing = getenv("CRASH_FAULT");
    char path[PATH_MAX], kind[16], phase[16];
    struct stat status;

    if (top == NULL || where == NULL)
        return;
    snprintf(path, sizeof path, "%s/journal", where);
    journal = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0 || fstat(journal, &status) < 0)
        refuse("opening", path);
    position = (uint64_t)status.st_size;
    snprintf(saved, sizeof saved, "%s/saved", where);
    if (point != NULL) {
        if (sscanf(point, "%15s %15s %ld %4095s", point_op, phase, &point_nth, point_path) != 4)
            refuse("CRASH_POINT", point);
        point_phase = phase[0] == 'b' ? BEFORE : phase[0] == 'h' ? HALF : AFTER;
    }
    answers_first = answers != NULL ? atol(answers) : 0;
    if (swallow != NULL && sscanf(swallow, "%15s %4095s", kind, swallow_path) == 2)
        swallow_kind = kind[0];
    if (failing != NULL)
        snprintf(fault, sizeof fault, "%s", failing);
    snprintf(root, sizeof root, "%s/", top);
    root_length = strlen(root);
}

/* -- the journal */

static void note(uint32_t op, uint64_t inode, int64_t offset, int64_t size, uint64_t length, const void *first, size_t first_length,
                 const char *second)
{
    struct record head = {0x43524153, op, inode, offset, size, length, (uint32_t)first_length, second ? (uint32_t)strlen(second) : 0};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)first, first_length}, {(void *)second, head.second}};
    size_t whole = sizeof head + head.first + head.second;
    static ssize_t (*function)(int, const struct iovec *, int);

    if (function == NULL)
        function = REAL(writev);
    if (function(journal, parts, 3) != (ssize_t)whole)
        refuse("journalling", root);
    position += whole;
}

/* An entry of a directory: C made, U unlinked, R renamed (`path` is the new name, `other` the old one). */
static void note_entry(uint32_t op, const char *path, const char *other, int64_t keeps)
{
    char parent[PATH_MAX];
    struct stat status;

    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = '\0';
    if (stat(parent, &status) == 0)
        note(op, status.st_ino, keeps, 0, 0, path, strlen(path), other);
}

/* Keep what `path` names now under a name that the journal's position gives; returns if there was something. */
static int64_t keep(const char *path)
{
    char name[PATH_MAX + 32];
    snprintf(name, sizeof name, "%s/%llu", saved, (unsigned long long)position);
    return REAL(linkat)(AT_FDCWD, path, AT_FDCWD, name, 0) == 0;
}

static void die(const char *path)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    note('K', 0, (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000, 0, 0, path, strlen(path), point_op);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Whether the pattern is in the path: "*" is in all, and one that ends in "$" at the end only. */
static int matches(const char *pattern, const char *path)
{
    size_t length = strlen(pattern), whole = strlen(path);
    if (strcmp(pattern, "*") == 0)
        return 1;
    if (length == 0 || pattern[length - 1] != '$')
        return strstr(path, pattern) != NULL;
    return whole >= length - 1 && strncmp(path + whole - (length - 1), pattern, length - 1) == 0;
}

/* Whether this call is the chosen one; BEFORE is seen to here. */
static enum phase reached(const char *op, const char *path)
{
    if (point_nth <= 0 || answers_first > 0 || strcmp(op, point_op) != 0)
        return NEVER;
    if (!matches(point_path, path))
        return NEVER;
    if (--point_nth > 0)
        return NEVER;
    if (point_phase == BEFORE)
        die(path);
    return point_phase;
}

/* The absolute form of a path, if it is one that is watched. */
static int place(int directory, const char *path, char *out)
{
    char base[PATH_MAX], link[64];
    size_t length;

    if (root_length == 0 || path == NULL)
        return 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        ssize_t count;
        snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", directory);
        count = readlink(link, base, sizeof base - 1);
        if (count < 0)
            return 0;
        base[count] = '\0';
        if ((size_t)snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX)
            return 0;
    }
    length = strlen(out);
    if (length >= 4 && strcmp(out + length - 4, "-shm") == 0)
        return 0;
    /* The directory itself too: its entries have to be synced like all others. */
    return strncmp(out, root, root_length) == 0 || (length == root_length - 1 && strncmp(out, root, length) == 0);
}

static const char *watched_path(int fd)
{
    return fd >= 0 && fd < DESCRIPTORS ? watched[fd] : NULL;
}

/* -- descriptors */

/* Note what is in the file from `from` on, `count` octets at the most, under a record of `op`. */
static void note_content(uint32_t op, int fd, int64_t offset, int64_t from, int64_t count, uint64_t length)
{
    struct stat status;
    char link[64], *old = NULL;
    int64_t there = 0;

    fstat(fd, &status);
    there = status.st_size - from;
    there = there < 0 ? 0 : there > count ? count : there;
    if (there > 0) {
        /* The descriptor itself may be for writing only. */
        int reader;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        reader = REAL(open)(link, O_RDONLY | O_CLOEXEC);
        old = malloc((size_t)there);
        if (reader < 0 || old == NULL || pread(reader, old, (size_t)there, from) != there)
            refuse("reading back", link);
        REAL(close)(reader);
    }
    note(op, status.st_ino, offset, status.st_size, length, old, (size_t)there, NULL);
    free(old);
}

static int opening(int directory, const char *path, int flags, mode_t mode)
{
    char where[PATH_MAX];
    struct stat status;
    enum phase phase = NEVER;
    int fd, fresh, error;

    if (!place(directory, path, where))
        return REAL(openat)(directory, path, flags, mode);
    pthread_mutex_lock(&turn);
    fresh = (flags & O_CREAT) && lstat(where, &status) < 0;
    if (fresh) {
        phase = reached("create", where);
        note_entry('C', where, NULL, 0);
    } else if ((flags & O_TRUNC) && stat(where, &status) == 0 && status.st_size > 0) {
        int old = REAL(open)(where, O_RDONLY | O_CLOEXEC);
        phase = reached("truncate", where);
        note_content('T', old, 0, 0, INT64_MAX, 0);
        REAL(close)(old);
    }
    fd = REAL(openat)(directory, path, flags, mode);
    error = errno;
    if (fd >= 0 && fd < DESCRIPTORS) {
        free(watched[fd]);
        watched[fd] = strdup(where);
    }
    if (phase != NEVER)
        die(where);
    pthread_mutex_unlock(&turn);
    errno = error;
    return fd;
}

static mode_t mode_of(int flags, va_list list)
{
    return (flags & O_CREAT) ? (mode_t)va_arg(list, int) : 0;
}

#define OPEN(name)                                          \
    int name(const char *path, int flags, ...)              \
    {                                                       \
        va_list list;                                       \
        va_start(list, flags);                              \
        mode_t mode = mode_of(flags, list);                 \
        va_end(list);                                       \
        return opening(AT_FDCWD, path, flags, mode);        \
    }
#define OPENAT(name)                                        \
    int name(int directory, const char *path, int flags, ...) \
    {                                                       \
        va_list list;                                       \
        va_start(list, flags);                              \
        mode_t mode = mode_of(flags, list);                 \
        va_end(list);                                       \
        return opening(directory, path, flags, mode);       \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int close(int fd)
{
    static int (*function)(int);
    if (function == NULL)
        function = REAL(close);
    if (watched_path(fd) != NULL) {
        pthread_mutex_lock(&turn);
        free(watched[fd]);
        watched[fd] = NULL;
        pthread_mutex_unlock(&turn);
    }
    return function(fd);
}

FILE *fopen64(const char *path, const char *mode)
{
    char where[PATH_MAX];
    if (strpbrk(mode, "wa+") != NULL && place(AT_FDCWD, path, where))
        refuse("buffered output", where);
    return REAL(fopen64)(path, mode);
}

/* -- what files hold */

static ssize_t writing(int fd, const void *buffer, size_t count, int64_t offset)
{
    enum phase phase;
    ssize_t done;
    int error;
    int64_t at = offset;
    struct stat status;

    pthread_mutex_lock(&turn);
    phase = reached("write", watched[fd]);
    if (at < 0) {
        fstat(fd, &status);
        at = (fcntl(fd, F_GETFL) & O_APPEND) ? status.st_size : lseek(fd, 0, SEEK_CUR);
    }
    note_content('W', fd, at, at, (int64_t)count, count);
    if (phase == HALF)
        count = (count + 1) / 2;
    done = offset < 0 ? raw_write(fd, buffer, count) : REAL(pwrite)(fd, buffer, count, offset);
    error = errno;
    if (phase != NEVER)
        die(watched[fd]);
    pthread_mutex_unlock(&turn);
    errno = error;
    return done;
}

ssize_t write(int fd, const void *buffer, size_t count)
{
    return watched_path(fd) == NULL ? raw_write(fd, buffer, count) : writing(fd, buffer, count, -1);
}

ssize_t pwrite(int fd, const void *buffer, size_t count, off_t offset)
{
    return watched_path(fd) == NULL ? REAL(pwrite)(fd, buffer, count, offset) : writing(fd, buffer, count, offset);
}

ssize_t pwrite64(int fd, const void *buffer, size_t count, off_t offset)
{
    return pwrite(fd, buffer, count, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (watched_path(fd) != NULL)
        refuse("writev", watched[fd]);
    return REAL(writev)(fd, parts, count);
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    if (watched_path(fd) != NULL)
        refuse("pwritev2", watched[fd]);
    return REAL(pwritev64v2)(fd, parts, count, offset, flags);
}

int posix_fallocate64(int fd, off_t offset, off_t length)
{
    int result;

    if (watched_path(fd) == NULL)
        return REAL(posix_fallocate64)(fd, offset, length);
    pthread_mutex_lock(&turn);
    /* It changes no octet that is there, but may make the file longer: a write of nothing. */
    note_content('W', fd, offset, offset, 0, 0);
    result = REAL(posix_fallocate64)(fd, offset, length);
    pthread_mutex_unlock(&turn);
    return result;
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && watched_path(fd) != NULL)
        refuse("a shared writable mapping", watched[fd]);
    return REAL(mmap64)(address, length, protection, flags, fd, offset);
}

int ftruncate64(int fd, off_t size)
{
    enum phase phase;
    int result, error;

    if (watched_path(fd) == NULL)
        return REAL(ftruncate64)(fd, size);
    pthread_mutex_lock(&turn);
    phase = reached("truncate", watched[fd]);
    note_content('T', fd, size, size, INT64_MAX, 0);
    result = REAL(ftruncate64)(fd, size);
    error = errno;
    if (phase != NEVER)
        die(watched[fd]);
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

/* -- syncs */

static int syncing(int fd, int (*function)(int))
{
    enum phase phase;
    struct stat status;
    uint64_t reach;
    int result, error;

    if (watched_path(fd) == NULL)
        return function(fd);
    if (fault[0] && access(fault, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_lock(&turn);
    phase = reached("sync", watched[fd]);
    /* What is written from now on is not covered. */
    reach = position;
    fstat(fd, &status);
    pthread_mutex_unlock(&turn);
    result = function(fd);
    error = errno;
    pthread_mutex_lock(&turn);
    if (result == 0) {
        int directory = S_ISDIR(status.st_mode);
        int chosen = swallow_kind == 'a' || (directory ? swallow_kind == 'd' : swallow_kind == 'f');
        if (!chosen || !matches(swallow_path, watched[fd]))
            note('S', status.st_ino, (int64_t)reach, 0, 0, watched[fd], strlen(watched[fd]), NULL);
    }
    if (phase != NEVER)
        die(watched[fd]);
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

int fsync(int fd)
{
    return syncing(fd, REAL(fsync));
}

int fdatasync(int fd)
{
    return syncing(fd, REAL(fdatasync));
}

/* -- entries of directories */

int unlinkat(int directory, const char *path, int flags)
{
    char where[PATH_MAX];
    struct stat status;
    enum phase phase;
    int result, error;

    if (!place(directory, path, where) || lstat(where, &status) < 0)
        return REAL(unlinkat)(directory, path, flags);
    if (flags & AT_REMOVEDIR)
        refuse("rmdir", where);
    pthread_mutex_lock(&turn);
    phase = reached("unlink", where);
    note_entry('U', where, NULL, keep(where));
    result = REAL(unlinkat)(directory, path, flags);
    error = errno;
    if (phase != NEVER)
        die(where);
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int renameat(int from, const char *old, int to, const char *new)
{
    char source[PATH_MAX], target[PATH_MAX];
    int here, there, result, error;
    enum phase phase;

    here = place(from, old, source);
    there = place(to, new, target);
    if (!here && !there)
        return REAL(renameat)(from, old, to, new);
    if (!here || !there)
        refuse("a rename over the border", here ? source : target);
    pthread_mutex_lock(&turn);
    phase = reached("rename", target);
    note_entry('R', target, source, keep(target));
    result = REAL(renameat)(from, old, to, new);
    error = errno;
    if (phase != NEVER)
        die(target);
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

int rename(const char *old, const char *new)
{
    return renameat(AT_FDCWD, old, AT_FDCWD, new);
}

int mkdirat(int directory, const char *path, mode_t mode)
{
    char where[PATH_MAX];
    struct stat status;
    enum phase phase;
    int result, error;

    if (!place(directory, path, where) || lstat(where, &status) == 0)
        return REAL(mkdirat)(directory, path, mode);
    pthread_mutex_lock(&turn);
    phase = reached("mkdir", where);
    note_entry('C', where, NULL, 0);
    result = REAL(mkdirat)(directory, path, mode);
    error = errno;
    if (phase != NEVER)
        die(where);
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    char where[PATH_MAX];
    if (place(to, new, where))
        refuse("a hard link", where);
    return REAL(linkat)(from, old, to, new, flags);
}

int link(const char *old, const char *new)
{
    return linkat(AT_FDCWD, old, AT_FDCWD, new, 0);
}

/* -- what the next server says */

ssize_t recv(int fd, void *buffer, size_t count, int flags)
{
    static ssize_t (*function)(int, void *, size_t, int);
    ssize_t got;

    if (function == NULL)
        function = REAL(recv);
    got = function(fd, buffer, count, flags);
    if (got > 0 && (answers_first > 0 || point_nth > 0) && memmem(buffer, (size_t)got, MARKER, sizeof MARKER - 1) != NULL) {
        pthread_mutex_lock(&turn);
        if (answers_first > 0)
            answers_first--;
        else if (reached("answer", "") != NEVER)
            die("");
        pthread_mutex_unlock(&turn);
    }
    return got;
}
