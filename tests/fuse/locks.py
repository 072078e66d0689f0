# What tests/fuse/locks.sh runs: locks of a topic that is trimmed between one open and the next, so that
# the kernel holds two inodes of it. locks.py FILE OTHER METRICS
import errno
import fcntl
import os
import signal
import struct
import sys
import time

path, other, metrics = sys.argv[1:4]

READ, WRITE, GIVE_UP = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK


def fails(wanted, call, *args):
    try:
        call(*args)
    except OSError as e:
        assert e.errno in wanted, (e, wanted)
    else:
        raise AssertionError('worked, but must not')


def opened(name=path):
    return os.open(name, os.O_RDWR | os.O_APPEND)


def trimmed():
    # A new inode from the next open on, of the same number.
    os.write(opened_once, b'some line\n')
    os.setxattr(path, 'user.embar.trim', os.getxattr(path, 'user.embar.end'))


def flock(fd, how):
    fcntl.flock(fd, how)


def lock(fd, kind, start=0, length=0, wait=False):
    fcntl.fcntl(fd, fcntl.F_SETLKW if wait else fcntl.F_SETLK,
                struct.pack('hhqqi4x', kind, os.SEEK_SET, start, length, 0))


def ofd(fd, kind, start=0, length=0):
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', kind, os.SEEK_SET, start, length, 0))


def asked(fd, kind, start=0, length=0):
    got = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack('hhqqi4x', kind, os.SEEK_SET, start, length, 0))
    kind, _, start, length, pid = struct.unpack('hhqqi4x', got)
    return kind, start, length, pid


def counts(what, wanted):
    end = time.monotonic() + 60
    while b'\nembar_fs_%s %d\n' % (what.encode(), wanted) not in open(metrics, 'rb').read():
        assert time.monotonic() < end, '%s: not %d' % (what, wanted)
        time.sleep(0.005)


def waits_are(wanted):
    counts('lock_waits', wanted)


def rung(*_):
    raise InterruptedError


