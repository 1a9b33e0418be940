"""What tests do to a gateway from outside, through the kernel: stop one of its threads, starve it, break its listener,
bound its memory. All of it takes root."""

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
libc.ptrace.restype = ctypes.c_long

PTRACE_CONT, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 7, 17, 0x4206, 0x4207  # linux/ptrace.h
WAIT_ALL = 0x40000000  # __WALL
PIDFD_GETFD = 438  # the same number on every architecture


def _call(function, *arguments):
    if (result := function(*arguments)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def shard_thread(gateway):
    """The id of the thread of a gateway's first shard."""
    tasks = Path(f"/proc/{gateway.process.pid}/task")
    names = {int(task.name): (task / "comm").read_text().strip() for task in tasks.iterdir()}
    # The thread of glommio's blocking calls has the same name; the shard made it, and so came before it.
    return min(tid for tid, name in names.items() if name.startswith("shard-0"))


@contextlib.contextmanager
def stopped(tid):
    """The thread does nothing meanwhile; the others of its process go on. Enter and leave it on one thread."""
    _call(libc.ptrace, PTRACE_SEIZE, tid, 0, 0)
    _call(libc.ptrace, PTRACE_INTERRUPT, tid, 0, 0)
    os.waitpid(tid, WAIT_ALL)
    try:
        yield
    finally:
        _call(libc.ptrace, PTRACE_DETACH, tid, 0, 0)


@contextlib.contextmanager
def starved(tid):
    """The thread runs for two milliseconds, then not for 400, and so on: somebody else has its core."""
    thief = subprocess.Popen([sys.executable, __file__, str(tid)])
    try:
        yield
    finally:
        thief.kill()  # whoever is traced by one who has ended runs on
        thief.wait()


def _steal(tid):
    _call(libc.ptrace, PTRACE_SEIZE, tid, 0, 0)
    while True:
        _call(libc.ptrace, PTRACE_INTERRUPT, tid, 0, 0)
        os.waitpid(tid, WAIT_ALL)
        time.sleep(0.4)
        _call(libc.ptrace, PTRACE_CONT, tid, 0, 0)
        time.sleep(0.002)


def listener(gateway):
    """A gateway's listening socket for clients, as one of our own."""
    process = os.pidfd_open(gateway.process.pid)
    try:
        for name in os.listdir(f"/proc/{gateway.process.pid}/fd"):
            number = _call(libc.syscall, PIDFD_GETFD, process, int(name), 0)
            try:
                found = socket.socket(fileno=number)
            except OSError:
                os.close(number)
                continue
            listens = found.family == socket.AF_INET and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listens and found.getsockname()[1] == gateway.port:
                return found
            found.close()
    finally:
        os.close(process)
    raise AssertionError("the gateway listens nowhere")


def tcp_memory_pages():
    """Pages that all TCP sockets of the host use now."""
    line = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    words = line.split()
    return int(words[words.index("mem") + 1])


@contextlib.contextmanager
def tcp_mem_shown():
    """What shows a net.ipv4.tcp_mem of its own, and a prefix for commands that are to see it: the host's, which all use,
    stays as it is."""
    with tempfile.NamedTemporaryFile("r+", prefix="spillgate-tcp-mem-") as file:

        def show(pages):
            # In place, and of one length: who reads meanwhile sees the old line or the new one.
            file.seek(0)
            file.write("\t".join(f"{number:12}" for number in pages) + "\n")
            file.flush()

        script = f'mount --bind {file.name} /proc/sys/net/ipv4/tcp_mem && exec "$@"'
        yield show, ["unshare", "--mount", "sh", "-c", script, "sh"]


@contextlib.contextmanager
def memory_limit(limit_bytes):
    """A prefix for commands that are to run in a control group of their own with this memory limit."""
    version_1 = Path("/sys/fs/cgroup/memory")
    root, file = (version_1, "memory.limit_in_bytes") if version_1.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = Path(tempfile.mkdtemp(prefix="spillgate-test-", dir=root))
    try:
        (group / file).write_text(str(limit_bytes))
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        group.rmdir()


if __name__ == "__main__":
    _steal(int(sys.argv[1]))
