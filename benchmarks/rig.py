"""What the benchmarks share: the real commands in processes of their own, what a process costs, tables.

Costs are read from outside the process, in /proc: they include everything the process does.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcilib.consent import SCOPES
from mcilib.testing.xvfb import VirtualDisplay

PYTHON = [sys.executable, "-P"]
"""-P: the installed mcilib is measured, not whatever lies in the working folder."""

MCILIB = [*PYTHON, "-m", "mcilib"]
START_S = 30.0


class Process:
    """A child whose lines are read; killed at the end of `with` if it still runs."""

    def __init__(self, command: Sequence[str], **more: Any) -> None:
        self.began_s, self._command = time.perf_counter(), command
        self._popen: subprocess.Popen[str] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            **more,
        )
        self.pid = self._popen.pid

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.communicate()

    def line(self, text: str = "", timeout_s: float = START_S) -> str:
        """The next line of its output that holds `text`."""
        too_late = threading.Timer(timeout_s, self._popen.kill)
        too_late.start()
        try:
            assert self._popen.stdout is not None
            for line in self._popen.stdout:
                if text in line:
                    return line.strip()
        finally:
            too_late.cancel()
        _, err = self._popen.communicate()
        raise SystemExit(f"no line with {text!r} from {' '.join(self._command)}: {err}")

    def tell(self, line: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def finish(self, number: int = signal.SIGTERM, timeout_s: float = 20.0) -> None:
        """Sends a signal and returns when it has ended; until the end of `with`, /proc still tells what it cost."""
        too_late = threading.Timer(timeout_s, self._popen.kill)
        too_late.start()
        try:
            self._popen.send_signal(number)
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        finally:
            too_late.cancel()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and gives the exit code."""
        self._popen.send_signal(number)
        self._popen.communicate(timeout=20)
        return self._popen.returncode


@contextlib.contextmanager
def receiver(store: Path, port: int = 0, *flags: str, **more: Any) -> Iterator[str]:
    """`mcilib receive`; gives its address. `more` goes to `Popen`."""
    with Process([*MCILIB, "receive", str(store), "--port", str(port), *flags], **more) as process:
        yield process.line("Receiving at ").split("Receiving at ")[1].split()[0]
        process.end()


def agent(state: Path, endpoint: str, environ: dict[str, str], *flags: str) -> Process:
    """`mcilib run`, capturing when this returns."""
    process = Process([*MCILIB, "run", "--state", str(state), "--endpoint", endpoint, *flags], env=environ)
    try:
        process.line("Collecting")
    except BaseException:
        process.__exit__()
        raise
    return process


def grant(state: Path) -> None:
    """A grant for everything."""
    names = ["--operator", "mcilib benchmarks", "--purpose", "measuring", "--scope", ",".join(SCOPES)]
    subprocess.run(
        [*MCILIB, "grant", "--state", str(state), "--yes", *names], check=True, capture_output=True
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- input --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def steady_display(width_px: int = 1280, height_px: int = 800) -> Iterator[VirtualDisplay]:
    """A virtual display on which held keys do not repeat by themselves, however slow the machine is."""
    from Xlib.display import Display

    with VirtualDisplay(width_px=width_px, height_px=height_px) as virtual:
        control = Display(virtual.display)
        control.change_keyboard_control(auto_repeat_mode=0)
        control.sync()
        virtual.move(5, 5)
        virtual.sync()
        yield virtual
        control.close()


def inject(display: VirtualDisplay, rate_hz: int, seconds: float, *, presses: bool = True) -> Counter[str]:
    """Moves at `rate_hz`, and with `presses` each second four key taps and a click; how many events by kind."""
    key, seen = display.keycode("a"), Counter[str]()
    began_s = time.monotonic()
    for n in range(int(rate_hz * seconds)):
        ahead_s = began_s + n / rate_hz - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)
        display.move(100 + n % 1000, 100 + n % 601)  # never twice the same pixel
        seen["move"] += 1
        if presses and n % (rate_hz // 4) == 0:
            display.tap(key)
            seen.update(("key_press", "key_release"))
        if presses and n % rate_hz == rate_hz // 3:
            display.click(1)
            seen.update(("press", "release"))
        if n % 20 == 0:
            display.sync()
    display.sync()
    return seen


# --- costs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """CPU seconds and voluntary context switches of all threads of a process, over some time."""

    cpu_s: float
    wakeups: int

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.cpu_s - other.cpu_s, self.wakeups - other.wakeups)


