"""The receiver as an ASGI application: who may send, how much, and what each batch came to.

The statuses and their meaning are `docs/spec/upload-protocol.md`. The disk is touched in a thread pool only.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import mcilib
from mcilib import limits
from mcilib.clock import Clock, SystemClock
from mcilib.errors import BatchFormatError, ConfigError, StoreError
from mcilib.format.batch import read_header, split_frames
from mcilib.protocols import Receipt, ReceiptStatus
from mcilib.receiver.store import BatchStore

CONTENT_TYPE = "application/vnd.mcilib.batches"

BODY_TIMEOUT_S = 120.0
"""For a whole body: a full request of 1 MiB at 9 kB/s. Slower senders get 408."""

BATCHES_PER_REQUEST = limits.RESPONSE_MAX_BYTES // 128
"""More are refused with 413: a receipt takes 78 bytes and a reason, and senders read only so much."""

REASONS_MAX_CHARS = 16_384
"""Of all reasons in one answer; later ones are left out, for the same cause."""

STORE_RETRY_AFTER_S = 60
"""What a sender is asked to wait when the store cannot be written: a full disk is not mended in seconds."""

LOG_INTERVAL_NS = 60_000_000_000
"""The same trouble is logged once a minute, not once a request."""

_log = logging.getLogger("mcilib.receiver")

_Endpoint = Callable[[Request], Awaitable[Response]]


class _Refused(Exception):
    """Ends a request with this status and a JSON error."""

    def __init__(self, status: int, error: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.headers = status, error, headers or {}


def create_app(
    store: BatchStore,
    *,
    token: str | None,
    max_body_bytes: int = limits.RECEIVER_MAX_BODY_BYTES,
    body_timeout_s: float = BODY_TIMEOUT_S,
    clock: Clock | None = None,
) -> Starlette:
    """The application; any ASGI server can run it, any number of them on one store.

    With a `token` (visible ASCII, no spaces) each upload must carry it as a bearer token; without one anybody
    who reaches the port may upload. Raises `ConfigError` for an unusable token. Starts nothing.
    """
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(
            "The token is empty or has spaces or characters that no HTTP header carries",
            "Use a random token of letters and digits, such as `openssl rand -hex 32` gives.",
        )
    receiver = _Receiver(store, token, max_body_bytes, body_timeout_s, clock or SystemClock())
    return Starlette(
        routes=[
            Route("/v1/batches", receiver.guarded(receiver.post_batches), methods=["POST"]),
            Route("/v1/health", receiver.guarded(receiver.get_health), methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_error},
    )


class _Receiver:
    def __init__(
        self, store: BatchStore, token: str | None, max_body_bytes: int, body_timeout_s: float, clock: Clock
    ) -> None:
        self._store = store
        self._token = token.encode() if token is not None else None
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._clock = clock
        self._logged_ns: dict[str, int] = {}

    async def get_health(self, request: Request) -> Response:
        return JSONResponse(
            {"service": "mcilib-receiver", "version": mcilib.__version__, "time_ns": self._clock.wall_ns()}
        )

    async def post_batches(self, request: Request) -> Response:
        self._check_head(request)
        body = await self._read_body(request)
        try:
            frames = await run_in_threadpool(_split, body)
        except BatchFormatError as error:
            raise _Refused(400, f"The body is not a sequence of batches: {error.reason}") from None
        receipts = []
        reasons_chars = 0
        for frame in frames:  # one hop to the pool for each, so that a shutdown may come between two
            receipt = await run_in_threadpool(self._store_one, frame)
            reasons_chars += len(receipt.reason)
            reason = receipt.reason if reasons_chars <= REASONS_MAX_CHARS else ""
            receipts.append({"batch": receipt.batch_id, "status": receipt.status.value, "reason": reason})
        return JSONResponse({"receipts": receipts})

    def _check_head(self, request: Request) -> None:
        """All that can be refused before the body has come."""
        headers = request.headers
        if self._token is not None:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # Always compared, so that the time tells nothing.
            equal = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
            if not (equal and scheme.lower() == "bearer"):
                raise _Refused(401, "A valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
        if headers.get("content-type", "").partition(";")[0].strip().lower() != CONTENT_TYPE:
            raise _Refused(415, f"The Content-Type must be {CONTENT_TYPE}")
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise _Refused(415, "A Content-Encoding is not accepted: batches are compressed already")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_body_bytes:
            raise self._too_large()

    async def _read_body(self, request: Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._max_body_bytes:
                        raise self._too_large()
        except TimeoutError:
            raise _Refused(
                408, f"The body took more than {self._body_timeout_s:g} s", {"Connection": "close"}
            ) from None
        return bytes(body)

    def _too_large(self) -> _Refused:
        return _Refused(413, f"The body is larger than {self._max_body_bytes} bytes")

    def _store_one(self, frame: bytes) -> Receipt:
        try:
            header = read_header(frame)
        except BatchFormatError as error:
            return Receipt("", ReceiptStatus.REJECTED, error.reason)
        return self._store.put(header, frame)

    def guarded(self, endpoint: _Endpoint) -> _Endpoint:
        """Turns every trouble into a JSON answer that tells a stranger nothing about this machine."""

        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except _Refused as refused:
                headers = dict(refused.headers)
                if "expect" in request.headers:
                    # The body may never come: what follows on this connection cannot be told from it.
                    headers["Connection"] = "close"
                return JSONResponse({"error": refused.error}, refused.status, headers)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody reads it
            except StoreError as error:
                self._log_once("store", "%s", error)
                return JSONResponse(
                    {"error": "The store cannot be written now; keep the batches and try again"},
                    503,
                    {"Retry-After": str(STORE_RETRY_AFTER_S)},
                )
            except HTTPException:
                raise
            except Exception as error:
                self._log_once(type(error).__name__, "A request failed unexpectedly", exc_info=True)
                return JSONResponse({"error": "The receiver failed; keep the batches and try again"}, 500)

        return answer

    def _log_once(self, what: str, message: str, *args: object, exc_info: bool = False) -> None:
        now_ns = self._clock.monotonic_ns()
        last_ns = self._logged_ns.get(what)
        if last_ns is None or now_ns - last_ns >= LOG_INTERVAL_NS:
            self._logged_ns[what] = now_ns
            _log.error(message, *args, exc_info=exc_info)


def _split(body: bytes) -> list[bytes]:
    """The frames of a body, all of them or none: nothing is stored before the last one is found whole."""
    frames = []
    for frame in split_frames(body):
        frames.append(frame)
        if len(frames) > BATCHES_PER_REQUEST:
            raise _Refused(413, f"More than {BATCHES_PER_REQUEST} batches in one request")
    if not frames:
        raise BatchFormatError("it is empty")
    return frames


async def _http_error(request: Request, error: Exception) -> Response:
    """404 and 405 as JSON."""
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
