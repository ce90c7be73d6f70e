"""`mcilib flush` and `run --drain` where not everything arrives: what is lost, and what was not carried out, is said."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from commands import Background, Receiver, Run, input_on, refused
from left_batches import leave, requests

from mcilib.testing.xvfb import VirtualDisplay

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a receiver that refuses each batch for good, and knows no requests to delete."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b'{"service": "mcilib-receiver"}'
            self.send_response(200 if self.command == "GET" else 400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def running(background: Callable[..., Background], granted: Path) -> Callable[[str], None]:
    def start(url: str) -> None:
        background("run", "--state", granted, "--endpoint", url).line("Collecting")

    return start


@pytest.mark.x11
def test_a_batch_that_the_receiver_refuses_for_good(
    mcilib: Run, granted: Path, running: Callable[[str], None], refusing: str, xserver: VirtualDisplay
) -> None:
    running(refusing)
    input_on(xserver)
    said = refused(mcilib("flush", "--state", granted), 5, "some batches were lost", "`mcilib status` shows")
    assert "Nothing is lost" not in said


@pytest.mark.x11
def test_what_cannot_be_written(
    mcilib: Run, granted: Path, running: Callable[[str], None], endpoint: str, xserver: VirtualDisplay
) -> None:
    running(endpoint)
    shutil.rmtree(granted / "spool" / "tmp")
    input_on(xserver)
    refused(mcilib("flush", "--state", granted), 5, "what was captured last could not be written")


def test_a_request_to_delete_that_is_not_carried_out_is_no_end_of_a_drain(
    mcilib: Run, granted: Path, refusing: str, receiver: Callable[..., Receiver]
) -> None:
    leave(granted)
    assert mcilib("forget", "--state", granted, "1h", "--yes").returncode == 0
    assert len(requests(granted)) == 1
    for url, why in ((NOBODY, "connection refused"), (refusing, "answered 400")):
        done = mcilib("run", "--state", granted, "--endpoint", url, "--drain")
        refused(done, 5, "1 message to the receiver still on this device", why)
    done = mcilib("run", "--state", granted, "--endpoint", receiver().url, "--drain")
    assert done.returncode == 0, done
    assert not requests(granted)


def test_a_request_that_the_operator_has_not_decided_is_one(
    mcilib: Run, granted: Path, receiver: Callable[..., Receiver]
) -> None:
    assert mcilib("exempt", "--state", granted, "--everything", "--reason", "other").returncode == 0
    done = mcilib("run", "--state", granted, "--endpoint", receiver().url, "--drain")
    assert done.returncode == 0, done
    assert len(requests(granted)) == 1