def cost(pid: int, thread: int | None = None) -> Cost:
    """So far, of the threads that are there, or of one (`threading.Thread.native_id`)."""
    cpu_ns = wakeups = 0
    tasks = Path(f"/proc/{pid}/task")
    for task in tasks.iterdir() if thread is None else [tasks / str(thread)]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            cpu_ns += int((task / "schedstat").read_text().split()[0])
            status = (task / "status").read_text()
            wakeups += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return Cost(cpu_ns / 1e9, wakeups)


def process_cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, to the nanosecond and with those of its threads that have ended."""
    return time.clock_gettime((~pid << 3) | 2)  # its CPU clock: clock_getcpuclockid(3)


def written_bytes(pid: int) -> int:
    """What a process had the system write to a disk."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise LookupError(f"/proc/{pid}/io")


def settle(pid: int, quiet_s: float = 0.3, timeout_s: float = 20.0) -> None:
    """Returns when the process has done nothing for `quiet_s`: what was on its way has arrived."""
    until_s = time.monotonic() + timeout_s
    before = cost(pid).cpu_s
    while time.monotonic() < until_s:
        time.sleep(quiet_s)
        now = cost(pid).cpu_s
        if now - before < 0.001:
            return
        before = now


def charge(pid: int, server_pid: int, play: Callable[[], Counter[str]]) -> dict[str, float]:
    """What `play`, which injects and says how many events by kind, costs the process and the X server."""
    before, server_before, began_s = cost(pid), cost(server_pid), time.monotonic()
    events = play().total()
    took_s = time.monotonic() - began_s
    settle(pid)
    spent, server = cost(pid) - before, cost(server_pid) - server_before
    return {
        "events_per_s": events / took_s,
        "cpu_us_per_event": spent.cpu_s * 1e6 / events,
        "wakeups_per_event": spent.wakeups / events,
        "wakeups_per_s": spent.wakeups / took_s,
        "x_server_cpu_us_per_event": server.cpu_s * 1e6 / events,
    }


def memory_mib(pid: int) -> dict[str, float]:
    """Resident, proportional and private memory."""
    kib = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        kib[name] = int(value.split()[0])
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    return {"rss": kib["Rss"] / 1024, "pss": kib["Pss"] / 1024, "private": private / 1024}


# --- figures ------------------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def shown(figure: dict[str, float], digits: int = 1) -> str:
    """`12.3 (11.9-13.0)`."""
    if figure["low"] == figure["high"]:
        return f"{figure['median']:,.{digits}f}"
    return f"{figure['median']:,.{digits}f} ({figure['low']:,.{digits}f}-{figure['high']:,.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned: ready for docs/performance.md."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines
    )


def machine() -> dict[str, Any]:
    """The kind of machine, in general words."""
    return {"cpus": os.cpu_count(), "python": sys.version.split()[0], "system": sys.platform}


def arguments(words: str | None) -> argparse.ArgumentParser:
    """What every script takes."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="a short version, to see that all works")
    return parser


def remark(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def show(result: Any, text: str, *, as_json: bool) -> None:
    print(json.dumps(result, indent=1) if as_json else text)


# --- a network of one's own ---------------------------------------------------------------------------------

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # unshare(2)
_SIOCETHTOOL = 0x8946
_NO_OFFLOAD = (0x1F, 0x24, 0x2C)  # ETHTOOL_STSO, _SGSO, _SGRO


def in_own_network(work: Callable[[], Any]) -> Any:
    """What `work` gives in a process whose only network is a loopback like an Ethernet: an MTU of 1,500 bytes and
    packets as they would go out. None where the system forbids such a namespace, or `work` failed."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def child() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_NEW_NETWORK) and libc.unshare(_NEW_USER | _NEW_NETWORK):
            remark(f"no network namespace: {os.strerror(ctypes.get_errno())}")
            return
        subprocess.run(["ip", "link", "set", "lo", "mtu", "1500", "up"], check=True)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for command in _NO_OFFLOAD:
                value = ctypes.create_string_buffer(struct.pack("II", command, 0))
                request = struct.pack("16sP", b"lo", ctypes.addressof(value))
                fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        theirs.send(work())

    process = context.Process(target=child)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return None
    finally:
        process.join()


def interface_bytes(name: str) -> int:
    """What an interface has sent so far; on a loopback that is what both ends have."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        interface, _, counters = line.partition(":")
        if interface.strip() == name:
            return int(counters.split()[8])
    raise LookupError(name)
