"""A child process that stands still right before its k-th file operation, to be killed there.

By ptrace, called through ctypes: the kernel stops the child at the entry of each system call, so every
operation on files is a point, whoever makes it (Python, a C extension, libc) and however it is spelled; an audit
hook sees neither `write` nor `fsync`. `strace -e inject=...:signal=SIGKILL:when=k` stops at the same points, but it
counts each kind of call apart, cannot hold the child while the power goes, and costs a new interpreter each time
(50 ms a point against 5 ms for a fork).

Linux on x86-64 and ARM64; `supported()` says why not elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
import traceback
from collections.abc import Callable

_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_OPTIONS = 0x0010_0000 | 1  # PTRACE_O_EXITKILL: no child outlives us; PTRACE_O_TRACESYSGOOD: marks its stops
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_ENTRY = 1
_WRITES = os.O_CREAT | os.O_TRUNC

# Calls that change files or make changes durable, from the kernel's tables. A death before any other call leaves
# the same disk as one before the next of these.
_X86_64 = {
    1: "write", 2: "open", 18: "pwrite64", 20: "writev", 40: "sendfile", 74: "fsync", 75: "fdatasync", 76: "truncate",
    77: "ftruncate", 82: "rename", 83: "mkdir", 84: "rmdir", 86: "link", 87: "unlink", 88: "symlink", 90: "chmod",
    91: "fchmod", 257: "openat", 258: "mkdirat", 263: "unlinkat", 264: "renameat", 265: "linkat", 266: "symlinkat",
    268: "fchmodat", 277: "sync_file_range", 280: "utimensat", 285: "fallocate", 306: "syncfs", 316: "renameat2",
    326: "copy_file_range",
}  # fmt: skip
_GENERIC = {
    34: "mkdirat", 35: "unlinkat", 36: "symlinkat", 37: "linkat", 38: "renameat", 45: "truncate", 46: "ftruncate",
    47: "fallocate", 52: "fchmod", 53: "fchmodat", 56: "openat", 64: "write", 66: "writev", 68: "pwrite64",
    71: "sendfile", 82: "fsync", 83: "fdatasync", 84: "sync_file_range", 88: "utimensat", 267: "syncfs",
    276: "renameat2", 285: "copy_file_range",
}  # fmt: skip
_TABLES = {"x86_64": _X86_64, "aarch64": _GENERIC}

_libc = ctypes.CDLL(None, use_errno=True)


def _ptrace(request: int, pid: int, address: int = 0, data: object = 0) -> int:
    result = _libc.ptrace(
        ctypes.c_long(request),
        ctypes.c_long(pid),
        ctypes.c_void_p(address),
        ctypes.c_void_p(data),  # type: ignore[arg-type]
    )
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def supported() -> str | None:
    """None, or why children cannot be stopped here, in words."""
    if not sys.platform.startswith("linux") or platform.machine() not in _TABLES:
        return f"stops processes by ptrace: Linux on {' or '.join(_TABLES)} only"
    try:
        with Stopped(lambda _: None) as child:
            child.run_to(1)
    except OSError as error:
        return f"ptrace is not allowed here: {error.strerror}"
    return None


class Stopped:
    """A fork that carries out `work(say)`; `say(word)` tells us, outside of any file system, how far it came.

    All methods from the thread that made it. Dies with this process.
    """

    def __init__(self, work: Callable[[Callable[[str], None]], None]) -> None:
        self._calls = _TABLES[platform.machine()]
        self._entered = False
        self.operations = 0
        self.name = ""
        """Of the call before which it stands."""
        self._reading, self._saying = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._child(work)
        os.close(self._saying)
        os.waitpid(self._pid, 0)
        _ptrace(_SETOPTIONS, self._pid, 0, _OPTIONS)

    def _say(self, word: str) -> None:
        os.write(self._saying, word.encode() + b"\n")

    def _child(self, work: Callable[[Callable[[str], None]], None]) -> None:
        code = 1
        try:
            _ptrace(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            work(self._say)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def __enter__(self) -> Stopped:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        os.close(self._reading)

    def run_to(self, number: int) -> bool:
        """Lets it run until it is about to make its `number`-th file operation. False: it ended before."""
        info = ctypes.create_string_buffer(88)
        while self.operations < number:
            _ptrace(_SYSCALL, self._pid)
            _, status = os.waitpid(self._pid, 0)
            if not os.WIFSTOPPED(status):
                self._pid = 0
                code = os.waitstatus_to_exitcode(status)
                assert code == 0, f"the child ended with {code} after {self.operations} operations"
                return False
            if os.WSTOPSIG(status) != _SYSCALL_STOP:
                continue
            _ptrace(_GET_SYSCALL_INFO, self._pid, len(info), ctypes.addressof(info))
            kind, call, first, second, third = struct.unpack_from("B23x4Q", info.raw)
            if kind == _ENTRY and self._changes_files(call, first, second, third):
                self.operations += 1
                self.name = self._calls[call]
        return True

    def _changes_files(self, call: int, first: int, second: int, third: int) -> bool:
        name = self._calls.get(call)
        if name == "open":
            return bool(second & _WRITES)
        if name == "openat":
            return bool(third & _WRITES)
        return name is not None and not (name == "write" and first in (1, 2, self._saying))

    def kill(self) -> None:
        """SIGKILL; the operation before which it stands is not made. May be called twice."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def said(self) -> list[str]:
        """All its words so far; once, after it has ended."""
        words = b""
        while piece := os.read(self._reading, 65_536):
            words += piece
        return words.decode().split("\n")[:-1]
