"""Locks that a Linux process puts on itself before it runs a student's code; standard library only.

Each function applies one lock and says whether it held, so the grader can report what really protects a grade:
`namespaces` (no network, own process table), `landlock` (which files exist for the process), `drop_root`,
`limits` (memory, CPU, files, processes), `forget_elsewhere` (what Python remembers of other folders) and
`system_calls` (no new programs, no signals to others, no sockets).
"""

import contextlib
import ctypes
import ctypes.util
import functools
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterable

_NEW = {"mount": 0x00020000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000, "pid": 0x20000000}
_NEWNET = 0x40000000
_MS_REC_PRIVATE, _MS_NOSUID_NODEV_NOEXEC = 0x4000 | 0x40000, 0x2 | 0x4 | 0x8
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_PR_SET_SECCOMP = 22
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_CLONE_THREAD, _EPERM, _ENOSYS = 0x00010000, 1, 38


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> bool:
    return _libc().prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0


def undumpable() -> None:
    """Forbid other processes of the same user to trace this one or to read its memory and environment."""
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Be killed when the parent dies, and adopt orphaned grandchildren so that they can be found and killed."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(_PR_SET_SUBREAPER, 1)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def namespaces(scratch: str) -> list[str]:
    """Leave the host's network, process table and IPC; give `scratch` a private 64 MB memory file system.

    Must run before threads exist. Returns the namespaces that were left. When "pid" is among them the caller has
    become process 1 of a new table: no signal from inside can kill it, and everything in it dies with it.
    """
    if sys.platform != "linux":
        return []
    libc, uid, gid = _libc(), os.getuid(), os.getgid()
    rights = 0 if uid == 0 else _NEW["user"]
    flags = rights | _NEW["mount"] | _NEW["uts"] | _NEW["ipc"] | _NEW["pid"] | _NEWNET
    if libc.unshare(flags) != 0:
        return []
    if rights:
        try:
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{uid} {uid} 1")
            _write("/proc/self/gid_map", f"{gid} {gid} 1")
        except OSError:
            return ["net", "ipc"]
    child = os.fork()
    if child:  # the outer half only waits, and passes the end on
        os.closerange(3, 64)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    held = ["net", "ipc", "pid"]
    if libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None) == 0:
        if libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID_NODEV_NOEXEC, None) == 0:
            held.append("proc")
        options = b"size=64m,mode=0777"
        if libc.mount(b"tmpfs", scratch.encode(), b"tmpfs", _MS_NOSUID_NODEV_NOEXEC, options) == 0:
            held.append("scratch")
    return held


def drop_root(uid: int) -> bool:
    """Become the unprivileged user `uid` when root; process limits do not bind root. True when not root afterwards."""
    if os.getuid() == 0 and uid:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        except OSError:
            return False
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        undumpable()
    return os.getuid() != 0


# ---------------------------------------------------------------------------------------------------- landlock

_FS_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_FS_READ_FILE, _FS_READ = 1 << 2, (1 << 2) | (1 << 3) | (1 << 0)  # read file; read directory; execute (mmap of .so)
_FILE_ONLY = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15)


def landlock(readable: Iterable[str], writable: Iterable[str]) -> int:
    """Hide every file but these; forbid TCP and (newer kernels) signals to outside. Returns the ABI, 0 if absent."""
    if sys.platform != "linux":
        return 0
    libc = _libc()
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < 1:
        return 0
    fs = _FS_ALL.get(abi, (1 << 16) - 1)
    net = 3 if abi >= 4 else 0
    scoped = 3 if abi >= 6 else 0
    attr = struct.pack("<QQQ", fs, net, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = libc.syscall(_CREATE_RULESET, attr, ctypes.c_size_t(len(attr)), ctypes.c_uint32(0))
    if ruleset < 0:
        return 0
    for paths, rights in ((readable, _FS_READ), (writable, fs)):
        for path in paths:
            _allow(libc, ruleset, path, rights & fs)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    held = libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0
    os.close(ruleset)
    return abi if held else 0


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= _FILE_ONLY
    rule = struct.pack("<Qi", rights, fd)
    libc.syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint32(0))
    os.close(fd)


# ---------------------------------------------------------------------------------------------------- per exercise


def limits(*, data_mb: int, cpu_s: int, processes: int, file_mb: int, shared: bool = False) -> None:
    """Bound memory, CPU time, file size and open files of this process.

    Args:
        data_mb: private memory beyond what the process has already; of mapped memory, shared included, twice that.
        file_mb: the largest file that can be written; 0 forbids writing to files.
        shared: leave mapped memory unbounded, for CUDA, which maps many gigabytes.
    """
    used = _used_mb("VmData")
    wanted = {
        resource.RLIMIT_DATA: (used + data_mb) << 20,
        resource.RLIMIT_AS: resource.RLIM_INFINITY if shared else (_used_mb("VmSize") + 2 * data_mb) << 20,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_mb << 20,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: processes,
    }
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = hard if value == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):
            continue


def _used_mb(what: str) -> int:
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) >> 10 for line in status if line.startswith(what))
    except (OSError, StopIteration):
        return 1 << 16  # not Linux: nothing is known, so nothing is bounded


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


