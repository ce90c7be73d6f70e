"""Runs the receiver in the calling thread until SIGINT or SIGTERM, with uvicorn."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mcilib import limits
from mcilib.errors import ConfigError, StoreError
from mcilib.receiver.folder import FolderStore
from mcilib.receiver.object_store import ObjectStore
from mcilib.receiver.store import BatchStore

if TYPE_CHECKING:
    import uvicorn

GRACE_S = 1
"""For requests under way when the end is asked for; the whole end takes under 2 s."""

KEEP_ALIVE_S = 20
"""An idle connection is kept this long: a sender that drains makes a request every few seconds."""

HEAD_TIMEOUT_S = 20.0
"""A connection that has not sent the whole head of a request by then is closed: a few hundred bytes."""

EXPIRY_LOOK_S = 3_600.0
"""How often it is looked whether a new day has begun, and after how long a store in trouble is tried again."""

CONNECTIONS = 256
"""More at once get 503. Each may hold one body in memory."""

BACKLOG = 512

_log = logging.getLogger("mcilib.receiver")


def serve(
    store: str | os.PathLike[str] | BatchStore,
    *,
    host: str = "127.0.0.1",
    port: int = limits.RECEIVER_PORT,
    token: str | None = None,
    operator_token: str | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    max_body_bytes: int = limits.RECEIVER_MAX_BODY_BYTES,
    device_requests: int = limits.RECEIVER_DEVICE_REQUESTS,
    head_timeout_s: float = HEAD_TIMEOUT_S,
    retention_days: int | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Receives batches into `store` until SIGINT or SIGTERM, then returns within 2 s.

    `store` is a folder, `s3://BUCKET/PREFIX` (see `ObjectStore`) or a store of your own. With `retention_days`
    (1 or more) whole days of receipt that are older are removed, at the start and then daily, in a thread.
    Blocks; call it from the main thread, which gets the two signals while it runs. `port` 0 takes a free one.
    `on_ready` gets the base URL once connections are accepted. Another `host` than loopback needs `token` and
    `tls_cert`; `tls_key` may be left out when the certificate file holds the key too. With an `operator_token`
    requests for exemptions are listed and decided at `/v1/exemptions` (see `create_app`). Prints nothing.

    Raises `ConfigError` (an option, a file of the certificate, a port that is taken, the extra is missing)
    and `StoreError` (the store cannot be written), all before anything listens.
    """
    try:
        import uvicorn

        from mcilib.receiver.app import create_app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("uvicorn", "starlette"):
            raise
        raise ConfigError(
            f"The receiver needs {error.name}, which is not installed", "Run: pip install 'mcilib[receiver]'"
        ) from error

    family, address = _resolve(host, port)
    _check_exposure(host, address, token=token, tls=tls_cert is not None)
    _check_certificate(tls_cert, tls_key)
    if retention_days is not None and not 1 <= retention_days <= limits.RECEIVER_RETENTION_DAYS_CAP:
        raise ConfigError(
            f"Data cannot be kept for {retention_days} days",
            f"Use 1 to {limits.RECEIVER_RETENTION_DAYS_CAP} days.",
        )
    if isinstance(store, str) and "://" in store:
        store = ObjectStore(store, today=_today)
    elif isinstance(store, (str, os.PathLike)):
        store = FolderStore(store, today=_today)
    app = create_app(
        store,
        token=token,
        operator_token=operator_token,
        max_body_bytes=max_body_bytes,
        device_requests=device_requests,
    )
    listener = _listen(family, address, host)
    try:
        scheme = "https" if tls_cert is not None else "http"
        name = f"[{host}]" if ":" in host else host or address[0]
        url = f"{scheme}://{name}:{listener.getsockname()[1]}"

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if on_ready is not None:
                    on_ready(url)

        server = Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=_protocol(head_timeout_s),
                ws="none",
                lifespan="off",
                workers=1,  # else read from the environment
                log_config=None,
                log_level="critical",  # what matters is logged by the application
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
                ssl_certfile=tls_cert,
                ssl_keyfile=tls_key,
            )
        )
        with _expiring(store, retention_days), _ended_by_signals(server):
            server.run(sockets=[listener])
    finally:
        listener.close()


