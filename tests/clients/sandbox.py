"""The sandbox of a systemd unit, built without systemd: its system-call filter, capabilities and read-only paths.

Run as a program it becomes another one, in a sandbox:
  sandbox.py unit UNIT CONFIGURATION COMMAND…  that of the unit, as root; a call outside of its filter kills
  sandbox.py engine PROFILE COMMAND…           that of a container engine's seccomp profile, without any capability
  sandbox.py refuse CALL=ERRNO COMMAND…        a filter that answers one call with an error
"""

import ctypes
import errno
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pyseccomp as seccomp

HOME = Path("/run/spillgate-sandbox")
"""Where the program and its settings are seen within."""

NOBODY = 65534
CLONE_NEWNS, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 0x20000, 24, 38
PROT_WRITE, PROT_EXEC = 2, 4
NAMESPACES = {"cgroup": 0x02000000, "ipc": 0x08000000, "net": 0x40000000, "mnt": 0x00020000}
NAMESPACES |= {"pid": 0x20000000, "user": 0x10000000, "uts": 0x04000000}


def settings(unit):
    """Every setting of the [Service] section, with all its values in the order of the file."""
    found, section = {}, None
    for line in Path(unit).read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def calls_of(filters):
    """The system calls that SystemCallFilter= lines leave, in their order; groups as systemd-analyze expands them."""
    allowed = set(_group("@default"))
    for line in filters:
        calls = {call for word in line.lstrip("~").split() for call in (_group(word) if word[0] == "@" else [word])}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed | set(_group("@default"))  # systemd.exec(5): these are always allowed


def _group(name):
    line = ["systemd-analyze", "syscall-filter", name]
    text = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    words = [line.split("#")[0].strip() for line in text.splitlines()[1:]]
    return [call for word in words if word for call in (_group(word) if word[0] == "@" else [word])]


def unit_filter(asked):
    """The filter that a unit asks for; a call outside of it kills, where systemd would answer EPERM."""
    assert asked["SystemCallArchitectures"] == ["native"]
    allowed = calls_of(asked["SystemCallFilter"])
    filter = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    restricted = {"socket", "mmap", "mprotect", "pkey_mprotect", "shmat", "unshare", "setns", "personality"}
    for call in sorted(allowed - restricted):
        _allow(filter, call)
    # RestrictAddressFamilies=
    for family in asked["RestrictAddressFamilies"][-1].split():
        _allow(filter, "socket", seccomp.Arg(0, seccomp.EQ, getattr(socket, family)))
    # MemoryDenyWriteExecute=
    assert asked["MemoryDenyWriteExecute"] == ["yes"]
    _allow(filter, "mmap", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0))
    _allow(filter, "mmap", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC | PROT_WRITE, PROT_EXEC))
    _allow(filter, "mprotect", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0))
    # RestrictNamespaces= and LockPersonality= leave nothing of unshare, setns and personality, and of clone3 ENOSYS:
    # its flags are in memory, where no filter sees them (systemd does the same).
    assert asked["RestrictNamespaces"] == asked["LockPersonality"] == ["yes"]
    return filter


def _allow(filter, call, *arguments):
    try:
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, call)
    except ValueError:
        return
    if call == "clone":
        arguments = [seccomp.Arg(0, seccomp.MASKED_EQ, sum(NAMESPACES.values()), 0)]
    if call == "clone3":
        filter.add_rule(seccomp.ERRNO(errno.ENOSYS), number)
    elif number >= 0:
        filter.add_rule(seccomp.ALLOW, number, *arguments)


