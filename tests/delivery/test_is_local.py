"""Which transports leave this machine: those that do not are used without a network too."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcilib import FolderTransport, HttpTransport, ObjectStoreTransport, S3Credentials


def test_a_folder_is_local(tmp_path: Path) -> None:
    assert FolderTransport(tmp_path).is_local


@pytest.mark.parametrize(
    ("endpoint", "local"), [("http://127.0.0.1:9", True), ("https://example.org", False)]
)
def test_http_and_object_stores_are_local_on_loopback(endpoint: str, local: bool) -> None:
    store = ObjectStoreTransport("s3://bucket", credentials=S3Credentials("id", "secret"), endpoint=endpoint)
    assert (HttpTransport(endpoint).is_local, store.is_local) == (local, local)
