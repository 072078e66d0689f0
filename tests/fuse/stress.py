"""Everything at once on one mount: stress.py MOUNT SECONDS. Writers, readers, names, trims, streams,
pollers, and processes that are killed in the middle. Any error that is not one of those expected,
and any byte that nobody wrote, ends it with status 1."""
import errno
import os
import random
import select
import signal
import sys
import threading
import time

mount, seconds = sys.argv[1], float(sys.argv[2])
end = time.time() + seconds
names = ['t%d' % i for i in range(4)] + ['d/t%d' % i for i in range(3)]
# What races with rm, mv, trim and a full pool may rightly say.
expected = {errno.ENOENT, errno.ESTALE, errno.ENODATA, errno.ENOSPC, errno.EEXIST, errno.EINVAL}
bad = []


def run(kind, number):
    chance = random.Random('%s %d' % (kind.__name__, number))
    while time.time() < end and not bad:
        try:
            kind(chance)
        except OSError as e:
            if e.errno not in expected:
                bad.append('%s: %s' % (kind.__name__, e))
        except Exception as e:  # a thread's assertion must reach the main one
            bad.append('%s: %r' % (kind.__name__, e))


def path(chance):
    return mount + '/' + chance.choice(names)


def written(data):
    assert not data.strip(b'xy\n'), 'bytes that nobody wrote: %r' % data.strip(b'xy\n')[:40]
    return data


def write(chance):
    with open(path(chance), 'ab', buffering=0) as f:
        for _ in range(chance.randint(1, 30)):
            f.write(b'x' * chance.choice([1, 10, 1000, 700000]) + chance.choice([b'\n', b'\n', b'']))
            if chance.random() < .05:
                os.fsync(f.fileno())


def read(chance):
    with open(path(chance), 'rb', buffering=0) as f:
        f.seek(chance.choice([0, 0, 1000, 100000]))
        while written(f.read(chance.choice([100, 4096, 1 << 20]))):
            pass


def change(chance):
    time.sleep(.03)
    at, what = path(chance), chance.random()
    if what < .3:
        os.close(os.open(at, os.O_CREAT | os.O_WRONLY | os.O_APPEND))
    elif what < .5:
        os.unlink(at)
    elif what < .7:
        try:
            os.rename(at, path(chance))
        except PermissionError:  # over what holds data
            pass
    elif what < .8:
        os.listdir(mount)
        os.listdir(mount + '/d')
    elif what < .9:
        os.mkdir(mount + '/e')
        os.rmdir(mount + '/e')
    else:
        os.chmod(at, 0o644)
        os.utime(at)


def trim(chance):
    f = os.open(path(chance), os.O_RDONLY)
    try:
        last = int(os.getxattr(f, 'user.embar.end'))
        os.setxattr(f, 'user.embar.trim', b'%d' % chance.randint(0, last))
    finally:
        os.close(f)
    time.sleep(.01)


def follow(chance):
    f = os.open(mount + '/.embar/follow/' + chance.choice(names), os.O_RDONLY | os.O_NONBLOCK)
    try:
        p = select.poll()
        p.register(f, select.POLLIN)
        for _ in range(20):
            if p.poll(20):
                try:
                    written(os.read(f, 1 << 16))
                except BlockingIOError:
                    pass
    finally:
        os.close(f)


def poll(chance):
    f = os.open(path(chance), os.O_RDONLY)
    try:
        with select.epoll() as p:
            p.register(f, select.EPOLLIN)
            for _ in range(20):
                if p.poll(.02):
                    written(os.read(f, 1 << 20))
    finally:
        os.close(f)


def status(chance):
    for name in ('status', 'metrics'):
        with open(mount + '/.embar/' + name) as f:
            f.read()
    os.statvfs(mount)
    time.sleep(.01)


def child(chance, work):
    pid = os.fork()
    if pid == 0:
        try:
            work(chance)
        except OSError:
            pass
        os._exit(0)
    time.sleep(chance.random() * .2)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def killed_reader(chance):
    def work(c):
        f = os.open(mount + '/.embar/follow/' + c.choice(names), os.O_RDONLY)
        while os.read(f, 4096):
            pass
    child(chance, work)


def killed_writer(chance):
    def work(c):
        f = os.open(path(c), os.O_WRONLY | os.O_APPEND)
        lines = (b'y' * 500 + b'\n') * 1000
        for _ in range(100):
            os.write(f, lines)
    child(chance, work)


os.mkdir(mount + '/d')
workers = []
for kind, count in ((killed_reader, 1), (killed_writer, 2)):  # forked before any thread is made
    for i in range(count):
        pid = os.fork()
        if pid == 0:
            run(kind, i)
            os._exit(1 if bad else 0)
        workers.append(pid)
threads = [threading.Thread(target=run, args=(kind, i))
           for kind, count in ((write, 3), (read, 3), (change, 2), (trim, 1), (follow, 2), (poll, 1),
                               (status, 1))
           for i in range(count)]
for t in threads:
    t.start()
for t in threads:
    t.join()
for pid in workers:
    if os.waitpid(pid, 0)[1] != 0:
        bad.append('a child saw an unexpected error')
for line in bad:
    print(line)
sys.exit(1 if bad else 0)
