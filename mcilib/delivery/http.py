"""One attempt over HTTP: `POST {endpoint}/v1/batches`, answered by a receipt for each batch.

The body is the batches' own bytes, one after the other; the answer is
`{"receipts": [{"batch": id, "status": "stored" | "duplicate" | "rejected", "reason": ""}]}`.
Every failure is a `Reply` with one line for people. Neither a token nor a payload is ever in it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcilib import __version__, limits
from mcilib.delivery._answers import (
    NOT_OURS,
    Endpoint,
    health_of,
    outcome_words,
    receipts_of,
    root_of,
    words_of,
)
from mcilib.delivery.retry import outcome_of_error, outcome_of_status, retry_after_s
from mcilib.errors import ConfigError, DeliveryError
from mcilib.protocols import Outcome, Reply, SealedBatch

if TYPE_CHECKING:
    import ssl

    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

BATCHES_TYPE = "application/vnd.mcilib.batches"

_IDLE_S = 60.0
"""A connection unused for this long is not trusted: a NAT that forgot it would cost a whole timeout."""
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")


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

    `endpoint` is `https://host[:port][/path]`, or `http://` on loopback. `token` is sent as a bearer token;
    a callable is asked before each request, so that a token may change while this runs. `ca_file` (PEM)
    replaces the system's certificates. `timeout_s` (seconds, above 0) bounds connecting, each wait for the
    answer, and the answer's body as a whole; looking up the name is the system's affair.

    The constructor raises `DeliveryError` for an address or file that cannot work; afterwards nothing is
    raised. Redirects are not followed. Opens nothing before the first request.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        token: str | Callable[[], str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
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
        self._token = token.strip() if isinstance(token, str) else token
        self._tls = _trusting(ca_file) if ca_file is not None else None
        self._timeout_s = timeout_s
        self._connections: HTTPConnectionPool | None = None
        self._last_used_s = 0.0

    @property
    def endpoint(self) -> str:
        """As given, without a slash at the end."""
        return self._endpoint.url

    def __repr__(self) -> str:
        return f"HttpTransport({self.endpoint!r})"

    def send(self, batches: Sequence[SealedBatch], /) -> Reply:
        """One attempt for all `batches` in one request."""
        body = b"".join(batch.data for batch in batches)
        answer = self._request("POST", "/v1/batches", body)
        outcome, detail = answer.outcome, answer.detail
        receipts = {}
        if outcome is Outcome.DELIVERED:
            receipts = receipts_of(answer.body, [batch.batch_id for batch in batches]) or {}
            if not receipts:
                outcome, detail = Outcome.NOT_OUR_SERVER, NOT_OURS.format(self._endpoint.place)
        return Reply(outcome, receipts, answer.retry_after_s, detail, len(body) if answer.sent else 0)

    def check(self) -> EndpointCheck:
        """Asks `GET {endpoint}/v1/health` who is there and what time it is. Raises nothing."""
        before_ns = time.time_ns()
        answer = self._request("GET", "/v1/health", None)
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

    def _request(self, method: str, path: str, body: bytes | None) -> _Answer:
        headers = {"User-Agent": f"mcilib/{__version__}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = BATCHES_TYPE
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
        except Exception as error:  # whatever the network, TLS or a strange server brings
            from urllib3.exceptions import ConnectTimeoutError, SSLError

            self.close()
            root = root_of(error)
            words = words_of(root, self._endpoint.place, self._timeout_s)
            never_connected = isinstance(error, (ConnectTimeoutError, SSLError))
            return _Answer(outcome_of_error(root), words, sent=not never_connected)
        finally:
            self._last_used_s = time.monotonic()

    def _understand(self, response: BaseHTTPResponse) -> _Answer:
        content = self._read(response)
        outcome = outcome_of_status(response.status)
        if outcome is Outcome.DELIVERED and content is None:
            outcome = Outcome.NOT_OUR_SERVER  # receipts are short
        return _Answer(
            outcome,
            outcome_words(response.status, outcome, self._endpoint.place),
            content,
            retry_after_s(response.headers.get("Retry-After"), response.headers.get("Date"), time.time()),
        )

    def _read(self, response: BaseHTTPResponse) -> bytes | None:
        """The body, or None when it is longer than `RESPONSE_MAX_BYTES` (the connection is then closed)."""
        end_s = time.monotonic() + self._timeout_s
        content = bytearray()
        while len(content) <= limits.RESPONSE_MAX_BYTES:
            if time.monotonic() > end_s:
                raise TimeoutError
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
            import urllib3  # when first used: importing it costs more than all of mcilib

            common: dict[str, Any] = {
                "timeout": urllib3.Timeout(connect=self._timeout_s, read=self._timeout_s),
                "maxsize": 1,
                "retries": False,
            }
            where = (self._endpoint.host, self._endpoint.port)
            if self._endpoint.secure:
                self._tls = self._tls or _trusting(None)
                self._connections = urllib3.HTTPSConnectionPool(*where, ssl_context=self._tls, **common)
            else:
                self._connections = urllib3.HTTPConnectionPool(*where, **common)
        return self._connections


def _trusting(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    """Verifies names and chains, TLS 1.2 or later. Raises `DeliveryError`: no such file, no certificate."""
    import ssl

    if ca_file is None:
        return ssl.create_default_context()
    name = os.fspath(ca_file)
    try:
        context = ssl.create_default_context(cafile=name)
        # From Python 3.13 on a server's own certificate would do as an authority; older ones refuse it.
        context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
        return context
    except ssl.SSLError:
        problem = f"{name} holds no certificate in PEM form"
    except OSError as error:
        problem = f"The file of certificates {name} cannot be read ({error.strerror})"
    raise DeliveryError(
        problem, "Give the file of the authority that signed the receiver's certificate (--ca-file)."
    )
