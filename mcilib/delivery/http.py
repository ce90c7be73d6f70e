"""One attempt over HTTP: `POST {endpoint}/v1/batches` or `/v1/control`, answered by a receipt for each.

What goes over the wire is in docs/spec/upload-protocol.md.
Every failure is a `Reply` with one line for people. Neither a token nor a payload is ever in it.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mcilib import __version__, limits
from mcilib.delivery._answers import (
    NOT_OURS,
    Endpoint,
    health_of,
    is_loopback,
    outcome_words,
    receipts_of,
    root_of,
    words_of,
)
from mcilib.delivery.retry import outcome_of_error, outcome_of_status, retry_after_s
from mcilib.errors import ConfigError, DeliveryError
from mcilib.protocols import ControlRecord, Outcome, Reply, SealedBatch

if TYPE_CHECKING:
    import ssl

    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

    from mcilib.delivery._connection import Proxy

BATCHES_TYPE = "application/vnd.mcilib.batches"
CONTROL_TYPE = "application/json"

_IDLE_S = 60.0
"""A connection unused for this long is not trusted: a NAT that forgot it would cost a whole timeout."""
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
_TOKEN_FILE_BYTES = 16 * 1024
_CERTIFICATE_PAGE = re.compile(rb"No required SSL certificate was sent|The SSL certificate error")
"""What nginx says."""


@dataclass(frozen=True, slots=True)
class EndpointCheck:
    """What `HttpTransport.check` found. DELIVERED means: an mcilib receiver answered."""

    outcome: Outcome
    detail: str
    """One line for people."""
    clock_offset_s: float | None = None
    """How far the receiver's clock is ahead of this one's, to about half the round trip; None = not told."""
    version: str = ""
    """Of the receiver's mcilib."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one request came to before its body is understood. `body` is None when it was too long."""

    outcome: Outcome
    detail: str
    body: bytes | None = b""
    retry_after_s: float = 0.0
    sent: bool = True


