"""What is asked of every request before anything is done for it: who sends it, of which kind, how much, unharmed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac

from starlette.requests import Request

from mcilib.errors import ConfigError

BODY_TIMEOUT_S = 120.0
"""For a whole body: a full request of 1 MiB at 9 kB/s. Slower senders get 408."""

_DIGESTS = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


class Refused(Exception):
    """Ends a request with this status and a JSON error."""

    def __init__(self, status: int, error: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.headers = status, error, headers or {}


class Token:
    """A bearer token that requests must carry. Raises `ConfigError` for one that no header can."""

    def __init__(self, token: str, what: str = "token") -> None:
        if not (token and token.isascii() and token.isprintable() and " " not in token):
            raise ConfigError(
                f"The {what} is empty or has spaces or characters that no HTTP header carries",
                "Use a random token of letters and digits, such as `openssl rand -hex 32` gives.",
            )
        self._token = token.encode()

    def check(self, request: Request) -> None:
        """Raises `Refused`."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Always compared, so that the time tells nothing.
        equal = hmac.compare_digest(given.strip().encode("latin-1"), self._token)
        if not (equal and scheme.lower() == "bearer"):
            raise Refused(401, "A valid bearer token is needed", {"WWW-Authenticate": "Bearer"})


def check_kind(request: Request, content_type: str, max_body_bytes: int) -> None:
    """What can be refused before the body has come. Raises `Refused`."""
    headers = request.headers
    if headers.get("content-type", "").partition(";")[0].strip().lower() != content_type:
        raise Refused(415, f"The Content-Type must be {content_type}")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refused(415, "A Content-Encoding is not accepted: batches are compressed already")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_body_bytes:
        raise _too_large(max_body_bytes)


async def read_body(request: Request, max_body_bytes: int, timeout_s: float = BODY_TIMEOUT_S) -> bytes:
    """Raises `Refused`."""
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_body_bytes:
                    raise _too_large(max_body_bytes)
    except TimeoutError:
        raise Refused(408, f"The body took more than {timeout_s:g} s", {"Connection": "close"}) from None
    return bytes(body)


def check_digest(body: bytes, fields: list[str]) -> None:
    """RFC 9530: what is named in an algorithm that we know must be right; the others do not count. Raises
    `Refused`."""
    for member in ",".join(fields).split(","):
        name, _, value = member.partition(";")[0].strip().partition("=")
        if name not in _DIGESTS:
            continue
        try:
            if not (len(value) > 2 and value.startswith(":") and value.endswith(":")):
                raise ValueError(value)
            wanted = base64.b64decode(value[1:-1], validate=True)
        except ValueError:
            raise Refused(400, f"The Content-Digest has no byte sequence for {name}") from None
        if _DIGESTS[name](body).digest() != wanted:
            raise Refused(503, "The body is not what its Content-Digest says: it was damaged on the way")


def _too_large(max_body_bytes: int) -> Refused:
    return Refused(413, f"The body is larger than {max_body_bytes} bytes")