# Nothing that an exercise needs: other programs, other processes, sockets, mounts, kernel interfaces.
_FORBIDDEN = """
execve execveat fork vfork kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal
pidfd_getfd ptrace process_vm_readv process_vm_writev process_madvise socket connect bind listen accept accept4
mount umount2 pivot_root chroot setns unshare mount_setattr move_mount fsopen fsmount open_tree bpf perf_event_open
userfaultfd keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register init_module finit_module
memfd_create memfd_secret shmget semget msgget mq_open
delete_module kexec_load reboot swapon swapoff sethostname setdomainname name_to_handle_at open_by_handle_at
personality quotactl acct settimeofday clock_settime
chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat
setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
"""  # the last two lines: Landlock does not know them

# What changes files; refused where no layer below gives the process a file system of its own.
_CHANGING = """
creat truncate ftruncate rename renameat renameat2 unlink unlinkat rmdir mkdir mkdirat link linkat symlink symlinkat
mknod mknodat fallocate copy_file_range
"""
_FOR_WRITING = (1, 2, 0x40, 0x200)  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC


@functools.cache
def seccomp() -> ctypes.CDLL | None:
    """libseccomp, None where it is not installed. Looking for it starts programs, so the zygote does it, once."""
    name = ctypes.util.find_library("seccomp") if sys.platform == "linux" else None
    try:
        return ctypes.CDLL(name or "libseccomp.so.2")
    except OSError:
        return None


@functools.cache
def filter_program(read_only: bool) -> bytes:
    """The filter of `system_calls` as the kernel takes it, b"" without libseccomp. It takes milliseconds to make."""
    lib = seccomp()
    if lib is None:
        return b""
    lib.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(_ALLOW)))
    if not context:
        return b""

    def refuse(call: str, error: int, *conditions: _Compare) -> None:
        number = lib.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            array = (_Compare * max(1, len(conditions)))(*conditions)
            lib.seccomp_rule_add_array(context, ctypes.c_uint32(_ERRNO | error), number, len(conditions), array)

    for call in _FORBIDDEN.split():
        refuse(call, _EPERM)
    refuse("clone3", _ENOSYS)  # its flags are behind a pointer that a filter cannot read; libc then uses clone
    masked_equal = 7
    refuse("clone", _EPERM, _Compare(0, masked_equal, _CLONE_THREAD, 0))
    if read_only:
        for call in _CHANGING.split():
            refuse(call, _EPERM)
        refuse("openat2", _ENOSYS)
        for flag in _FOR_WRITING:
            refuse("open", _EPERM, _Compare(1, masked_equal, flag, flag))
            refuse("openat", _EPERM, _Compare(2, masked_equal, flag, flag))
    end, start = os.pipe()
    with open(end, "rb") as out:
        with open(start, "wb"):
            made = lib.seccomp_export_bpf(context, start) == 0
        program = out.read()
    lib.seccomp_release(context)
    return program if made else b""


def system_calls(*, read_only: bool = False) -> bool:
    """A seccomp filter through libseccomp: the calls above fail with EPERM; threads may start, processes may not.

    Args:
        read_only: also refuse every call that opens a file for writing or changes one.
    """
    program = filter_program(read_only)
    if not program:
        return False
    instructions = ctypes.create_string_buffer(program, len(program))
    given = _Program(len(program) // 8, ctypes.cast(instructions, ctypes.c_void_p))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return _libc().prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(given), 0, 0) == 0


def forget_elsewhere(roots: list[str]) -> None:
    """Drop what Python remembers of folders outside `roots`: entries of its path, and its listings of them.

    The locks hide those folders, but a listing made before would still say which packages lie there, the course's own
    among them (an editable install puts it on the path of every Python), and an empty one could even be imported.
    """
    places = [os.path.realpath(root) for root in roots]

    def inside(path: str) -> bool:
        real = os.path.realpath(path)
        return any(real == place or real.startswith(f"{place}/") for place in places)

    sys.path[:] = [path for path in sys.path if inside(path)]
    sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]
    for path in [path for path in sys.path_importer_cache if not inside(path)]:
        del sys.path_importer_cache[path]


_WATCHED = ("open", "os.listdir", "os.scandir")
_REFUSED = ("ctypes.", "socket.", "subprocess.", "os.", "shutil.", "sqlite3.", "pty.", "mmap.", "fcntl.")
_HARMLESS = ("os.putenv", "os.unsetenv", "os.walk", "os.fwalk", "os.listdrives")


def python_files(readable: Iterable[str]) -> None:
    """An audit hook for systems whose kernel hides no files: Python's own calls reach `readable` and nothing else.

    It is the weakest of the locks (compiled code does not ask), and cannot be taken off again.
    """
    roots = tuple(os.path.realpath(path) for path in readable if not path.startswith("/proc"))

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in _WATCHED:
            if isinstance(args[0], int):
                return
            path = os.path.realpath(os.fsdecode(args[0] or "."))  # type: ignore[arg-type]
            if not any(path == root or path.startswith(f"{root}/") for root in roots):
                raise PermissionError(1, "this file is not available while grading")
        elif event.startswith(_REFUSED) and event not in _HARMLESS:
            raise PermissionError(1, f"{event} is not available while grading")

    sys.addaudithook(hook)


def kill_descendants() -> None:
    """Kill and reap every child, those adopted from dead children included, until none is left."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def has_network() -> bool:
    """Whether an internet socket can be opened at all."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True
