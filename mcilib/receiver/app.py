"""The receiver as an ASGI application: who may send, how much, and what each batch came to.

The statuses and their meaning are `docs/spec/upload-protocol.md`. The disk is touched in a thread pool only.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import mcilib
from mcilib import limits
from mcilib.clock import Clock, SystemClock
from mcilib.delivery.control import PENDING
from mcilib.errors import BatchFormatError, ConfigError, StoreError
from mcilib.format.batch import Header, read_header, split_frames
from mcilib.protocols import Receipt, ReceiptStatus
from mcilib.receiver import control
from mcilib.receiver.exemptions import Asked, ExemptionStore
from mcilib.receiver.incoming import BODY_TIMEOUT_S, Refused, Token, check_digest, check_kind, read_body
from mcilib.receiver.operator import Operator
from mcilib.receiver.rate import DeviceRate
from mcilib.receiver.store import BatchStore, Deletion, Steps

CONTENT_TYPE = "application/vnd.mcilib.batches"
CONTROL_TYPE = "application/json"

BATCHES_PER_REQUEST = limits.RESPONSE_MAX_BYTES // 128
"""More are refused with 413: a receipt takes 78 bytes and a reason, and senders read only so much."""

BATCHES_PER_STEP = 128
"""Stored in one pass of a thread: flushing many at once is quicker, and between two passes a shutdown may come."""

CONTROL_MAX_BODY_BYTES = control.RECORDS_PER_REQUEST * limits.CONTROL_MAX_BYTES
"""Of a request with control records."""

CONTROL_BUDGET_S = limits.REQUEST_TIMEOUT_S / 2
"""A request waits so long for its deletions; then they go on without it, and the sender asks again."""

CONTROL_RETRY_AFTER_S = 10
"""What that sender is asked to wait."""

DELETIONS_KEPT = 100
"""Results of deletions that ended after their request, for the sender that asks again."""

REASONS_MAX_CHARS = 16_384
"""Of all reasons in one answer; later ones are left out, for the same cause."""

ANSWERS_MAX_BYTES = 32 * 1024
"""Of what the operator answers to requests for exemptions, in one answer; later ones are told the next time. The
longest takes 4 kB."""

STORE_RETRY_AFTER_S = 60
"""What a sender is asked to wait when the store cannot be written: a full disk is not mended in seconds."""

LOG_INTERVAL_NS = 60_000_000_000
"""The same trouble is logged once a minute, not once a request."""

_log = logging.getLogger("mcilib.receiver")

_Endpoint = Callable[[Request], Awaitable[Response]]

_Frame: TypeAlias = tuple[Header | str, bytes]
"""Its header, or why it cannot be read."""


def create_app(
    store: BatchStore,
    *,
    token: str | None,
    operator_token: str | None = None,
    max_body_bytes: int = limits.RECEIVER_MAX_BODY_BYTES,
    body_timeout_s: float = BODY_TIMEOUT_S,
    device_requests: int = limits.RECEIVER_DEVICE_REQUESTS,
    clock: Clock | None = None,
) -> Starlette:
    """The application; any ASGI server can run it, any number of them on one store.

    With a `token` (visible ASCII, no spaces) each upload and control record must carry it as a bearer token;
    without one anybody who reaches the port may send them. With an `operator_token`, which must be another one,
    whoever has it sees the requests for exemptions and decides them at `/v1/exemptions`; without one there is no such
    path. `device_requests` is how many requests one device may make at once and again in each minute, of this
    process. A store that is no `ExemptionStore` takes no requests for exemptions. Raises `ConfigError` for an
    unusable token and a number below 1. Starts nothing.
    """
    devices = Token(token) if token is not None else None
    operator = Token(operator_token, "operator token") if operator_token is not None else None
    if operator is not None and operator_token == token:
        raise ConfigError(
            "The operator token is the token of the devices",
            "Make another one: a device must not decide what is asked of its operator.",
        )
    if operator is not None and not isinstance(store, ExemptionStore):
        raise ConfigError("The store keeps no requests for exemptions", "Leave the operator token out.")
    if device_requests < 1:
        raise ConfigError(f"{device_requests} requests of a device are none", "Allow one a minute at least.")
    rate = DeviceRate(device_requests, limits.RECEIVER_DEVICE_WINDOW_S)
    clock = clock or SystemClock()
    receiver = _Receiver(store, devices, max_body_bytes, body_timeout_s, rate, clock)
    routes = [
        Route("/v1/batches", receiver.guarded(receiver.post_batches), methods=["POST"]),
        Route("/v1/control", receiver.guarded(receiver.post_control), methods=["POST"]),
        Route("/v1/health", receiver.guarded(receiver.get_health), methods=["GET"]),
    ]
    if operator is not None and isinstance(store, ExemptionStore):
        decides = Operator(store, operator, clock)
        routes += [
            Route("/v1/exemptions", receiver.guarded(decides.get), methods=["GET"]),
            Route("/v1/exemptions/{id}", receiver.guarded(decides.post), methods=["POST"]),
        ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_error})


class _Receiver:
    def __init__(
        self,
        store: BatchStore,
        token: Token | None,
        max_body_bytes: int,
        body_timeout_s: float,
        rate: DeviceRate,
        clock: Clock,
    ) -> None:
        self._store = store
        self._token = token
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._rate = rate
        self._clock = clock
        self._logged_ns: dict[str, int] = {}
        self._deletions: dict[Deletion, asyncio.Task[int]] = {}

    async def get_health(self, request: Request) -> Response:
        return JSONResponse(
            {"service": "mcilib-receiver", "version": mcilib.__version__, "time_ns": self._clock.wall_ns()}
        )

    async def post_batches(self, request: Request) -> Response:
        self._check_head(request, CONTENT_TYPE, self._max_body_bytes)
        body = await read_body(request, self._max_body_bytes, self._body_timeout_s)
        digests = request.headers.getlist("content-digest")
        try:
            frames = await run_in_threadpool(_frames_of, body, digests)
        except BatchFormatError as error:
            raise Refused(400, f"The body is not a sequence of batches: {error.reason}") from None
        self._check_rate({header.device for header, _ in frames if isinstance(header, Header)})
        receipts: list[Receipt] = []
        for at in range(0, len(frames), BATCHES_PER_STEP):
            receipts += await run_in_threadpool(self._store_some, frames[at : at + BATCHES_PER_STEP])
        return _answer("batch", receipts)

    async def post_control(self, request: Request) -> Response:
        most = min(CONTROL_MAX_BODY_BYTES, self._max_body_bytes)
        self._check_head(request, CONTROL_TYPE, most)
        body = await read_body(request, most, self._body_timeout_s)
        check_digest(body, request.headers.getlist("content-digest"))
        try:
            records = await run_in_threadpool(control.records_of, body)
        except ValueError as error:
            raise Refused(400, f"The body is no request of control records: {error}") from None
        if len(records) > control.RECORDS_PER_REQUEST:
            raise Refused(413, f"More than {control.RECORDS_PER_REQUEST} records in one request")
        self._check_rate({record.device for record in records if record.device})
        until_ns = self._clock.monotonic_ns() + round(CONTROL_BUDGET_S * 1e9)
        receipts = {}
        # Requests last: what is deleted or taken back with them is told at once.
        for at in sorted(range(len(records)), key=lambda at: records[at].exemption is not None):
            receipts[at] = await self._receipt(records[at], until_ns)
        return _answer("record", [receipts[at] for at in range(len(records))])

    async def _receipt(self, record: control.Record, until_ns: int) -> Receipt:
        """Does what a record asks for."""
        exempting = record.exemption is not None or record.taken_back
        if exempting and not isinstance(self._store, ExemptionStore):
            return Receipt(record.record_id, ReceiptStatus.REJECTED, control.UNKNOWN)
        if record.exemption is not None and isinstance(self._store, ExemptionStore):
            asked = Asked(record.participant, record.device, self._clock.wall_ns(), record.exemption)
            return await run_in_threadpool(self._store.ask, asked)
        if record.taken_back and isinstance(self._store, ExemptionStore):
            back = record.participant, record.taken_back, self._clock.wall_ns()
            done = int(await run_in_threadpool(self._store.take_back, *back))
        elif record.deletion is not None:
            done = await self._carry_out(record.deletion, until_ns)
        else:
            return Receipt(record.record_id, ReceiptStatus.REJECTED, record.reason)
        return Receipt(record.record_id, ReceiptStatus.STORED if done else ReceiptStatus.DUPLICATE)

    async def _carry_out(self, deletion: Deletion, until_ns: int) -> int:
        """How much it changed. Where time runs out it goes on; who asks again gets the result."""
        task = self._deletions.get(deletion)
        if task is None:
            if len(self._deletions) >= DELETIONS_KEPT:
                self._deletions = {d: t for d, t in self._deletions.items() if not t.done()}
            task = asyncio.create_task(_run(self._store.delete(deletion)))
            self._deletions[deletion] = task
        left_s = (until_ns - self._clock.monotonic_ns()) / 1e9
        await asyncio.wait({task}, timeout=max(0.0, left_s))
        if not task.done():
            raise Refused(
                503,
                "The deletion takes longer and goes on; ask again",
                {"Retry-After": str(CONTROL_RETRY_AFTER_S)},
            )
        self._deletions.pop(deletion, None)
        return task.result()

    def _check_head(self, request: Request, content_type: str, max_body_bytes: int) -> None:
        """All that can be refused before the body has come."""
        if self._token is not None:
            self._token.check(request)
        check_kind(request, content_type, max_body_bytes)

    def _check_rate(self, devices: Collection[str]) -> None:
        wait_s = self._rate.wait_s(devices, self._clock.monotonic_ns() / 1e9)
        if wait_s > 0:
            raise Refused(
                429,
                "Too many requests of this device; nothing of this one was stored",
                {"Retry-After": str(math.ceil(wait_s))},
            )

    def _store_some(self, frames: list[_Frame]) -> list[Receipt]:
        """Receipts in the order of the frames."""
        stored = iter(self._store.put([(h, data) for h, data in frames if isinstance(h, Header)]))
        return [
            next(stored) if isinstance(header, Header) else Receipt("", ReceiptStatus.REJECTED, header)
            for header, _ in frames
        ]

    def guarded(self, endpoint: _Endpoint) -> _Endpoint:
        """Turns every trouble into a JSON answer that tells a stranger nothing about this machine."""

        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except Refused as refused:
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


def _frames_of(body: bytes, digests: list[str]) -> list[_Frame]:
    """The frames of a body, all of them or none: nothing is stored before the last one is found whole."""
    check_digest(body, digests)
    frames: list[_Frame] = []
    for frame in split_frames(body):
        try:
            frames.append((read_header(frame), frame))
        except BatchFormatError as error:
            frames.append((error.reason, frame))
        if len(frames) > BATCHES_PER_REQUEST:
            raise Refused(413, f"More than {BATCHES_PER_REQUEST} batches in one request")
    if not frames:
        raise BatchFormatError("it is empty")
    return frames


def _answer(name: str, receipts: list[Receipt]) -> Response:
    answer = []
    reasons_chars = answers_bytes = 0
    for receipt in receipts:
        reasons_chars += len(receipt.reason)
        reason = receipt.reason if reasons_chars <= REASONS_MAX_CHARS else ""
        told = {name: receipt.batch_id, "status": receipt.status.value, "reason": reason}
        if receipt.decision:
            answers_bytes += len(json.dumps(receipt.answer, ensure_ascii=False).encode())
            if answers_bytes > ANSWERS_MAX_BYTES:  # its device asks again, and gets it then
                receipt = replace(receipt, decision=PENDING, decided_ns=None, answer="")
            told |= {name: getattr(receipt, name) for name in ("decision", "decided_ns", "answer")}
        answer.append(told)
    return JSONResponse({"receipts": answer})


async def _run(steps: Steps) -> int:
    """Works in the pool, one step after the other."""
    while True:
        ended, result = await run_in_threadpool(_step, steps)
        if ended:
            return result


def _step(steps: Steps) -> tuple[bool, int]:
    try:
        next(steps)
    except StopIteration as end:
        return True, end.value
    return False, 0


async def _http_error(request: Request, error: Exception) -> Response:
    """404 and 405 as JSON."""
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
