"""What the operator is asked for and decides, over HTTP: `/v1/exemptions` of `docs/spec/upload-protocol.md`.

Guarded by a token of its own: who decides sends no data, and no device decides.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mcilib import limits
from mcilib.clock import Clock
from mcilib.consent.exemption import ExemptionState
from mcilib.delivery.control import is_id
from mcilib.errors import ConfigError
from mcilib.receiver.exemptions import Asked, ExemptionStore
from mcilib.receiver.incoming import Refused, Token, check_kind, read_body

PAGE, PAGE_CAP = 100, 1_000
"""Requests in one answer, unless another number is asked for, and at most: each takes 500 bytes, at worst 20 kB."""

_LOOKS = 5_000
"""Requests read for one answer at most, where few have the state that is asked for: about a second on a disk."""


class Operator:
    """The endpoints on one store. Any number of receivers may share it."""

    def __init__(self, store: ExemptionStore, token: Token, clock: Clock) -> None:
        self._store, self._token, self._clock = store, token, clock

    async def get(self, request: Request) -> Response:
        """`?state=` one of the states, `?limit=` how many, `?after=` the id where the page before ended."""
        self._token.check(request)
        state = request.query_params.get("state")
        limit = request.query_params.get("limit", str(PAGE))
        after = request.query_params.get("after", "")
        if state is not None and state not in [known.value for known in ExemptionState]:
            raise Refused(400, f"A state is one of {', '.join(known.value for known in ExemptionState)}")
        if not (limit.isascii() and limit.isdecimal() and len(limit) <= 9 and 1 <= int(limit) <= PAGE_CAP):
            raise Refused(400, f"A limit is 1 to {PAGE_CAP}")
        if after and not is_id(after):
            raise Refused(400, "After is an id of 32 hex digits")
        found, ended_at = await run_in_threadpool(self._page, state, int(limit), after)
        return JSONResponse({"exemptions": [asked.to_json() for asked in found], "next": ended_at})

    def _page(self, state: str | None, limit: int, after: str) -> tuple[list[Asked], str | None]:
        now_ns = self._clock.wall_ns()
        found: list[Asked] = []
        looked_at = 0
        for asked in islice(self._store.asked(after), _LOOKS + 1):
            if len(found) >= limit or looked_at >= _LOOKS:
                return found, after
            looked_at, after = looked_at + 1, asked.exemption.exemption_id
            now = asked.at(now_ns)
            if state is None or now.exemption.state.value == state:
                found.append(now)
        return found, None

    async def post(self, request: Request) -> Response:
        """`{"decision": "approved" or "denied", "note": ""}`."""
        self._token.check(request)
        exemption_id = request.path_params["id"]
        check_kind(request, "application/json", limits.CONTROL_MAX_BYTES)
        wish = _wish(await read_body(request, limits.CONTROL_MAX_BYTES))
        if not is_id(exemption_id):
            raise Refused(404, "There is no request with this id")
        now_ns = self._clock.wall_ns()
        try:
            decided = await run_in_threadpool(self._store.decide, exemption_id, *wish, now_ns)
        except ConfigError as error:
            raise Refused(400, str(error)) from None
        if decided.asked is None:
            raise Refused(404, "There is no request with this id")
        if decided.refused:
            raise Refused(409, f"It is not decided: {decided.refused}")
        return JSONResponse(decided.asked.at(now_ns).to_json())


def _wish(body: bytes) -> tuple[ExemptionState, str]:
    try:
        content: Any = json.loads(body)
        decision, note = ExemptionState(content["decision"]), content.get("note", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused(400, 'The body must be {"decision": "approved" or "denied", "note": "..."}') from None
    if not isinstance(note, str):
        raise Refused(400, "The note must be text")
    return decision, note
