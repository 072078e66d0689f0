/* What POSIX and Linux say about files, tried on topics: sweep DIRECTORY. Each check makes names of its
 * own below DIRECTORY and removes them; prints what failed and ends with status 1. posix.sh runs it
 * on the mount, as root and as an ordinary user. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int bad;

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        errno = 0;                                                                                 \
        if (!(x)) {                                                                                \
            fprintf(stderr, "sweep: line %d: %s (%s)\n", __LINE__, #x, strerror(errno));           \
            bad++;                                                                                 \
        }                                                                                          \
    } while (0)
/* The call fails, with that errno. */
#define FAILS(code, x)  CHECK((long)(x) == -1 && errno == (code))
#define APPEND(name, f) open(name, O_WRONLY | O_APPEND | O_CREAT | (f), 0644)

static void put(const char *name, const char *text)
{
    int fd = APPEND(name, 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(close(fd) == 0);
}

static bool holds(const char *name, const char *text)
{
    char buf[4096];
    int fd = open(name, O_RDONLY);
    ssize_t n = read(fd, buf, sizeof buf);
    close(fd);
    return n == (ssize_t)strlen(text) && memcmp(buf, text, (size_t)n) == 0;
}

static void open_flags(void)
{
    int fd;
    FAILS(ENOENT, open("o", O_RDONLY));
    FAILS(ENOENT, open("o", O_WRONLY | O_APPEND));
    CHECK((fd = APPEND("o", O_EXCL)) >= 0);
    FAILS(EEXIST, APPEND("o", O_EXCL));
    CHECK(write(fd, "one\n", 4) == 4);
    FAILS(EBADF, read(fd, &fd, 1));
    close(fd);
    CHECK((fd = open("o", O_RDONLY)) >= 0);
    FAILS(EBADF, write(fd, "x", 1));
    close(fd);
    FAILS(EPERM, open("o", O_WRONLY));
    FAILS(EPERM, open("o", O_RDWR));
    FAILS(EPERM, open("o", O_WRONLY | O_TRUNC));
    FAILS(EPERM, open("o", O_WRONLY | O_APPEND | O_TRUNC));
    FAILS(EPERM, open("o", O_RDONLY | O_TRUNC));
    FAILS(ENOTDIR, open("o", O_RDONLY | O_DIRECTORY));
    FAILS(ENOTDIR, open("o/x", O_RDONLY));
    FAILS(EISDIR, open(".", O_WRONLY | O_APPEND));
    FAILS(EOPNOTSUPP, open(".", O_TMPFILE | O_RDWR, 0600));
    CHECK((fd = open("o", O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOATIME)) >=
          0);
    CHECK(write(fd, "two\n", 4) == 4);
    close(fd);
    CHECK((fd = open("o", O_PATH)) >= 0);
    struct stat st;
    CHECK(fstat(fd, &st) == 0 && st.st_size == 8);
    FAILS(EBADF, read(fd, &st, 1));
    close(fd);
    CHECK(holds("o", "one\ntwo\n"));
    /* Taken away and given back: what counts is what stands when it is written. */
    CHECK((fd = APPEND("o", 0)) >= 0);
    CHECK(fcntl(fd, F_SETFL, 0) == 0);
    FAILS(EPERM, pwrite(fd, "x\n", 2, 0));
    FAILS(EPERM, pwrite(fd, "x\n", 2, 8));
    CHECK(fcntl(fd, F_SETFL, O_APPEND) == 0);
    CHECK(write(fd, "three\n", 6) == 6);
    close(fd);
    CHECK(holds("o", "one\ntwo\nthree\n"));
    CHECK(unlink("o") == 0);
}

static void synchronous(void)
{
    const int flags[] = {O_SYNC, O_DSYNC, O_DIRECT};
    for (int i = 0; i < 3; i++) {
        int fd = APPEND("s", flags[i]);
        CHECK(write(fd, "whole\n", 6) == 6);
        CHECK(holds("s", "whole\n"));
        CHECK(write(fd, "part", 4) == 4);
        /* A synchronous write is one that an fsync follows. */
        CHECK(holds("s", flags[i] == O_DIRECT ? "whole\n" : "whole\npart"));
        CHECK(fsync(fd) == 0 && fdatasync(fd) == 0 && syncfs(fd) == 0);
        CHECK(holds("s", "whole\npart"));
        CHECK(close(fd) == 0 && unlink("s") == 0);
    }
    int fd = APPEND("s", 0);
    struct iovec v = {(void *)(uintptr_t) "part", 4};
    CHECK(pwritev2(fd, &v, 1, -1, RWF_DSYNC) == 4);
    CHECK(holds("s", "part"));
    CHECK(close(fd) == 0 && unlink("s") == 0);
}

static void offsets(void)
{
    char buf[100];
    put("f", "0123456789\nabcdefghi\n");
    int fd = open("f", O_RDONLY);
    CHECK(pread(fd, buf, 4, 3) == 4 && memcmp(buf, "3456", 4) == 0);
    CHECK(lseek(fd, 0, SEEK_CUR) == 0);
    CHECK(pread(fd, buf, 100, 15) == 6 && pread(fd, buf, 100, 21) == 0);
    CHECK(pread(fd, buf, 100, 1 << 30) == 0 && pread(fd, buf, 0, 3) == 0);
    FAILS(EINVAL, pread(fd, buf, 1, -1));
    CHECK(lseek(fd, 11, SEEK_SET) == 11 && read(fd, buf, 3) == 3 && memcmp(buf, "abc", 3) == 0);
    CHECK(lseek(fd, -2, SEEK_CUR) == 12 && lseek(fd, -1, SEEK_END) == 20);
    CHECK(read(fd, buf, 9) == 1 && buf[0] == '\n' && read(fd, buf, 9) == 0);
    CHECK(lseek(fd, 500, SEEK_SET) == 500 && read(fd, buf, 9) == 0);
    FAILS(EINVAL, lseek(fd, -1, SEEK_SET));
    FAILS(EINVAL, lseek(fd, -22, SEEK_END));
    CHECK(lseek(fd, 0, SEEK_DATA) == 0 && lseek(fd, 20, SEEK_DATA) == 20);
    CHECK(lseek(fd, 0, SEEK_HOLE) == 21 && lseek(fd, 20, SEEK_HOLE) == 21);
    FAILS(ENXIO, lseek(fd, 21, SEEK_DATA));
    FAILS(ENXIO, lseek(fd, 21, SEEK_HOLE));
    FAILS(ENXIO, lseek(fd, -1, SEEK_DATA));
    /* Another one appends: this one's end moves at once. */
    put("f", "more\n");
    CHECK(lseek(fd, 0, SEEK_END) == 26 && lseek(fd, 0, SEEK_HOLE) == 26);
    struct stat st;
    CHECK(fstat(fd, &st) == 0 && st.st_size == 26 && st.st_blocks > 0 && st.st_nlink == 1);
    CHECK(pread(fd, buf, 100, 21) == 5 && memcmp(buf, "more\n", 5) == 0);
    struct iovec v[3] = {{buf, 2}, {buf + 2, 0}, {buf + 2, 90}};
    CHECK(preadv(fd, v, 3, 9) == 17 && memcmp(buf, "9\nabcdefghi\nmore\n", 17) == 0);
    CHECK(lseek(fd, 0, SEEK_SET) == 0 && readv(fd, v, 3) == 26 && readv(fd, v, 3) == 0);
    close(fd);
    CHECK(unlink("f") == 0);
}

static void vectors(void)
{
    void *nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = APPEND("v", 0);
    struct iovec v[] = {{(void *)(uintptr_t) "one ", 4},
                        {(void *)(uintptr_t) "line\nand ", 9},
                        {NULL, 0},
                        {(void *)(uintptr_t) "another\n", 8}};
    CHECK(writev(fd, v, 4) == 21);
    CHECK(pwritev(fd, v, 2, 0) == 13); /* O_APPEND: the offset says nothing */
    CHECK(holds("v", "one line\nand another\none line\n"));
    CHECK(pwrite(fd, "x\n", 2, 3) == 2);
    CHECK(holds("v", "one line\nand another\none line\nand x\n"));
    CHECK(write(fd, "", 0) == 0 && writev(fd, v, 0) == 0);
    FAILS(EFAULT, write(fd, nowhere, 100));
    CHECK(write(fd, "after\n", 6) == 6);
    CHECK(holds("v", "one line\nand another\none line\nand x\nafter\n"));
    close(fd);
    fd = open("v", O_RDONLY);
    FAILS(EFAULT, read(fd, nowhere, 100));
    char c;
    CHECK(lseek(fd, 0, SEEK_CUR) == 0 && read(fd, &c, 1) == 1 && c == 'o');
    close(fd);
    CHECK(unlink("v") == 0);
}

/* 3 MiB in one call, and back in pieces that fit nothing. */
static void sizes(void)
{
    enum { SIZE = (3 << 20) + 12345 };
    char *data = malloc(SIZE), *back = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(i % 61 == 60 || i == SIZE - 1 ? '\n' : 'a' + i * 7 % 26);
    int fd = open("z", O_RDWR | O_APPEND | O_CREAT, 0644);
    CHECK(write(fd, data, SIZE) == SIZE && lseek(fd, 0, SEEK_SET) == 0);
    size_t got = 0;
    for (size_t n = 1; got < SIZE; n = n * 3 % 400009 + 1) {
        ssize_t r = read(fd, back + got, n < SIZE - got ? n : SIZE - got);
        if (r <= 0)
            break;
        got += (size_t)r;
    }
    CHECK(got == SIZE && memcmp(data, back, SIZE) == 0);
    memset(back, 0, SIZE);
    CHECK(pread(fd, back, SIZE, 0) == SIZE && memcmp(data, back, SIZE) == 0);
    close(fd);
    CHECK(unlink("z") == 0);
    free(data);
    free(back);
}

static void shared_handles(void)
{
    char buf[8];
    int fd = open("h", O_RDWR | O_APPEND | O_CREAT, 0644), twin = dup(fd);
    CHECK(write(fd, "abc", 3) == 3 && write(twin, "def\n", 4) == 4); /* one line: one open file */
    CHECK(close(twin) == 0);
    CHECK(holds("h", "abcdef\n"));
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    pid_t child = fork();
    if (child == 0)
        _exit(read(fd, buf, 3) == 3 && memcmp(buf, "abc", 3) == 0 && write(fd, "xy", 2) == 2 ? 0
                                                                                             : 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(lseek(fd, 0, SEEK_CUR) == 9); /* a write with O_APPEND leaves the offset at the end */
    CHECK(holds("h", "abcdef\n"));
    CHECK(write(fd, "z\n", 2) == 2);
    CHECK(holds("h", "abcdef\nxyz\n"));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY); /* another open file: at its beginning */
    CHECK(again >= 0 && read(again, buf, 3) == 3 && memcmp(buf, "abc", 3) == 0);
    close(again);
    close(fd);
    CHECK(unlink("h") == 0);
}

static void copies(void)
{
    char buf[64];
    int pipes[2], ends[2];
    loff_t at = 4;
    put("c", "one\ntwo\nthree\n");
    int from = open("c", O_RDONLY), to = open("d", O_WRONLY | O_CREAT | O_EXCL, 0644);
    CHECK(copy_file_range(from, &at, to, NULL, 100, 0) == 10 && at == 14);
    CHECK(holds("d", "two\nthree\n"));
    FAILS(EPERM, (lseek(to, 0, SEEK_SET), write(to, "x\n", 2)));
    close(to);
    to = APPEND("d", 0);
    at = 0;
    FAILS(EBADF, copy_file_range(from, &at, to, NULL, 4, 0)); /* Linux: not to O_APPEND */
    FAILS(EINVAL, sendfile(to, from, NULL, 4));
    close(to);
    CHECK(pipe(pipes) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    off_t off = 8;
    CHECK(sendfile(ends[0], from, &off, 100) == 6 && off == 14);
    CHECK(read(ends[1], buf, sizeof buf) == 6 && memcmp(buf, "three\n", 6) == 0);
    CHECK(splice(from, NULL, pipes[1], NULL, 8, 0) == 8);
    CHECK(read(pipes[0], buf, sizeof buf) == 8 && memcmp(buf, "one\ntwo\n", 8) == 0);
    CHECK(write(pipes[1], "piped\n", 6) == 6);
    to = open("e", O_WRONLY | O_CREAT | O_EXCL, 0644);
    CHECK(splice(pipes[0], NULL, to, NULL, 6, 0) == 6);
    CHECK(lseek(from, 0, SEEK_SET) == 0 && sendfile(to, from, NULL, 100) == 14);
    close(to);
    CHECK(holds("e", "piped\none\ntwo\nthree\n"));
    close(from);
    for (int i = 0; i < 2; i++) {
        close(pipes[i]);
        close(ends[i]);
    }
    CHECK(unlink("c") == 0 && unlink("d") == 0 && unlink("e") == 0);
}

static void lengths(void)
{
    put("l", "some\n");
    FAILS(EPERM, truncate("l", 0));
    FAILS(EPERM, truncate("l", 4));
    FAILS(EPERM, truncate("l", 6));
    CHECK(truncate("l", 5) == 0);
    int fd = APPEND("l", 0);
    FAILS(EPERM, ftruncate(fd, 0));
    FAILS(EOPNOTSUPP, fallocate(fd, 0, 0, 100));
    FAILS(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2));
    CHECK(mmap(NULL, 5, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED);
    close(fd);
    fd = open("l", O_RDONLY);
    CHECK(mmap(NULL, 5, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == ENODEV);
    /* A private mapping shows what was there when its page was first touched. */
    const char *map = mmap(NULL, 5, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(map != MAP_FAILED && memcmp(map, "some\n", 5) == 0);
    put("l", "more\n");
    CHECK(map == MAP_FAILED ||
          (memcmp(map, "some\n", 5) == 0 && munmap((void *)(uintptr_t)map, 5) == 0));
    close(fd);
    CHECK(holds("l", "some\nmore\n"));
    CHECK(unlink("l") == 0);
    /* What is empty may be truncated, and filled from 0. */
    CHECK(close(APPEND("l", 0)) == 0);
    CHECK((fd = open("l", O_RDWR | O_TRUNC)) >= 0 && ftruncate(fd, 0) == 0);
    FAILS(EPERM, ftruncate(fd, 1));
    CHECK(write(fd, "filled\n", 7) == 7 && holds("l", "filled\n"));
    FAILS(EPERM, ftruncate(fd, 0));
    CHECK(ftruncate(fd, 7) == 0 && close(fd) == 0);
    FAILS(EPERM, open("l", O_RDWR | O_TRUNC));
    CHECK(holds("l", "filled\n") && unlink("l") == 0);
}

static void locks(void)
{
    int fd = APPEND("k", 0), other = open("k", O_RDWR | O_APPEND);
    CHECK(flock(fd, LOCK_EX) == 0);
    FAILS(EWOULDBLOCK, flock(other, LOCK_EX | LOCK_NB));
    CHECK(flock(fd, LOCK_UN) == 0 && flock(other, LOCK_EX | LOCK_NB) == 0);
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    CHECK(fcntl(fd, F_OFD_SETLK, &l) == 0);
    FAILS(EAGAIN, fcntl(other, F_OFD_SETLK, &l));
    close(fd);
    CHECK(fcntl(other, F_OFD_SETLK, &l) == 0);
    close(other);
    CHECK(unlink("k") == 0);
}

static void names(void)
{
    struct stat a, b;
    put("n", "n\n");
    FAILS(EPERM, link("n", "m"));
    FAILS(EPERM, symlink("n", "m"));
    FAILS(EPERM, mkfifo("m", 0644));
    FAILS(EEXIST, mkdir("n", 0755));
    FAILS(ENOTDIR, rmdir("n"));
    CHECK(mkdir("dir", 0755) == 0);
    FAILS(EISDIR, unlink("dir"));
    FAILS(EISDIR, rename("n", "dir"));
    FAILS(ENOTDIR, rename("dir", "n"));
    FAILS(EINVAL, rename("dir", "dir/below"));
    CHECK(stat("n", &a) == 0 && rename("n", "dir/m") == 0 && stat("dir/m", &b) == 0);
    CHECK(a.st_ino == b.st_ino && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec);
    FAILS(ENOENT, stat("n", &a));
    FAILS(ENOTEMPTY, rmdir("dir"));
    CHECK(rename("dir/m", "dir/m") == 0);
    FAILS(EEXIST, renameat2(AT_FDCWD, "dir/m", AT_FDCWD, "dir/m", RENAME_NOREPLACE));
    FAILS(EINVAL, renameat2(AT_FDCWD, "dir/m", AT_FDCWD, "dir", RENAME_EXCHANGE));
    /* What holds data is not overwritten, by no name either; what holds none is. */
    put("n", "other\n");
    FAILS(EPERM, rename("n", "dir/m"));
    CHECK(holds("n", "other\n") && holds("dir/m", "n\n"));
    CHECK(close(APPEND("dir/new", 0)) == 0);
    int old = open("dir/new", O_RDWR | O_APPEND), mine = open("n", O_RDONLY);
    CHECK(rename("n", "dir/new") == 0 && holds("dir/new", "other\n"));
    /* Who had the one that was replaced open has it still. */
    char buf[16];
    CHECK(fstat(old, &a) == 0 && a.st_nlink == 0 && a.st_size == 0 && read(old, buf, 16) == 0);
    CHECK(write(old, "old\n", 4) == 4 && pread(old, buf, 16, 0) == 4 &&
          holds("dir/new", "other\n"));
    CHECK(fstat(mine, &a) == 0 && stat("dir/new", &b) == 0 && a.st_ino == b.st_ino);
    close(old);
    close(mine);
    /* Directories move with what is open in them. */
    int deep = APPEND("dir/new", 0), below = open("dir", O_RDONLY | O_DIRECTORY);
    CHECK(mkdir("empty", 0755) == 0 && rename("dir", "empty") == 0);
    CHECK(write(deep, "moved\n", 6) == 6 && holds("empty/new", "other\nmoved\n"));
    FAILS(ENOENT, stat("dir/new", &b));
    CHECK(fstatat(below, "new", &b, 0) == 0 && b.st_size == 12);
    CHECK(mkdir("dir", 0755) == 0);
    FAILS(ENOTEMPTY, rename("dir", "empty"));
    CHECK(rmdir("dir") == 0 && rename("empty", "dir") == 0 && close(deep) == 0 &&
          close(below) == 0);
    CHECK(unlink("dir/m") == 0 && unlink("dir/new") == 0 && rmdir("dir") == 0);
}

static void removed(void)
{
    char buf[8];
    struct stat st;
    put("r", "kept\n");
    int fd = open("r", O_RDONLY), w = APPEND("r", 0);
    CHECK(unlink("r") == 0);
    FAILS(ENOENT, stat("r", &st));
    CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == 5);
    CHECK(read(fd, buf, 8) == 5 && memcmp(buf, "kept\n", 5) == 0);
    /* Written on, by whoever has it open; read by them, and by who opens it by way of them. */
    char path[64];
    CHECK(write(w, "late\n", 5) == 5 && read(fd, buf, 8) == 5 && memcmp(buf, "late\n", 5) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CHECK(holds(path, "kept\nlate\n"));
    int again = open(path, O_RDONLY);
    CHECK(again >= 0 && pread(again, buf, 8, 5) == 5 && memcmp(buf, "late\n", 5) == 0);
    CHECK(fchmod(w, 0600) == 0 && fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0600);
    CHECK(fsync(w) == 0 && fstat(fd, &st) == 0 && st.st_size == 10 && st.st_nlink == 0);
    /* Another of its name is another. */
    put("r", "other\n");
    CHECK(write(w, "later\n", 6) == 6 && holds("r", "other\n") && unlink("r") == 0);
    CHECK(close(fd) == 0 && close(w) == 0 && close(again) == 0);
    CHECK(mkdir("r", 0755) == 0);
    int d = open("r", O_RDONLY | O_DIRECTORY);
    CHECK(rmdir("r") == 0);
    FAILS(ESTALE, openat(d, "x", O_WRONLY | O_CREAT, 0644));
    close(d);
}

static bool is_newer(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

static void times(void)
{
    struct stat dir, st, now;
    CHECK(mkdir("t", 0755) == 0 && stat("t", &dir) == 0);
    put("t/a", "a\n");
    CHECK(stat("t", &now) == 0 && is_newer(&now.st_mtim, &dir.st_mtim));
    CHECK(stat("t/a", &st) == 0);
    dir = now;
    put("t/a", "b\n");
    CHECK(stat("t/a", &now) == 0 && is_newer(&now.st_mtim, &st.st_mtim));
    CHECK(stat("t", &now) == 0 && !is_newer(&now.st_mtim, &dir.st_mtim));
    st = now;
    CHECK(chmod("t/a", 0600) == 0 && stat("t", &now) == 0 && !is_newer(&now.st_mtim, &st.st_mtim));
    struct timespec set[2] = {{0, UTIME_OMIT}, {981173106, 123456789}};
    CHECK(utimensat(AT_FDCWD, "t/a", set, 0) == 0 && stat("t/a", &st) == 0);
    CHECK(st.st_mtim.tv_sec == 981173106 && st.st_mtim.tv_nsec == 123456789);
    CHECK(utimensat(AT_FDCWD, "t/a", NULL, 0) == 0 && stat("t/a", &st) == 0);
    CHECK(is_newer(&st.st_mtim, &dir.st_mtim));
    CHECK(unlink("t/a") == 0 && stat("t", &now) == 0 && is_newer(&now.st_mtim, &dir.st_mtim));
    CHECK(rmdir("t") == 0);
}

/* Is st_ctim of `name` later than it was? */
static bool is_altered(const char *name, struct stat *was)
{
    struct stat now;
    if (stat(name, &now))
        return false;
    bool later = is_newer(&now.st_ctim, &was->st_ctim);
    *was = now;
    return later;
}

static void changes(void)
{
    struct stat a, d;
    const struct timespec past[2] = {{0, UTIME_OMIT}, {981173106, 0}};
    const struct timespec access_only[2] = {{981173106, 0}, {0, UTIME_OMIT}};
    CHECK(mkdir("d", 0755) == 0);
    put("a", "a\n");
    CHECK(stat("a", &a) == 0 && stat("d", &d) == 0);
    CHECK(!is_altered("a", &a) && holds("a", "a\n") && !is_altered("a", &a)); /* reading is none */
    CHECK(chmod("a", 0600) == 0 && is_altered("a", &a));
    CHECK(chown("a", (uid_t)-1, getegid()) == 0 && is_altered("a", &a));
    CHECK(utimensat(AT_FDCWD, "a", past, 0) == 0 && is_altered("a", &a));
    CHECK(a.st_mtim.tv_sec == 981173106 && a.st_ctim.tv_sec > 981173106);
    CHECK(utimensat(AT_FDCWD, "a", access_only, 0) == 0 && is_altered("a", &a));
    CHECK(a.st_mtim.tv_sec == 981173106);
    CHECK(setxattr("a", "user.embar.retention_age", "1h", 2, 0) == 0 && is_altered("a", &a));
    put("a", "b\n");
    CHECK(is_altered("a", &a) && a.st_mtim.tv_sec == a.st_ctim.tv_sec);
    FAILS(EPERM, truncate("a", 0));
    CHECK(!is_altered("a", &a) && !is_altered("d", &d));
    CHECK(rename("a", "d/a") == 0 && is_altered("d/a", &a) && is_altered("d", &d));
    CHECK(setxattr("d/a", "user.embar.trim", "2", 1, 0) == 0 && is_altered("d/a", &a));
    int fd = open("d/a", O_RDONLY);
    CHECK(unlink("d/a") == 0 && is_altered("d", &d));
    struct stat gone;
    CHECK(fstat(fd, &gone) == 0 && gone.st_nlink == 0 && is_newer(&gone.st_ctim, &a.st_ctim));
    CHECK(close(fd) == 0 && rmdir("d") == 0);
}

static void modes(void)
{
    struct stat st;
    mode_t mask = umask(027);
    int fd = open("p", O_WRONLY | O_APPEND | O_CREAT, 0666);
    CHECK(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0640 && st.st_uid == geteuid());
    umask(mask);
    CHECK(fchmod(fd, 0400) == 0 && fchown(fd, (uid_t)-1, (gid_t)-1) == 0);
    CHECK(write(fd, "still\n", 6) == 6); /* what was opened stays open */
    if (geteuid() != 0) {
        FAILS(EACCES, APPEND("p", 0));
        FAILS(EPERM, chown("p", 0, 0));
        CHECK(access("p", W_OK) == -1 && errno == EACCES);
    }
    CHECK(access("p", R_OK) == 0 && access("p", X_OK) == -1);
    CHECK(chmod("p", 0644) == 0 && holds("p", "still\n"));
    close(fd);
    CHECK(unlink("p") == 0);
}

static void listings(void)
{
    char name[32];
    CHECK(mkdir("y", 0755) == 0);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "y/%03d", i);
        CHECK(close(APPEND(name, 0)) == 0);
    }
    DIR *d = opendir("y");
    struct dirent *e;
    long place = 0;
    char there[256] = "";
    int n = 0;
    for (; (e = readdir(d)) != NULL; n++) {
        CHECK(e->d_type == (e->d_name[0] == '.' ? DT_DIR : DT_REG));
        if (n == 200) { /* what comes next is found again from here */
            place = telldir(d);
            e = readdir(d);
            snprintf(there, sizeof there, "%s", e->d_name);
            n++;
        }
    }
    CHECK(n == 302);
    seekdir(d, place);
    CHECK((e = readdir(d)) != NULL && strcmp(e->d_name, there) == 0);
    rewinddir(d);
    for (n = 0; readdir(d); n++)
        ;
    CHECK(n == 302);
    closedir(d);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "y/%03d", i);
        CHECK(unlink(name) == 0);
    }
    CHECK(rmdir("y") == 0);
    struct statvfs v;
    CHECK(statvfs(".", &v) == 0 && v.f_namemax == 255 && v.f_bavail <= v.f_blocks && v.f_ffree > 0);
    CHECK(v.f_bavail > 0 && v.f_files > v.f_ffree && v.f_frsize == 4096);
}

/* Of many that make one name at once with O_EXCL, one succeeds. */
static void exclusive(void)
{
    enum { CHILDREN = 20 };
    int won = 0, status;
    for (int i = 0; i < CHILDREN; i++)
        if (fork() == 0)
            _exit(APPEND("x", O_EXCL) >= 0 ? 7 : errno == EEXIST ? 0 : 1);
    for (int i = 0; i < CHILDREN; i++) {
        CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) != 1);
        won += WEXITSTATUS(status) == 7;
    }
    CHECK(won == 1);
    CHECK(unlink("x") == 0);
}

int main(int argc, char **argv)
{
    if (argc != 2 || chdir(argv[1])) {
        fprintf(stderr, "sweep DIRECTORY\n");
        return 2;
    }
    static void (*const checks[])(void) = {
        open_flags, synchronous, offsets, vectors, sizes,   shared_handles, copies,   lengths,
        locks,      names,       removed, times,   changes, modes,          listings, exclusive};
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        checks[i]();
    return bad > 0;
}