class Child:
    """A process that does what it is told, one step after another."""

    def __init__(self):
        self.fd = None
        to_child, self.to = os.pipe()
        self.done, from_child = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for fd in range(3, 100):
                if fd not in (to_child, from_child):
                    try:
                        os.close(fd)
                    except OSError:
                        pass
            self.serve(to_child, from_child)
        os.close(to_child)
        os.close(from_child)

    def serve(self, to, back):
        signal.signal(signal.SIGUSR1, rung)
        names = {'fd': None}
        while True:
            step = os.read(to, 4096).decode()
            if not step:
                os._exit(0)
            try:
                exec(step, globals(), names)
                os.write(back, b'0 ')
            except InterruptedError:
                os.write(back, b'%d ' % errno.EINTR)
            except OSError as e:
                os.write(back, b'%d ' % e.errno)

    def tell(self, step):
        os.write(self.to, step.encode())

    def said(self):
        return int(os.read(self.done, 100).split()[0])

    def does(self, step):
        self.tell(step)
        return self.said()

    def interrupted(self):
        os.kill(self.pid, signal.SIGUSR1)
        return self.said()

    def killed(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def ends(self):
        os.close(self.to)
        os.waitpid(self.pid, 0)


opened_once = opened()


def closed_before():
    # What was closed, or whose process is gone, before another asks, is in nobody's way.
    b = opened()
    for _ in range(300):
        a = opened()
        flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(a)
        flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
        flock(b, fcntl.LOCK_UN)
    for _ in range(20):
        c = Child()
        assert c.does('fd = opened()') == 0 and c.does('lock(fd, WRITE)') == 0
        c.killed()
        lock(b, WRITE)
        lock(b, GIVE_UP)
    os.close(b)


def whole_files():
    a = opened()
    trimmed()
    b = opened()
    assert os.fstat(a).st_ino == os.fstat(b).st_ino and os.fstat(a).st_size > os.fstat(b).st_size
    flock(a, fcntl.LOCK_EX)
    fails({errno.EWOULDBLOCK}, flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fails({errno.EWOULDBLOCK}, flock, b, fcntl.LOCK_SH | fcntl.LOCK_NB)
    else_where = opened(other)
    flock(else_where, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(b, b'locks stop nobody who does not ask\n')
    lock(b, WRITE)  # fcntl's are others
    lock(b, GIVE_UP)
    # Converted, shared, given up.
    flock(a, fcntl.LOCK_SH)
    flock(b, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fails({errno.EWOULDBLOCK}, flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    flock(b, fcntl.LOCK_UN)
    flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Held by the open file: a duplicate's close leaves it, the last close ends it.
    os.close(os.dup(a))
    fails({errno.EWOULDBLOCK}, flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(a)
    flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(b)
    os.close(else_where)


def waiting():
    a = opened()
    flock(a, fcntl.LOCK_EX)
    trimmed()
    first, second, third = Child(), Child(), Child()
    for n, c in enumerate((first, second, third)):
        assert c.does('fd = opened()') == 0
        c.tell('flock(fd, fcntl.LOCK_EX)')
        waits_are(n + 1)
    assert second.interrupted() == errno.EINTR
    third.killed()
    waits_are(1)
    flock(a, fcntl.LOCK_UN)
    assert first.said() == 0
    fails({errno.EWOULDBLOCK}, flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert second.does('flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)') == errno.EWOULDBLOCK
    second.tell('flock(fd, fcntl.LOCK_EX)')
    waits_are(1)
    first.killed()  # who is killed holds nothing
    assert second.said() == 0
    second.ends()
    flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(a)


def ranges():
    a = opened()
    trimmed()
    c = Child()
    assert c.does('fd = opened()') == 0
    lock(a, WRITE, 10, 20)
    assert c.does('lock(fd, WRITE, 0, 10)') == 0
    assert c.does('lock(fd, READ, 30, 5)') == 0
    assert c.does('lock(fd, READ, 29, 1)') == errno.EAGAIN
    assert c.does('assert asked(fd, WRITE, 0, 0) == (WRITE, 10, 20, %d), asked(fd, WRITE)'
                  % os.getpid()) == 0
    assert asked(a, READ, 5, 1) == (WRITE, 0, 10, c.pid)
    assert asked(a, READ, 31, 1)[0] == GIVE_UP
    # A hole in the middle; another kind at the end.
    lock(a, GIVE_UP, 15, 5)
    lock(a, READ, 25, 100)
    assert c.does('lock(fd, WRITE, 15, 5)') == 0
    assert c.does('lock(fd, WRITE, 14, 1)') == errno.EAGAIN
    assert c.does('lock(fd, READ, 20, 1)') == errno.EAGAIN
    assert c.does('lock(fd, READ, 25, 50)') == 0
    assert c.does('lock(fd, WRITE, 80, 1)') == errno.EAGAIN
    fails({errno.EAGAIN}, lock, a, WRITE, 25, 5)
    # To infinity.
    lock(a, WRITE, 1000)
    assert c.does('assert asked(fd, READ, 5000, 0) == (WRITE, 1000, 0, %d)' % os.getpid()) == 0
    # Each waits for the other.
    c.tell('lock(fd, WRITE, 1000, 1, True)')
    waits_are(1)
    fails({errno.EDEADLK}, lock, a, WRITE, 0, 1, True)
    lock(a, GIVE_UP, 1000, 5)
    assert c.said() == 0
    c.tell('lock(fd, WRITE, 1005, 1, True)')
    waits_are(1)
    assert c.interrupted() == errno.EINTR
    os.close(a)
    assert c.does('lock(fd, WRITE)') == 0
    c.killed()
    # Of the open file (F_OFD_...): a child has it, and the death of who took it leaves it.
    a, b = opened(), opened()
    ofd(a, WRITE, 5, 5)
    fails({errno.EAGAIN}, ofd, b, WRITE, 9, 1)
    ofd(b, WRITE, 10, 1)
    pid = os.fork()
    if pid == 0:
        signal.pause()
    os.close(a)
    fails({errno.EAGAIN}, ofd, b, WRITE, 9, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    ofd(b, WRITE, 0, 100)
    os.close(b)


def removed():
    name = path + '.gone'
    a = os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    b = opened(name)
    os.unlink(name)
    flock(a, fcntl.LOCK_EX)
    fails({errno.EWOULDBLOCK}, flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    again = os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)  # another of its name
    for fd in (a, b, again):
        os.close(fd)
    os.unlink(name)


closed_before()
whole_files()
waiting()
ranges()
removed()
counts('locks', 0)  # none is left; close does not wait for it
