/* Child processes and private directories of the benchmark, each told to the keeper. Must never
 * leave a child unreaped or wait for one without a deadline. */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/clock.h"
#include "tests/bench/keeper.h"

pid_t proc_fork(void)
{
    (void)fflush(NULL);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        (void)signal(SIGINT, SIG_IGN); /* Ctrl-C ends the parent, and its end ends us */
        (void)signal(SIGTERM, SIG_DFL);
        (void)signal(SIGHUP, SIG_IGN);
        (void)signal(SIGPIPE, SIG_IGN);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        return 0;
    }
    if (pid > 0) {
        int rc = keeper_pid(pid);
        if (rc) {
            (void)kill(pid, SIGKILL);
            while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
            errno = -rc;
            return -1;
        }
    }
    return pid;
}

int proc_wait(pid_t pid, unsigned timeout_ms, int *status)
{
    uint64_t deadline = clock_ns() + (uint64_t)timeout_ms * 1000000;
    for (;;) {
        siginfo_t info = {0};
        /* WNOWAIT: the number stays the child's until the keeper has forgotten it. */
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
            return -errno;
        if (info.si_pid == pid)
            break;
        if (clock_ns() >= deadline)
            return -ETIMEDOUT;
        clock_sleep(1000000);
    }
    keeper_forget_pid(pid);
    while (waitpid(pid, status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

void proc_end(pid_t pid, unsigned grace_ms)
{
    int status;
    (void)kill(pid, SIGTERM);
    if (proc_wait(pid, grace_ms, &status) != -ETIMEDOUT)
        return;
    (void)kill(pid, SIGKILL);
    (void)!proc_wait(pid, 10000, &status);
}

int keeper_make_directory(char *path, size_t size, int in_memory)
{
    const char *base = getenv("TMPDIR");
    if (in_memory)
        base = "/dev/shm";
    else if (!base || !*base)
        base = "/tmp";
    int n = snprintf(path, size, "%s/embar-bench.XXXXXX", base);
    if (n < 0 || (size_t)n >= size)
        return -ENAMETOOLONG;
    if (!mkdtemp(path))
        return -errno;
    int rc = keeper_directory(path);
    if (rc)
        (void)rmdir(path);
    return rc;
}
