"""What is particular to object stores: how they are opened, and uploads that are under way during a deletion."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mcilib.errors import ConfigError, StoreError
from mcilib.format.batch import read_header
from mcilib.receiver import Deletion, ObjectStore

DAY = date(2026, 3, 1)
P, D = "1" * 32, "d" * 32
URL = "s3://bucket/prefix"


def environ(monkeypatch, url):
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
    }.items():
        monkeypatch.setenv(name, value)


def test_a_url_and_the_environment(object_server, monkeypatch, frame):
    for name, value in object_server.environ.items():
        monkeypatch.setenv(name, value)
    bucket = object_server.bucket()
    data = frame(1)
    store = ObjectStore(f"s3://{bucket}/some/prefix", today=lambda: DAY)
    assert [r.status.value for r in store.put([(read_header(data), data)])] == ["stored"]
    import obstore

    keys = [each["path"] for page in obstore.list(object_server.store(bucket)) for each in page]
    assert sorted(keys) == [
        f"some/prefix/batches/2026-03-01/{D}/{1:016}-{1:032x}.mcib",
        f"some/prefix/ids/00/{1:032x}",
        f"some/prefix/participants/2026-03-01/{'e' * 32}/{D}",
    ]


@pytest.mark.parametrize("url", ["gs://bucket", "memory:///", "s3://", "https://example.org/bucket"])
def test_addresses_that_are_none(url):
    with pytest.raises((ConfigError, StoreError), match="object store") as caught:
        ObjectStore(url, today=lambda: DAY)
    assert "s3://BUCKET" in caught.value.next_step or url == "s3://"


def test_a_bucket_that_is_not_there(object_server, monkeypatch):
    environ(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="cannot be used") as caught:
        ObjectStore(URL, today=lambda: DAY)
    assert "Debug" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_takes_a_second_object_is_refused(monkeypatch):
    class Careless(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_POST = do_DELETE = answer

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Careless) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        environ(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        try:
            with pytest.raises(StoreError, match="second object") as caught:
                ObjectStore(URL, today=lambda: DAY)
        finally:
            server.shutdown()
            thread.join()
    assert "conditional" in caught.value.next_step


def test_without_the_extra():
    script = (
        "import sys; sys.modules['obstore'] = None\n"
        "from mcilib.errors import ConfigError\n"
        "from mcilib.receiver import ObjectStore\n"
        "try: ObjectStore('s3://bucket', today=None)\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'mcilib[s3]'" in done.stdout


def test_a_deletion_waits_for_an_upload_that_is_under_way(object_server, frame):
    import obstore

    bucket = object_server.store(object_server.bucket())
    store = ObjectStore(bucket, today=lambda: DAY)
    data = frame(1, participant=P)
    header = read_header(data)
    with store._uploading({P}, [header.batch_id]):
        steps = store.delete(Deletion(P, D))
        for _ in range(5):
            next(steps)  # it goes on asking
        # The upload had looked before the tombstone came, so its bytes still come.
        obstore.put(bucket, f"batches/2026-03-01/{D}/{1:016}-{header.batch_id}.mcib", data)
    for _ in steps:
        pass
    keys = [each["path"] for page in obstore.list(bucket) for each in page]
    assert [key.partition("/")[0] for key in keys] == ["deleted"]


def test_an_upload_that_took_too_long_gets_no_receipt(object_server, frame):
    bucket = object_server.store(object_server.bucket())
    store = ObjectStore(bucket, today=lambda: DAY, lease_s=0.0)
    data = frame(1)
    with pytest.raises(StoreError, match="too long"):
        store.put([(read_header(data), data)])
    again = ObjectStore(bucket, today=lambda: DAY)
    assert [r.status.value for r in again.put([(read_header(data), data)])] == ["duplicate"]
