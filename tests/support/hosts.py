"""Host programs that embed the library, each in a process of its own, made quickly: one process that has imported all
forks for each. Run as a file it is that process.

A host makes one `Collector` on real sources and does what it is told over a socket, a line of JSON each way. It is a
real process: it can be killed, and its memory looked into.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Self

_HERE = Path(__file__)


class Nursery:
    """The process that forks. A context manager; its hosts end with it. Any number of hosts, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "nursery"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._path))
            listener.listen(64)
            os.set_inheritable(listener.fileno(), True)
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_HERE), str(listener.fileno())],
                stdin=subprocess.PIPE, close_fds=False,
            )  # fmt: skip

    def host(self, **options: Any) -> Host:
        """A new process. `options`: see `_made`."""
        return Host(self._path, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


class Refused(Exception):
    """What a host's collector raised; the text begins with the name of the class."""


class Host:
    """One program. Its collector is made, and not started."""

    def __init__(self, nursery: Path, options: Mapping[str, Any]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(nursery))
        self._file = self._socket.makefile("rw")
        self.pid = int(self._ask(dict(options)))

    def call(self, name: str, /, **arguments: Any) -> Any:
        """A method of the collector; its answer as JSON."""
        return self._ask({"call": name, "arguments": arguments})

    def begin(self, name: str, /, **arguments: Any) -> None:
        """The same in a thread: `join` gives its answer."""
        self._ask({"begin": name, "arguments": arguments})

    def join(self) -> Any:
        return self._ask({"join": True})

    def sleep_through(self, seconds: float) -> None:
        """The host's clock is as after a sleep of the machine of so long."""
        self._ask({"suspend": seconds})

    def keep(self, value: Any) -> None:
        """It keeps this in its memory."""
        self._ask({"keep": value})

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._file.readline()  # the end of it
        self.close()

    def end(self) -> None:
        """Stops the collector and ends the process."""
        self.call("stop")
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
        self._socket.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        self._file.write(json.dumps(request) + "\n")
        self._file.flush()
        line = self._file.readline()
        if not line:
            raise Refused("the host has died")
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["answer"]


# --- in the process that forks, and in its children ------------------------------------------------------------


def _serve(listener: socket.socket) -> None:
    """Forks for each connection, until its own stdin ends."""
    import selectors

    import mcilib.cli._agent
    import mcilib.policy.hours  # noqa: F401  (so that no child has to)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    children: list[int] = []
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    for child in children:
                        with suppress(ProcessLookupError):
                            os.kill(child, signal.SIGKILL)
                    return
                connection, _ = listener.accept()
                child = os.fork()
                if child:
                    children.append(child)
                    connection.close()
                    continue
                try:
                    listener.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _live(connection)
                finally:
                    os._exit(0)


def _live(connection: socket.socket) -> None:
    """One host, until its connection ends."""
    with connection, connection.makefile("rw") as file:
        host: _Hosting | None = None
        for line in file:
            try:
                request = json.loads(line)
                if host is None:
                    host = _Hosting(request)
                    answer: Any = os.getpid()
                else:
                    answer = host.answer(request)
                said: dict[str, Any] = {"answer": answer}
            except Exception as error:
                said = {"error": f"{type(error).__name__}: {error}"}
            file.write(json.dumps(said, default=_shown) + "\n")
            file.flush()
        if host is not None:
            host.collector.stop()


class _Clock:
    """The system's, and the sleep that a test says there was: a machine cannot be put to sleep here."""

    def __init__(self) -> None:
        self.slept_ns = 0

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns() + self.slept_ns

    def suspended_ns(self) -> int:
        return self.slept_ns


class _Hosting:
    def __init__(self, options: dict[str, Any]) -> None:
        self.clock = _Clock()
        self.kept: list[Any] = []
        self.collector = _made(options, self.clock, self.kept)
        self.thread: threading.Thread | None = None
        self.result: list[Any] = []

    def answer(self, request: dict[str, Any]) -> Any:
        if "suspend" in request:
            self.clock.slept_ns += int(request["suspend"] * 1e9)
        elif "keep" in request:
            self.kept.append(request["keep"])
        elif "join" in request:
            assert self.thread is not None
            self.thread.join(20)
            return self.result.pop()
        elif "begin" in request:
            self.thread = threading.Thread(target=lambda: self.result.append(self._call(request, "begin")))
            self.thread.start()
        else:
            return self._call(request, "call")
        return None

    def _call(self, request: dict[str, Any], how: str) -> Any:
        import operator

        found = operator.attrgetter(request[how])(self.collector)
        return found(**_meant(request["arguments"])) if callable(found) else found


def _meant(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments that are no JSON: scopes of exemptions, grants."""
    made = dict(arguments)
    if isinstance(made.get("scope"), dict):
        from mcilib.consent import ExemptScope

        made["scope"] = ExemptScope.from_json(made["scope"])
    if isinstance(made.get("grant"), dict):
        from mcilib.consent import Grant

        made["grant"] = Grant(**{**made["grant"], "scopes": tuple(made["grant"]["scopes"])})
    return made


def _made(options: dict[str, Any], clock: _Clock, kept: list[Any]) -> Any:
    """`state`, with the grant in it unless `grant` is given; `url` of a receiver, or none; `display`; `sources`, by default all that the grant
    covers; `read_interval_s`; other options as those of `Collector`. `telltale`: a source of the test's own that
    keeps what it should not."""
    from mcilib.collector import Collector
    from mcilib.consent import SCOPES, Grant
    from mcilib.delivery.http import HttpTransport
    from mcilib.sources.display import DisplaySource
    from mcilib.sources.keyboard import KeyboardSource
    from mcilib.sources.pointer import PointerSource
    from mcilib.sources.window import WindowSource
    from mcilib.testing.fakes import FakeResources, FakeSession

    options = dict(options)
    os.environ["DISPLAY"] = options.pop("display")
    state, url = options.pop("state"), options.pop("url", None)
    every = {"read_interval_s": options.pop("read_interval_s", 0.02), "clock": clock}
    titles = options.pop("titles", False)
    given = options.pop("grant", None)
    grant = Grant.load(state) if given is None else Grant(**{**given, "scopes": tuple(given["scopes"])})
    covered = {source for scope in grant.scopes for source in SCOPES[scope].sources}
    wanted = options.pop("sources", None) or [
        n for n in ("display", "keyboard", "window", "pointer") if n in covered
    ]
    sources: list[Any] = []
    for name in wanted:
        if name == "telltale":
            sources.append(_telltale(kept))
        elif name == "window":
            sources.append(WindowSource(titles=titles, **every))
        else:
            kind = {"display": DisplaySource, "keyboard": KeyboardSource, "pointer": PointerSource}[name]
            sources.append(kind(**every))
    transport = HttpTransport(url) if url else None
    return Collector(
        sources=sources, grant=grant, state_dir=state, transport=transport, clock=clock,
        session=FakeSession(), resources=FakeResources(), policies=(), indicator=_Seen(), **options,
    )  # fmt: skip


def _telltale(kept: list[Any]) -> Any:
    """A keyboard that keeps what is typed and tells it, as no source of the library may."""
    from mcilib.sources.keyboard import KeyboardSource

    class Telltale(KeyboardSource):
        def _label(self, key: Any) -> str | None:
            kept.append(key.char)
            return str(key.char)

    return Telltale(read_interval_s=0.02)


class _Seen:
    """An indicator; the test is the participant, and sees everything."""

    def show(self, notice: object, /) -> bool:
        return True


def _shown(value: Any) -> Any:
    """Of answers that are no JSON."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return dict(value) if isinstance(value, Mapping) else repr(value)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