class HttpTransport:
    """Implements `mcilib.protocols.Transport`. Used by one thread at a time; keeps one connection.

    `endpoint` is `https://host[:port][/path]`, or `http://` on loopback. `token` is sent as a bearer token; a
    callable is asked, or the first line of `token_file` read, before each request, so that a token may change while
    this runs. `ca_file` (PEM) replaces the system's certificates; `truststore` takes them from where Windows and
    macOS keep them (needs the extra of that name). `client_cert` (PEM; `client_key` if the key is not in the same
    file, without a password) shows the receiver who this device is. `proxy` (`http://[user:password@]host:port`)
    tunnels https; None means by HTTPS_PROXY and NO_PROXY, "" means none. `timeout_s` (seconds, above 0) bounds
    connecting (to each address of the name), sending, and the answer as a whole, each; looking up the name is the
    system's affair.

    The constructor raises `DeliveryError` for an address or file that cannot work, `ConfigError` for options that
    contradict each other; afterwards nothing is raised. Redirects are not followed. Opens nothing before the first
    request.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        token: str | Callable[[], str] | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        truststore: bool = False,
        client_cert: str | os.PathLike[str] | None = None,
        client_key: str | os.PathLike[str] | None = None,
        proxy: str | None = None,
        timeout_s: float = limits.REQUEST_TIMEOUT_S,
    ) -> None:
        if not timeout_s > 0:
            raise ConfigError(f"timeout_s is {timeout_s}", "Give a number of seconds above 0.")
        self._endpoint = Endpoint.parse(endpoint)
        if isinstance(token, str) and not _TOKEN.fullmatch(token.strip()):
            raise DeliveryError(
                "The token is empty or has characters that a token cannot have",
                "Is it the right file or variable?",
            )
        if token_file is not None:
            if token is not None:
                raise ConfigError("token and token_file are both given", "Choose one.")
            token = partial(_token_of, token_file)
            _checked(token, token_file)
        self._token = token.strip() if isinstance(token, str) else token
        own = {"truststore": truststore, "client_cert": client_cert, "client_key": client_key}
        if not self._endpoint.secure:
            for name, given in {**own, "proxy": proxy}.items():
                if given:
                    raise ConfigError(f"{name} is for an https endpoint", "Leave it out.")
        self._trust = partial(_trusting, ca_file, **own)
        # What may be wrong with files is told now; the system's own certificates are read when first used.
        self._tls = self._trust() if ca_file is not None or any(own.values()) else None
        self._proxy_given = proxy is not None
        self._proxy = _proxy_of(proxy) if proxy else None
        self._timeout_s = timeout_s
        self._connections: HTTPConnectionPool | None = None
        self._used_proxy: Proxy | None = None
        self._last_used_s = 0.0

    @property
    def endpoint(self) -> str:
        """As given, without a slash at the end."""
        return self._endpoint.url

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine."""
        return is_loopback(self._endpoint.host)

    def __repr__(self) -> str:
        return f"HttpTransport({self.endpoint!r})"

    def send(self, batches: Sequence[SealedBatch], /) -> Reply:
        """One attempt for all `batches` in one request."""
        body = b"".join(batch.data for batch in batches)
        ids = [batch.batch_id for batch in batches]
        return self._post("/v1/batches", BATCHES_TYPE, body, ids, "batch")

    def send_control(self, records: Sequence[ControlRecord], /) -> Reply:
        """As `send`; each record as it lies on disk."""
        body = b'{"records":[' + b",".join(record.data for record in records) + b"]}"
        ids = [record.record_id for record in records]
        return self._post("/v1/control", CONTROL_TYPE, body, ids, "record")

    def _post(self, path: str, kind: str, body: bytes, ids: Sequence[str], member: str) -> Reply:
        from hashlib import sha256  # OpenSSL's, which is here for TLS anyway

        digest = base64.b64encode(sha256(body).digest()).decode()
        headers = {
            "Content-Type": kind,
            "Content-Digest": f"sha-256=:{digest}:",
            "Idempotency-Key": sha256("".join(ids).encode()).hexdigest()[:32],
        }
        answer = self._request("POST", path, body, headers)
        outcome, detail = answer.outcome, answer.detail
        receipts = {}
        if outcome is Outcome.DELIVERED:
            receipts = receipts_of(answer.body, ids, member) or {}
            if not receipts:
                outcome, detail = Outcome.NOT_OUR_SERVER, NOT_OURS.format(self._endpoint.place)
        return Reply(outcome, receipts, answer.retry_after_s, detail, len(body) if answer.sent else 0)

    def check(self) -> EndpointCheck:
        """Asks `GET {endpoint}/v1/health` who is there and what time it is. Raises nothing."""
        before_ns = time.time_ns()
        answer = self._request("GET", "/v1/health", None, {})
        middle_ns = (before_ns + time.time_ns()) // 2
        if answer.outcome is not Outcome.DELIVERED:
            return EndpointCheck(answer.outcome, answer.detail)
        health = health_of(answer.body)
        if health is None:
            return EndpointCheck(Outcome.NOT_OUR_SERVER, NOT_OURS.format(self._endpoint.place))
        version, time_ns = health
        offset_s = None if time_ns is None else (time_ns - middle_ns) / 1e9
        return EndpointCheck(
            Outcome.DELIVERED, f"mcilib receiver {version} at {self._endpoint.place}", offset_s, version
        )

    def close(self) -> None:
        """Ends the connection. May be called twice; a later request opens a new one."""
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()

    # --- one request ----------------------------------------------------------------------------------------

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> _Answer:
        headers |= {"User-Agent": f"mcilib/{__version__}", "Accept": "application/json"}
        try:
            token = self._token().strip() if callable(self._token) else self._token
            if token is not None and not _TOKEN.fullmatch(token):
                raise ValueError
        except Exception as error:  # the host's own code
            return _Answer(Outcome.REFUSED, f"the token cannot be read ({type(error).__name__})", sent=False)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            response = self._pool().urlopen(
                method,
                self._endpoint.path + path,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                return self._understand(response)
            except BaseException:
                response.close()
                raise
        except ConfigError as error:  # the environment's proxy
            return _Answer(Outcome.REFUSED, error.problem, sent=False)
        except Exception as error:  # whatever the network, TLS or a strange server brings
            self.close()
            return self._failed(error)
        finally:
            self._last_used_s = time.monotonic()

    def _failed(self, error: Exception) -> _Answer:
        from urllib3.exceptions import ConnectTimeoutError, ProxyError, SSLError

        from mcilib.delivery._connection import alert_about_our_certificate, status_of_proxy

        root, place, outcome = root_of(error), self._endpoint.place, Outcome.RETRY
        proxy, status = self._used_proxy, status_of_proxy(root)
        never_connected = isinstance(error, (ConnectTimeoutError, SSLError, ProxyError)) or status is not None
        if proxy is not None and status is not None:
            # Nothing that a proxy says is about the batches.
            if outcome_of_status(status) is Outcome.REFUSED:
                outcome = Outcome.REFUSED
            words = f"{proxy.place} makes no way to {place} ({status})"
            if status == 407:
                words = f"{place} is behind {proxy.place}, which asks for credentials (407)"
        else:
            outcome = Outcome.REFUSED if alert_about_our_certificate(root) else outcome_of_error(root)
            through = proxy is not None and isinstance(error, ProxyError)
            words = words_of(root, proxy.place if proxy is not None and through else place, self._timeout_s)
        return _Answer(outcome, words, sent=not never_connected)

    def _understand(self, response: BaseHTTPResponse) -> _Answer:
        content = self._read(response)
        outcome = outcome_of_status(response.status)
        if outcome is Outcome.DELIVERED and content is None:
            outcome = Outcome.NOT_OUR_SERVER  # receipts are short
        words = outcome_words(response.status, outcome, self._endpoint.place)
        if response.status == 400 and _CERTIFICATE_PAGE.search(content or b""):
            # It is not about the batches.
            outcome = Outcome.REFUSED
            words = f"{self._endpoint.place} asks for a client certificate that it trusts (400)"
        return _Answer(
            outcome,
            words,
            content,
            retry_after_s(response.headers.get("Retry-After"), response.headers.get("Date"), time.time()),
        )

    def _read(self, response: BaseHTTPResponse) -> bytes | None:
        """The body, or None when it is longer than `RESPONSE_MAX_BYTES` (the connection is then closed)."""
        content = bytearray()
        while len(content) <= limits.RESPONSE_MAX_BYTES:
            piece = response.read1(limits.RESPONSE_MAX_BYTES + 1 - len(content), decode_content=False)
            if not piece:
                return bytes(content)
            content += piece
        response.close()
        return None

    def _pool(self) -> HTTPConnectionPool:
        if time.monotonic() - self._last_used_s > _IDLE_S:
            self.close()
        if self._connections is None:
            from mcilib.delivery._connection import open_pool, proxy_of_environment

            self._used_proxy = self._proxy if self._proxy_given else proxy_of_environment(self._endpoint)
            if self._endpoint.secure:
                self._tls = self._tls or self._trust()
            self._connections = open_pool(self._endpoint, self._tls, self._timeout_s, self._used_proxy)
        return self._connections


def _trusting(ca_file: str | os.PathLike[str] | None, **options: Any) -> ssl.SSLContext:
    from mcilib.delivery._connection import trusting  # imports ssl

    return trusting(ca_file, **options)


def _proxy_of(text: str) -> Proxy:
    from mcilib.delivery._connection import Proxy

    return Proxy.parse(text)


def _token_of(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        first = file.read(_TOKEN_FILE_BYTES).strip().partition(b"\n")[0]
    return first.decode("ascii").strip()


def _checked(token: Callable[[], str], path: str | os.PathLike[str]) -> None:
    """Raises `DeliveryError` for a file that holds no token now."""
    name = os.fspath(path)
    problem = f"The first line of {name} is no token"
    try:
        if _TOKEN.fullmatch(token()):
            return
    except OSError as error:
        problem = f"The token in {name} cannot be read ({error.strerror})"
    except ValueError:  # other characters than ASCII
        pass
    raise DeliveryError(problem, "Give a file with the token in its first line.")
