"""The real command in processes of its own, with a home folder of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import commands
import pytest
from commands import Background, Receiver, Run

from mcilib.testing.fakes import example_grant


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No display and no state folder named. Autouse, so that it comes before `xserver` gives a display."""
    for name in ("MCILIB_STATE", "XDG_STATE_HOME", "DISPLAY", "WAYLAND_DISPLAY", "XDG_SESSION_TYPE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with a home folder in it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mcilib(here: Path) -> Run:
    """Runs `mcilib ARGS` to its end. No traceback may ever show."""
    return commands.run


@pytest.fixture
def background(here: Path) -> Iterator[Callable[..., Background]]:
    """Starts `mcilib ARGS`; whatever still runs at the end of the test is killed."""
    started: list[Background] = []

    def start(*args: str | Path, **more: Any) -> Background:
        started.append(Background(*args, **more))
        return started[-1]

    yield start
    for command in started:
        if command.process.poll() is None:
            command.kill()


@pytest.fixture
def receiver(background: Callable[..., Background], here: Path) -> Callable[..., Receiver]:
    """Starts a receiver on loopback, on a free port unless one is given."""

    def start(*args: str | Path, store: str = "store", port: int = 0) -> Receiver:
        command = background("receive", here / store, "--port", str(port), *args)
        url = command.line("Receiving at").split()[2]
        return Receiver(url, here / store, command)

    return start


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one receiver for all tests that need some receiver and do not look into its store."""
    command = Background("receive", tmp_path_factory.mktemp("shared") / "store", "--port", "0")
    yield command.line("Receiving at").split()[2]
    assert command.end().returncode == 0


@pytest.fixture
def granted(here: Path) -> Path:
    """A state folder with a grant for everything."""
    state = here / "state"
    example_grant().save(state)
    return state


@pytest.fixture
def web() -> Iterator[Callable[[int, bytes], str]]:
    """Starts a web server that answers everything alike; gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *args: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A certificate authority (`ca`) and a certificate for localhost (`cert`, `key`)."""
    import trustme

    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    for number, pem in enumerate(certificate.cert_chain_pems):
        pem.write_to_path(str(folder / "cert.pem"), append=number > 0)
    return {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
