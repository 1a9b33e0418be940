"""Makes a thread of a running program do what no thread should, from outside: there is no hook for it in the program.

The thread is stopped with ptrace(2), its registers are changed, and it goes on. The program is the test's own child.
"""

import ctypes
import os
import platform
import re
import subprocess
import time
from pathlib import Path

IS_KNOWN_HERE = platform.machine() == "x86_64"

SEIZE, INTERRUPT, DETACH, GETREGS, SETREGS = 0x4206, 0x4207, 17, 12, 13
WALL = 0x40000000
NO_CALL = 2**64 - 1
JUMP_TO_ITSELF = b"\xeb\xfe"
PANICS = "panic_cannot_unwind"
"""A function of Rust's core library that takes nothing and panics."""

_REGISTERS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs "
    "gs"
).split()


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in _REGISTERS]


def spin(pid, thread):
    """From now on the thread runs in circles, for ever: an endless turn."""
    _send(pid, thread, _endless_loop(pid))


def panic(pid, thread):
    """The thread panics, as an assertion in it that does not hold would."""
    _send(pid, thread, _base(pid) + _symbol(pid, PANICS))


def thread_of(pid, name):
    """The thread of that name; of several the oldest, for a thread names its helpers as itself."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    named = [int(task.name) for task in tasks if (task / "comm").read_text().strip() == name]
    assert named, f"no thread is called {name}"
    return min(named)


def cpu_ticks(pid, thread):
    """CPU time of a thread, in ticks of a hundredth of a second."""
    fields = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def _send(pid, thread, address):
    registers = _stopped_while_it_waits(thread)
    registers.rip = address
    registers.orig_rax = NO_CALL  # the system call that was interrupted is not tried again
    registers.rsp = (registers.rsp - 4096 & ~15) - 8  # as a call leaves it
    registers.rbp = 0
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(registers.rsp)
        memory.write(bytes(8))  # nobody called: a backtrace ends here
    _ptrace(SETREGS, thread, registers)
    _ptrace(DETACH, thread)


def _stopped_while_it_waits(thread):
    """Stops a thread in a system call, where it holds no lock and is in the middle of nothing; its registers."""
    deadline = time.monotonic() + 10
    while True:
        _ptrace(SEIZE, thread)
        _ptrace(INTERRUPT, thread)
        while os.waitpid(thread, os.WNOHANG | WALL) == (0, 0):
            assert time.monotonic() < deadline, "the thread does not stop"
            time.sleep(0.001)
        registers = Registers()
        _ptrace(GETREGS, thread, registers)
        if registers.orig_rax != NO_CALL:
            return registers
        _ptrace(DETACH, thread)
        assert time.monotonic() < deadline, "the thread never waits"
        time.sleep(0.003)


def _ptrace(request, thread, data=None):
    libc = ctypes.CDLL(None, use_errno=True)
    pointer = ctypes.byref(data) if data is not None else None
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(thread), None, pointer) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")


def _mappings(pid):
    """Start, end, rights and offset of what is mapped of the program's own file."""
    program = os.readlink(f"/proc/{pid}/exe")
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, rights, offset, _, _, *path = line.split(maxsplit=5)
        if path == [program]:
            start, end = (int(address, 16) for address in addresses.split("-"))
            yield start, end, rights, int(offset, 16)


def _base(pid):
    return next(start for start, _, _, offset in _mappings(pid) if offset == 0)


def _endless_loop(pid):
    """Where in the program's code the two bytes of such a loop happen to stand."""
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for start, end, rights, _ in _mappings(pid):
            if "x" in rights:
                memory.seek(start)
                found = memory.read(end - start).find(JUMP_TO_ITSELF)
                if found >= 0:
                    return start + found
    raise AssertionError("no such bytes in the program")


def _symbol(pid, name):
    symbols = subprocess.run(["nm", f"/proc/{pid}/exe"], check=True, capture_output=True, text=True).stdout
    found = re.search(rf"^([0-9a-f]+) [tT] \S*{name}\S*$", symbols, re.MULTILINE)
    assert found, f"the program has no {name}"
    return int(found[1], 16)
