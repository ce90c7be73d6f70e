"""Places in which receivers keep what they get: a folder, and a bucket of a real S3-compatible server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mcilib.receiver import FolderStore, ObjectStore

DAY = date(2026, 3, 1)


class FolderPlace:
    """Opens stores on one folder, and searches it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, today: date = DAY) -> FolderStore:
        return FolderStore(self.path, today=lambda: today)

    def contents(self) -> Iterator[tuple[str, bytes]]:
        for path in self.path.rglob("*"):
            with suppress(FileNotFoundError):  # gone since
                data = path.read_bytes() if path.is_file() else b""
                yield path.relative_to(self.path).as_posix(), data

    def plant(self, key: str, data: bytes) -> None:
        (self.path / key).parent.mkdir(parents=True, exist_ok=True)
        (self.path / key).write_bytes(data)

    def plant_dead_upload(self, participant: str, batch_id: str, data: bytes) -> None:
        self.plant(f"tmp/{participant}-{batch_id}-{'0' * 32}", data[: len(data) // 2])


class BucketPlace:
    """The same on a bucket."""

    lease_s = 300.0

    def __init__(self, server: Any) -> None:
        self.bucket = server.store(server.bucket(), "some/prefix")

    def open(self, today: date = DAY) -> ObjectStore:
        return ObjectStore(self.bucket, today=lambda: today, lease_s=self.lease_s)

    def contents(self) -> Iterator[tuple[str, bytes]]:
        import obstore

        for page in obstore.list(self.bucket):
            for each in page:
                with suppress(FileNotFoundError):  # gone since
                    yield each["path"], bytes(obstore.get(self.bucket, each["path"]).bytes())

    def plant(self, key: str, data: bytes) -> None:
        import obstore

        obstore.put(self.bucket, key, data)

    def plant_dead_upload(self, participant: str, batch_id: str, data: bytes) -> None:
        self.plant(f"pending/{participant}/{'0' * 32}", f"{batch_id}\n".encode())


Place = FolderPlace | BucketPlace


@pytest.fixture(params=["folder", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return FolderPlace(tmp_path / "store")
    return BucketPlace(request.getfixturevalue("object_server"))
