"""Readers of a stream that are refused answers: refused.py MOUNT NOW PUBLISH EXPECTED WHAT

While the file NOW exists the daemon cannot answer. A line written to PUBLISH, which `embar pub log`
reads, is published. EXPECTED holds what the topic has.
"""
import errno
import os
import sys
import threading
import time

mount, now, publish, expected, what = sys.argv[1:]
stream = f"{mount}/.embar/follow/log@0"
out = os.open(publish, os.O_WRONLY)


def fail(on):
    if on:
        os.close(os.open(now, os.O_WRONLY | os.O_CREAT))
    else:
        os.unlink(now)


def wait_until(seconds, done, why):
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            # Threads that wait for an answer would keep this process: the script reports.
            print(f"after {seconds} s: {why}", file=sys.stderr, flush=True)
            os._exit(1)
        time.sleep(0.01)


class Reader(threading.Thread):
    """Reads once, in the background: .got is bytes or an errno."""

    def __init__(self, fd, size=1 << 16):
        super().__init__(daemon=True)
        self.fd, self.size, self.got, self.id = fd, size, None, 0
        self.start()

    def run(self):
        self.id = threading.get_native_id()
        try:
            self.got = os.read(self.fd, self.size)
        except OSError as e:
            self.got = e.errno

    def waits(self):
        try:
            with open(f"/proc/self/task/{self.id}/wchan") as f:
                return self.id and f.read() == "request_wait_answer"
        except OSError:
            return False

    def done(self):
        return self.got is not None


def read_refused(fd):
    """Several times at once, for the answer lets the reader ask before the daemon knows its outcome."""
    for _ in range(4):
        try:
            got = os.read(fd, 70000)
        except OSError as e:
            assert e.errno == errno.ENOMEM, e
        else:
            sys.exit(f"{len(got)} bytes came although nothing could be answered")


def nothing_is_skipped():
    with open(expected, "rb") as f:
        want = f.read()
    fd, have = os.open(stream, os.O_RDONLY), b""
    while len(have) < len(want):
        fail(True)
        read_refused(fd)
        fail(False)
        for _ in range(4):
            if len(have) < len(want):
                have += os.read(fd, 70000)
                assert want.startswith(have), f"the stream is not the topic, before byte {len(have)}"
    # A read that waits for data when it is refused.
    for i in range(3):
        line = b"line %d that is refused once\n" % i
        reader = Reader(fd)
        wait_until(60, reader.waits, "no read waits")
        fail(True)
        os.write(out, line)
        wait_until(60, reader.done, "the waiting read is not refused")
        assert reader.got == errno.ENOMEM, reader.got
        fail(False)
        assert os.read(fd, 70000) == line
    os.close(fd)
    # One that does not want to wait is not kept, neither behind what was refused nor at the end.
    fd = os.open(stream, os.O_RDONLY | os.O_NONBLOCK)
    fail(True)
    read_refused(fd)
    fail(False)
    while True:
        try:
            last = os.read(fd, 1 << 20)
        except BlockingIOError:
            break
    assert last.endswith(line)


def waits_are_bounded():
    """Readers are refused one after the other by one thread, which does not wait for each."""
    count = 40
    with open(expected, "rb") as f:
        size = len(f.read())
    fds = [os.open(f"{mount}/.embar/follow/log@{size}", os.O_RDONLY) for _ in range(count)]
    readers = [Reader(fd) for fd in fds]
    wait_until(60, lambda: all(r.waits() for r in readers), "not all reads wait")
    fail(True)
    os.write(out, b"one line for all\n")
    wait_until(60, lambda: all(r.done() for r in readers), "not all readers were refused")
    assert {r.got for r in readers} == {errno.ENOMEM}, {r.got for r in readers}
    fail(False)
    for fd in fds:
        assert os.read(fd, 70000) == b"one line for all\n"


def refusals_come_late():
    """Not even the refusal could be written: it is, as soon as it can be."""
    fds = [os.open(stream, os.O_RDONLY) for _ in range(20)]
    fail(True)
    readers = [Reader(fd) for fd in fds]
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert not any(r.done() for r in readers), "answered without memory"
        time.sleep(0.01)
    fail(False)
    wait_until(60, lambda: all(r.done() for r in readers), "readers wait for ever")
    with open(expected, "rb") as f:
        want = f.read()
    for fd, r in zip(fds, readers):
        got = r.got if isinstance(r.got, bytes) else os.read(fd, 1 << 16)
        assert got and want.startswith(got)
    assert errno.ENOMEM in {r.got for r in readers}


{"skip": nothing_is_skipped, "bound": waits_are_bounded, "late": refusals_come_late}[what]()
