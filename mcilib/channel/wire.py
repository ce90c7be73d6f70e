"""What goes over the control channel: a challenge, one request, one answer. Pure: bytes in, bytes out.

    client -> agent   greeting, nonce                     who asks tells nothing yet
    agent  -> client  greeting, nonce, proof              the agent knows the secret
    client -> agent   length, tag, request                so does who asks; the tag is over both nonces and the request
    agent  -> client  length, tag, answer                 the tag is over the request's tag too

Both nonces are new in each conversation, so nothing of an earlier one, or of the other direction, is worth anything.
The document is docs/reference/control-channel.md.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

from mcilib import limits
from mcilib.digest import sha256

GREETING = b"mcictl1\n"
SECRET_BYTES = NONCE_BYTES = TAG_BYTES = 32
_LENGTH_BYTES = 4
_HEAD_BYTES = _LENGTH_BYTES + TAG_BYTES
_BLOCK_BYTES = 64

T = TypeVar("T")

_UNPROVEN = "wrong secret, or changed on its way"

_Talk = Generator[tuple[bytes, int], bytes, bytes]
"""Yields what is to be sent and how many bytes are wanted next, is sent those; returns the other side's message."""


class Refused(Exception):
    """Not what this conversation allows. `reason` is of a fixed vocabulary, with nothing of what was sent in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Side:
    """One side of one conversation. One thread at a time; holds no more bytes than `wanted` was."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._talk = self._begin()
        self.first, self.wanted = next(self._talk)
        self.message: bytes | None = None
        """What the other side said, when all of it is here and proven."""

    def _begin(self) -> _Talk:
        raise NotImplementedError

    def receive(self, data: bytes) -> bytes:
        """Takes up to `wanted` bytes, in any pieces; gives what is to be sent now. After a `Refused` it is over."""
        if len(data) > self.wanted:
            raise Refused("more than was asked for")
        self._held += data
        self.wanted -= len(data)
        if self.wanted or not data:
            return b""
        part = bytes(self._held)
        self._held.clear()
        try:
            reply, self.wanted = self._talk.send(part)
        except StopIteration as end:
            self.message = end.value
            return b""
        return reply


class AgentSide(_Side):
    """The agent's. `nonce`: 32 random bytes that were never used before."""

    def __init__(self, secret: bytes, nonce: bytes) -> None:
        self._secret, self._nonce = secret, nonce
        self._key = self._request_tag = b""
        self.greeted = False
        super().__init__()

    def _begin(self) -> _Talk:
        theirs = _nonce((yield b"", len(GREETING) + NONCE_BYTES))
        self.greeted = True
        self._key = _key_of(self._secret, theirs, self._nonce)
        proof = hmac_sha256(self._key, b"agent")
        head = yield GREETING + self._nonce + proof, _HEAD_BYTES
        self._request_tag = head[_LENGTH_BYTES:]
        body = yield b"", _length(head)
        if not _same(self._key, self._request_tag, hmac_sha256(self._key, b"request" + body)):
            raise Refused(_UNPROVEN)
        return body

    def answer(self, body: bytes) -> bytes:
        """The answer to `message`, as it is to be sent."""
        return _packed(hmac_sha256(self._key, b"answer" + self._request_tag + body), body)


class AskingSide(_Side):
    """The side that asks. The request leaves it only after the agent has proven that it knows the secret. `proven`:
    whether it has."""

    def __init__(self, secret: bytes, nonce: bytes, request: bytes) -> None:
        self._secret, self._nonce, self._request = secret, nonce, request
        self.proven = False
        super().__init__()

    def _begin(self) -> _Talk:
        hello = yield GREETING + self._nonce, len(GREETING) + NONCE_BYTES + TAG_BYTES
        theirs, proof = _nonce(hello[:-TAG_BYTES]), hello[-TAG_BYTES:]
        key = _key_of(self._secret, self._nonce, theirs)
        if not _same(key, proof, hmac_sha256(key, b"agent")):
            raise Refused(_UNPROVEN)
        self.proven = True
        tag = hmac_sha256(key, b"request" + self._request)
        head = yield _packed(tag, self._request), _HEAD_BYTES
        body = yield b"", _length(head)
        if not _same(key, head[_LENGTH_BYTES:], hmac_sha256(key, b"answer" + tag + body)):
            raise Refused(_UNPROVEN)
        return body


