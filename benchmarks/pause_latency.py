"""How long a pause takes, from the call to the last hook stopped.

A recorder with pointer, keyboard, displays and windows hears a real X server while input comes at 250 Hz. Each pause is
timed from the call of `Capture.bar` until it has returned, every thread of a source has ended, and the X server says of
each RECORD context of ours that it is none any more. Then input goes on for a moment, nothing of which may be captured;
it is opened again, and it is seen that input is heard.

All at once, with the usual read interval and with one of a second, so that the reader is asleep in the middle of input;
and the keyboard alone, which reads together with the others: until its bar has returned.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rig import arguments, machine, show, steady_display, table

from mcilib import DisplaySource, KeyboardSource, PointerSource, Recorder, WindowSource
from mcilib.capture import Capture
from mcilib.clock import SystemClock
from mcilib.consent import Gate
from mcilib.testing.fakes import FakeSession, MemorySpool, example_grant
from mcilib.testing.xvfb import VirtualDisplay

AIM_MS = 50.0
WAIT_S = 10.0


class Server:
    """Asks an X server which RECORD contexts there are."""

    def __init__(self) -> None:
        from Xlib.display import Display

        self._display = Display()

    def has(self, context: int) -> bool:
        from Xlib.error import XError

        try:
            self._display.record_get_context(context)
        except XError:
            return False
        except TypeError:  # python-xlib cannot read the answer, and is lost then; that one came says enough
            self.close()
            self.__init__()  # type: ignore[misc]
        return True

    def close(self) -> None:
        self._display.close()


@contextmanager
def input_at(display: VirtualDisplay, rate_hz: int) -> Iterator[None]:
    done = threading.Event()
    key = display.keycode("a")

    def inject() -> None:
        n = 0
        while not done.wait(1 / rate_hz):
            n += 1
            display.move(100 + n % 900, 100 + n % 601)
            if n % 25 == 0:
                display.tap(key)
            display.sync()

    thread = threading.Thread(target=inject)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def until(done: Any) -> None:
    ends_s = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > ends_s:
            raise SystemExit("pause_latency: what was waited for did not happen")
        time.sleep(0.0005)


def measure(times: int, read_interval_s: float, scopes: tuple[str, ...]) -> dict[str, Any]:
    clock = SystemClock()
    sources: list[Any] = [
        PointerSource(read_interval_s=read_interval_s),
        KeyboardSource(read_interval_s=read_interval_s),
        DisplaySource(read_interval_s=read_interval_s),
        WindowSource(read_interval_s=read_interval_s),
    ]
    grant = example_grant("pointer", "keys", "apps")
    recorder = Recorder(gate=Gate(grant), spool=MemorySpool(), sources=sources)
    capture = Capture(sources, FakeSession(), clock)
    took_ms, late = [], 0
    server = Server()

    def heard(kind: str) -> int:
        return recorder.statistics().captured.get(kind, 0)

    recorder.start()
    capture.begin()
    capture.start(recorder)
    try:
        for n in range(times):
            before = heard("move"), heard("key_press")
            until(lambda before=before: heard("move") > before[0] and heard("key_press") > before[1])
            time.sleep(0.005 * (n % 11))  # at any moment between two reads
            contexts = [source._reader._listener._context for source in sources]
            threads = [thread for source in sources for thread in source.threads()]
            if not all(map(server.has, contexts)):
                raise SystemExit("pause_latency: the server does not know of a context of ours")
            began_s = time.perf_counter()
            capture.bar(None if scopes else "paused", scopes)
            if not scopes:
                for thread in threads:
                    thread.join(WAIT_S)
                while any(server.has(context) for context in set(contexts)):
                    pass
            took_ms.append((time.perf_counter() - began_s) * 1e3)
            kind = "key_press" if scopes else "move"
            after = heard(kind)
            time.sleep(0.02)
            late += heard(kind) - after
            capture.bar(None, ())
            until(lambda: capture.held is None and not capture._lacks())
    finally:
        capture.stop()
        recorder.stop()
        server.close()
    ordered = sorted(took_ms)
    return {
        "what": "the keyboard" if scopes else "everything",
        "read_interval_s": read_interval_s,
        "pauses": times,
        "p50_ms": round(statistics.median(ordered), 2),
        "p99_ms": round(ordered[int(0.99 * (len(ordered) - 1))], 2),
        "max_ms": round(ordered[-1], 2),
        "captured_while_paused": late,
    }


def text(results: list[dict[str, Any]]) -> str:
    return table(
        [
            "barred",
            "read every",
            "pauses",
            "p50, ms",
            "p99, ms",
            "worst, ms",
            "aim for p99, ms",
            "captured meanwhile",
        ],
        [
            [
                r["what"],
                f"{r['read_interval_s']:g} s",
                str(r["pauses"]),
                f"{r['p50_ms']:.1f}",
                f"{r['p99_ms']:.1f}",
                f"{r['max_ms']:.1f}",
                f"{AIM_MS:g}",
                str(r["captured_while_paused"]),
            ]
            for r in results
        ],
    )


def options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--pauses", type=int, default=200, help="of each kind (default: 200)")
    return parser.parse_args()


def main() -> int:
    args = options()
    times = 3 if args.quick else args.pauses
    with steady_display() as display:
        os.environ["DISPLAY"] = display.display
        os.environ.pop("WAYLAND_DISPLAY", None)
        with input_at(display, 250):
            results = [
                measure(times, interval_s, scopes) for scopes in ((), ("keys",)) for interval_s in (0.1, 1.0)
            ]
    show({"machine": machine(), "pauses": results}, text(results), as_json=args.json)
    return 1 if any(r["captured_while_paused"] for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