def _today() -> date:
    return datetime.now(UTC).date()


def _protocol(head_timeout_s: float) -> Any:
    """uvicorn's protocol, which waits for ever for a first request and for the rest of a head, with a limit."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        _head: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._head is not None:
                self._head.cancel()

        def _waits(self) -> bool:
            cycle: Any = self.cycle  # None before the first request
            return cycle is None or bool(cycle.response_complete)

        def _watch(self) -> None:
            """The time runs while no request is under way, and does not begin again with each byte."""
            if self._waits() and self._head is None:
                self._head = self.loop.call_later(head_timeout_s, self._give_up)
            elif not self._waits() and self._head is not None:
                self._head.cancel()
                self._head = None

        def _give_up(self) -> None:
            self._head = None
            if self._waits():
                self.transport.close()

    return Protocol


@contextmanager
def _expiring(store: BatchStore, retention_days: int | None) -> Iterator[None]:
    """Carries out the retention in a thread while the block runs."""
    if retention_days is None:
        yield
        return
    end = threading.Event()
    thread = threading.Thread(
        target=_expire_daily, args=(store, retention_days, end), name="mcilib-retention"
    )
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _expire_daily(store: BatchStore, retention_days: int, end: threading.Event) -> None:
    done: date | None = None
    while True:
        today = _today()
        try:
            if today != done:
                for _ in store.expire(today - timedelta(days=retention_days)):
                    if end.is_set():
                        return
                done = today
        except StoreError as error:
            _log.error("Old days could not be removed; tried again in an hour: %s", error)
        except Exception:
            _log.exception("Old days could not be removed; tried again in an hour")
        if end.wait(EXPIRY_LOOK_S):
            return


def _resolve(host: str, port: int) -> tuple[int, Any]:
    """The address to bind; the first one where a name has several."""
    if not 0 <= port <= 65_535:
        raise ConfigError(f"{port} is not a port", "Use 1 to 65535, or 0 for a free one.")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"The address {host!r} to listen on is unknown ({error})", "Use an address of this machine."
        ) from error
    return found[0][0], found[0][4]


def _check_exposure(host: str, address: Any, *, token: str | None, tls: bool) -> None:
    """What others can reach needs a token and TLS, whatever name it goes by."""
    if ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        return
    missing = [what for what, given in (("a token", token is not None), ("TLS", tls)) if not given]
    if missing:
        raise ConfigError(
            f"Listening on {host or 'all addresses'} needs a token and TLS; missing: {' and '.join(missing)}",
            "Give a token and a certificate with its key, or listen on 127.0.0.1.",
        )


def _check_certificate(cert: str | os.PathLike[str] | None, key: str | os.PathLike[str] | None) -> None:
    if cert is None:
        if key is not None:
            raise ConfigError("A TLS key was given without a certificate", "Give the certificate too.")
        return

    def no_password() -> str:  # else OpenSSL asks on the terminal
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=no_password)
    except OSError as error:  # SSLError is one
        files = f"{cert}" if key is None else f"{cert} and {key}"
        raise ConfigError(
            f"The TLS certificate and key cannot be used ({files}): {error.strerror or error}",
            "Give PEM files that this user may read, the key unencrypted and belonging to the certificate.",
        ) from error


def _listen(family: int, address: Any, host: str) -> socket.socket:
    # With the protocol named asyncio sets TCP_NODELAY; without it an answer in two parts takes 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        port = address[1]
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"Port {port} on {host} is taken by another program",
                "Stop that one (another receiver?) or choose another port; 0 takes a free one.",
            ) from error
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {error.strerror}",
            "Use an address of this machine and a port that this user may open (above 1023).",
        ) from error
    return listener


@contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """SIGINT and SIGTERM end the server and nothing else.

    uvicorn raises them again for the handlers it found, which would end the process with `KeyboardInterrupt`
    or by the signal; these here take them, also in the moments before uvicorn listens to them.
    """

    def end(*_: object) -> None:
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
