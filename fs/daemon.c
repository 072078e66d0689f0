/* The process that starts and the one that stays. The fork comes before any thread, lock or
 * mapping; the parent waits at a pipe until the child says that the mount answers, or why not.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <syslog.h>
#include <unistd.h>

#include "core/plain.h"
#include "fs/fs.h"

#define SAID 1024 /* bytes of a sentence */

static int report = -1;      /* child: the pipe to the parent, while it waits */
static int nowhere = -1;     /* /dev/null, opened while there surely are descriptors */
static atomic_bool detached; /* daemon_ready came; read by daemon_note in any thread */

static volatile sig_atomic_t starting; /* parent: the child */

static void pass_on(int sig)
{
    int code = errno;
    (void)kill((pid_t)starting, sig);
    errno = code;
}

/* What came through the pipe: a status byte, then the sentence. Who ends us by a signal means the child,
 * which says what became of it. */
static void __attribute__((noreturn)) parent_wait(int fd, pid_t child)
{
    static const int ends[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction act = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
    char text[SAID + 1];
    starting = (sig_atomic_t)child;
    for (unsigned i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct sigaction was;
        if (sigaction(ends[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
            (void)sigaction(ends[i], &act, NULL);
    }
    size_t have = 0;
    ssize_t n;
    while (have < sizeof text - 1 &&
           ((n = read(fd, text + have, sizeof text - 1 - have)) > 0 || (n < 0 && errno == EINTR)))
        have += n > 0 ? (size_t)n : 0;
    text[have] = '\0';
    if (have > 0) {
        if (text[0])
            fprintf(stderr, "embarfs: %s\n", text + 1);
        _exit((unsigned char)text[0]);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        fprintf(stderr, "embarfs: the daemon was ended by signal %d (%s) while starting.\n",
                WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        fprintf(stderr, "embarfs: the daemon ended while starting, with status %d.\n",
                WEXITSTATUS(status));
    _exit(EX_SOFTWARE);
}

/* Who started us may have closed these. What were opened in their place, the pool with its lock
 * perhaps, would be replaced when we leave the terminal. */
static void standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            exit(EX_OSERR);
}

void daemon_start(bool foreground)
{
    int fd[2];
    standard_files();
    if (foreground)
        return;
    nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nowhere < 0) {
        fprintf(stderr, "embarfs: /dev/null could not be opened: %s\n", embar_strerror(errno));
        exit(EX_OSERR);
    }
    if (pipe2(fd, O_CLOEXEC)) {
        fprintf(stderr, "embarfs: no pipe could be made: %s\n", embar_strerror(errno));
        exit(EX_OSERR);
    }
    pid_t child = fork();
    if (child < 0) {
        fprintf(stderr, "embarfs: no process could be made: %s\n", embar_strerror(errno));
        exit(EX_OSERR);
    }
    if (child > 0) {
        close(fd[1]);
        parent_wait(fd[0], child);
    }
    close(fd[0]);
    report = fd[1];
}

int daemon_awaited(struct embar_error *err)
{
    struct pollfd p = {.fd = report}; /* in the foreground -1, of which poll says nothing */
    if (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLERR | POLLHUP)))
        return 0;
    return embar_fail(err, -ECANCELED,
                      "the process that started this daemon was ended before the mount answered; "
                      "nothing was mounted.");
}

void daemon_ready(void)
{
    if (report < 0)
        return;
    /* Only now: until here Ctrl-C reaches the child too, and it shows its progress. */
    setsid();
    if (chdir("/"))
        daemon_note("cannot leave the working directory: %s", embar_strerror(errno));
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        dup2(nowhere, fd); /* who reads what we say would wait for as long as we live */
    close(nowhere);
    nowhere = -1;
    openlog("embarfs", LOG_PID, LOG_DAEMON);

    atomic_store_explicit(&detached, true, memory_order_release);
    char ready = 0;
    if (write(report, &ready, 1) < 0)
        daemon_note("nobody waits for this mount any more");
    close(report);
    report = -1;
}

/* One line, whatever the names in it hold. */
static void sentence(char text[SAID], const char *fmt, va_list args)
{
    char raw[SAID];
    vsnprintf(raw, sizeof raw, fmt, args);
    (void)plain_text(text, SAID, raw);
}

void daemon_fail(int status, const char *fmt, ...)
{
    char text[SAID + 1];
    va_list args;
    va_start(args, fmt);
    sentence(text + 1, fmt, args);
    va_end(args);
    text[0] = (char)status;
    bool told = report >= 0 && write(report, text, 1 + strlen(text + 1)) >= 0;
    if (!told && atomic_load_explicit(&detached, memory_order_acquire))
        syslog(LOG_ERR, "%s", text + 1);
    else if (!told)
        fprintf(stderr, "embarfs: %s\n", text + 1);
    exit(status);
}

void daemon_note(const char *fmt, ...)
{
    char text[SAID];
    va_list args;
    va_start(args, fmt);
    sentence(text, fmt, args);
    va_end(args);
    if (atomic_load_explicit(&detached, memory_order_acquire))
        syslog(LOG_WARNING, "%s", text);
    else
        fprintf(stderr, "embarfs: %s\n", text);
}