def enter_unit(unit, configuration, program):
    """Takes this process into the unit's sandbox; answers the program's path there."""
    asked = settings(unit)
    filter = unit_filter(asked)
    for name in ("ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectKernelTunables", "DynamicUser"):
        assert asked[name] == ["yes"], name
    for name in ("NoNewPrivileges", "PrivateMounts"):
        assert asked[name] == ["yes"], name
    assert asked["ProtectSystem"] == ["strict"]
    assert asked["CapabilityBoundingSet"] == asked["AmbientCapabilities"] == [""]
    _limit(resource.RLIMIT_NOFILE, int(asked["LimitNOFILE"][0]))
    _limit(resource.RLIMIT_MEMLOCK, int(asked["LimitMEMLOCK"][0].removesuffix("M")) << 20)
    inside = _enter_mounts(Path(program), Path(configuration))
    os.umask(int(asked["UMask"][0], 8))
    os.chdir("/")
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        _libc("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _libc("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    filter.load()
    return inside


def _enter_mounts(program, configuration):
    """Everything read-only; homes, temporary files and devices are not the host's."""
    _libc("unshare", CLONE_NEWNS)
    _mount("--make-rprivate", "/")
    HOME.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", "mode=755", "sandbox", HOME)
    shutil.copy(program, HOME / program.name)
    shutil.copy(configuration, HOME / "spillgate.toml")
    (HOME / "spillgate.toml").chmod(0o644)
    (HOME / "dev").mkdir()
    for device in ("null", "zero", "full", "random", "urandom", "tty"):
        (HOME / "dev" / device).touch()
        _mount("--bind", f"/dev/{device}", HOME / "dev" / device)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for target in sorted(set(mounts) - {"/proc"}):
        if not target.startswith(str(HOME)):
            # What lies under another mount, or is a container engine's, stays as it is.
            subprocess.run(["mount", "-o", "remount,bind,ro", target], capture_output=True, check=False)
    _mount("--bind", "/proc/sys", "/proc/sys")
    _mount("-o", "remount,bind,ro", "/proc/sys")
    for hidden in ("/home", "/root", "/tmp", "/var/tmp"):
        _mount("-t", "tmpfs", "-o", "ro,mode=755", "hidden", hidden)
    _mount("--rbind", HOME / "dev", "/dev")
    _mount("-o", "remount,ro", HOME)
    return str(HOME / program.name)


def _mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def _limit(which, wanted):
    """As much as the unit gives, or as this host's own limit lets root give."""
    most = resource.getrlimit(which)[1]
    try:
        resource.setrlimit(which, (wanted, wanted))
    except (ValueError, PermissionError):
        resource.setrlimit(which, (most, most))


def _libc(function, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*(ctypes.c_ulong(argument) for argument in arguments)) != 0:
        raise OSError(ctypes.get_errno(), f"{function}{arguments}")


def refuse(call, code):
    """Installs a filter that answers one call with an error and leaves all others alone."""
    filter = seccomp.SyscallFilter(seccomp.ALLOW)
    filter.add_rule(seccomp.ERRNO(getattr(errno, code)), seccomp.resolve_syscall(seccomp.Arch.NATIVE, call))
    filter.load()


def load_profile(path):
    """Installs the filter of a container engine's profile, as for a container on x86-64 without any capability."""
    profile = json.loads(Path(path).read_text())
    actions = {"SCMP_ACT_ALLOW": lambda rule: seccomp.ALLOW, "SCMP_ACT_ERRNO": lambda rule: seccomp.ERRNO(rule)}
    filter = seccomp.SyscallFilter(actions[profile["defaultAction"]](profile["defaultErrnoRet"]))
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
        is_for_others = "amd64" not in includes.get("arches", ["amd64"]) or "amd64" in excludes.get("arches", [])
        if "caps" in includes or is_for_others:
            continue
        comparisons = {"EQ": seccomp.EQ, "LT": seccomp.LT, "MASKED_EQ": seccomp.MASKED_EQ}
        arguments = [
            seccomp.Arg(arg["index"], comparisons[arg["op"][9:]], arg["value"], arg.get("valueTwo", 0))
            for arg in rule.get("args", [])
        ]
        for call in rule["names"]:
            try:
                number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, call)
            except ValueError:
                continue
            if number >= 0:
                filter.add_rule(actions[rule["action"]](rule.get("errnoRet", errno.EPERM)), number, *arguments)
    filter.load()


def main():
    mode, *rest = sys.argv[1:]
    if mode == "unit":
        unit, configuration, *command = rest
        command[0] = enter_unit(unit, configuration, command[0])
    elif mode == "engine":
        profile, *command = rest
        load_profile(profile)
    else:
        refusal, *command = rest
        refuse(*refusal.split("="))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
