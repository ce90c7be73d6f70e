"""A real nginx of a test's own: one folder, one configuration, gone when its block ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

_AROUND = """
user root;
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log error;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {http}
}}
"""


class Nginx:
    """`http` is what stands in the `http { }` block; paths in it are relative to `folder`. `port` is one of its own,
    on which it is known to answer before the block is entered."""

    def __init__(self, folder: Path, http: str, port: int) -> None:
        self.folder, self._port = folder, port
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(http)
        self._process: subprocess.Popen[bytes] | None = None

    def _write(self, http: str) -> None:
        (self.folder / "nginx.conf").write_text(_AROUND.format(http=http))

    def __enter__(self) -> Nginx:
        with (self.folder / "stderr.log").open("wb") as told:
            self._process = subprocess.Popen(
                ["nginx", "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"], stderr=told
            )
        deadline_s = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    self.__exit__(None, None, None)
                    raise RuntimeError(f"nginx does not start: {self.errors()}") from None
                time.sleep(0.005)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(10)

    def reload(self, http: str) -> None:
        """New requests are answered by this configuration, soon; idle connections are closed."""
        assert self._process is not None
        self._write(http)
        self._process.send_signal(signal.SIGHUP)

    def errors(self) -> str:
        return "".join(
            (self.folder / name).read_text(errors="replace")
            for name in ("stderr.log", "error.log")
            if (self.folder / name).exists()
        )