# --- requests and answers -----------------------------------------------------------------------------------


def encode(value: Mapping[str, Any]) -> bytes:
    """JSON of at most 64 KiB. Raises `Refused`."""
    body = _or_none(lambda: json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii"))
    if body is None:
        raise Refused("not to be written as JSON")
    if len(body) > limits.CHANNEL_MESSAGE_MAX_BYTES:
        raise Refused("larger than 64 KiB")
    return body


def decode(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises `Refused` for anything else, for what is nested deeper than `limits.CHANNEL_DEPTH_MAX`, for
    numbers without end and for text that is none."""
    if _depth(body) > limits.CHANNEL_DEPTH_MAX:  # before it is parsed: the parser is recursive
        raise Refused("nested too deeply")
    value = _or_none(lambda: _parsed(body))
    if not isinstance(value, dict):
        raise Refused("no JSON object")
    return value


def request(name: str, arguments: Mapping[str, Any]) -> bytes:
    return encode({"name": name, "arguments": dict(arguments)})


def read_request(body: bytes) -> tuple[str, dict[str, Any]]:
    """Raises `Refused`."""
    value = decode(body)
    name, arguments = value.get("name"), value.get("arguments")
    if set(value) != {"name", "arguments"} or not isinstance(name, str) or not isinstance(arguments, dict):
        raise Refused("no request")
    return name, arguments


def _parsed(body: bytes) -> object:
    value = json.loads(body.decode("utf-8"), parse_constant=_number, parse_float=_number)
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is no text
    return value


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _or_none(work: Callable[[], T]) -> T | None:
    """What `work` gives, or None where it raised: outside of that error, which would keep what was sent."""
    try:
        return work()
    except (ValueError, TypeError, RecursionError):
        return None


_MARK = re.compile(rb'[\[\]{}"\\]')


def _depth(body: bytes) -> int:
    """How deeply brackets outside of texts are nested."""
    depth = deepest = 0
    in_text, escaped_at = False, -1
    for mark in _MARK.finditer(body):
        what, at = mark[0], mark.start()
        if in_text:
            if at == escaped_at:
                continue
            if what == b"\\":
                escaped_at = at + 1
            elif what == b'"':
                in_text = False
        elif what == b'"':
            in_text = True
        elif what in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif what in b"]}":
            depth -= 1
    return deepest


# --- proofs -------------------------------------------------------------------------------------------------


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104), key of at most 64 bytes. By hand, since `hmac` brings OpenSSL: see `mcilib.digest`."""
    block = key.ljust(_BLOCK_BYTES, b"\0")
    inner = sha256(bytes(byte ^ 0x36 for byte in block) + data)
    return sha256(bytes(byte ^ 0x5C for byte in block) + inner)


def _key_of(secret: bytes, asking: bytes, agent: bytes) -> bytes:
    """The key of this conversation alone."""
    return hmac_sha256(secret, b"mcilib control 1" + asking + agent)


def _same(key: bytes, given: bytes, right: bytes) -> bool:
    """Compared under a key that who guesses does not know, so that the time tells nothing of where they differ."""
    return hmac_sha256(key, given) == hmac_sha256(key, right)


def _nonce(hello: bytes) -> bytes:
    if not hello.startswith(GREETING):
        raise Refused("another protocol")
    return hello[len(GREETING) :]


def _length(head: bytes) -> int:
    length = int.from_bytes(head[:_LENGTH_BYTES], "big")
    if not 0 < length <= limits.CHANNEL_MESSAGE_MAX_BYTES:
        raise Refused("larger than 64 KiB" if length else "empty")
    return length


def _packed(tag: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(_LENGTH_BYTES, "big") + tag + body
