"""The conversation as bytes: what is proven, what is refused, how little any bytes can cost."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcilib import limits
from mcilib.channel import wire
from mcilib.channel.wire import AgentSide, AskingSide, Refused

SECRET = bytes(range(32))
REQUEST = wire.request("pause", {"duration_s": 60})


def fresh() -> tuple[AskingSide, AgentSide]:
    return AskingSide(SECRET, os.urandom(32), REQUEST), AgentSide(SECRET, os.urandom(32))


def converse(asking: AskingSide, agent: AgentSide, piece: int = 10**6) -> tuple[bytes, bytes]:
    """All that each side said; the agent answers with what it was asked."""
    up, down, sent_up, sent_down = asking.first, agent.first, b"", b""
    while up or down:
        sent_up, sent_down = sent_up + up, sent_down + down
        down = carried(agent, up, piece)
        if agent.message is not None and not down:
            down = agent.answer(agent.message)
        sent_down += down
        up, down = carried(asking, down, piece), b""
    return sent_up, sent_down


def carried(side: AskingSide | AgentSide, data: bytes, piece: int) -> bytes:
    """What a side says to `data`, which it reads as it wants it and in small pieces."""
    reply, place = b"", 0
    while place < len(data) and side.wanted:
        part = data[place : place + min(piece, side.wanted)]
        place += len(part)
        reply += side.receive(part)
    assert side.message is not None or place == len(data)
    return reply


# --- a conversation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 10**6])
def test_a_request_and_its_answer_come_through_in_any_pieces(piece):
    asking, agent = fresh()
    converse(asking, agent, piece)
    assert agent.message == asking.message == REQUEST
    assert wire.read_request(REQUEST) == ("pause", {"duration_s": 60})


def test_nothing_of_the_request_is_said_before_the_agent_has_proven_itself():
    asking, _ = fresh()
    impostor = AgentSide(bytes(32), os.urandom(32))
    hello = impostor.receive(asking.first)
    assert asking.first == wire.GREETING + asking.first[8:]
    assert len(asking.first) == 40
    with pytest.raises(Refused, match="wrong secret"):
        asking.receive(hello)
    assert asking.message is None
    assert not asking.proven


def test_each_byte_of_either_side_that_is_changed_is_noticed():
    asking, agent = fresh()
    up, down = converse(asking, agent)
    for place in range(len(up) + len(down)):
        asking, agent = fresh()
        done = False
        try:
            hello = bytearray(asking.first)
            if place < 40:
                hello[place] ^= 1
            back = bytearray(agent.receive(bytes(hello)))
            if len(up) <= place < len(up) + 72:
                back[place - len(up)] ^= 1
            request = bytearray(asking.receive(bytes(back)))
            if 40 <= place < len(up):
                request[place - 40] ^= 1
            carried(agent, bytes(request), 10**6)
            if agent.message is None:
                continue  # its length was made longer: it waits for what never comes
            answer = bytearray(agent.answer(agent.message))
            if place >= len(up) + 72:
                answer[place - len(up) - 72] ^= 1
            carried(asking, bytes(answer), 10**6)
            done = asking.message is not None
        except Refused:
            continue
        assert not done, f"byte {place} was changed and nobody noticed"


def test_a_recording_is_worth_nothing_to_another_agent_or_client():
    asking, agent = fresh()
    up, down = converse(asking, agent)
    later = AgentSide(SECRET, os.urandom(32))
    with pytest.raises(Refused, match="wrong secret"):
        carried(later, up, 10**6)
    again = AskingSide(SECRET, os.urandom(32), REQUEST)
    with pytest.raises(Refused, match="wrong secret"):
        carried(again, down, 10**6)


def test_what_one_side_said_is_no_answer_to_it():
    """A reflection: the agent's proof, or the request itself, sent back."""
    asking, agent = fresh()
    request = asking.receive(agent.receive(asking.first))
    with pytest.raises(Refused, match="wrong secret"):
        carried(asking, request, 10**6)


def test_an_answer_belongs_to_its_request():
    asking, agent = fresh()
    other_request = wire.request("resume", {})
    nonce = asking.first[8:]
    other = AskingSide(SECRET, nonce, other_request)
    hello = agent.receive(asking.first)
    asking.receive(hello)
    carried(agent, other.receive(hello), 10**6)  # the same conversation, but for another request
    assert agent.message == other_request
    with pytest.raises(Refused, match="wrong secret"):
        carried(asking, agent.answer(b"{}"), 10**6)


@pytest.mark.parametrize("length", [0, limits.CHANNEL_MESSAGE_MAX_BYTES + 1, 2**31, 2**32 - 1])
def test_a_length_that_is_none_is_refused_before_anything_is_read(length):
    _, agent = fresh()
    agent.receive(wire.GREETING + bytes(32))
    tracemalloc.start()
    with pytest.raises(Refused, match=r"empty|larger than 64 KiB"):
        agent.receive(length.to_bytes(4, "big") + bytes(32))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100_000


def test_another_protocol_is_refused_in_its_first_bytes():
    _, agent = fresh()
    with pytest.raises(Refused, match="another protocol"):
        agent.receive(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".ljust(40))


# --- JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"", b"x", b"[]", b"1", b"null", b'"text"', b"{", b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e999}',
        b'{"a":"\\ud800"}', b'{"\\udc00":1}', b'\xff{"a":1}', b'{"a":"\xff"}', b'{"a":' + b"9" * 60_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_json_object_of_plain_values_is_refused(body):
    with pytest.raises(Refused) as caught:
        wire.decode(body)
    assert caught.value.__context__ is None, "the error of the parser holds what was sent"


@pytest.mark.parametrize("more", [b"[", b'{"a":', b'{"[":['])
def test_deep_json_is_refused_before_it_is_parsed(more):
    for body in (b'{"a":' + more * 10_000, b'{"a":' + b"[" * 17 + b"]" * 17 + b"}"):
        with pytest.raises(Refused, match="too deeply"):
            wire.decode(body)


def test_brackets_in_a_text_are_no_nesting():
    value = {"note": '[[[[{{{{"\\"[[\\' * 100, "more": ["\\", "[" * 500, '"']}
    assert wire.decode(wire.encode(value)) == value
    assert wire.decode(json.dumps(value, ensure_ascii=False).encode()) == value


def test_texts_of_all_languages_come_through():
    value = {"note": "naïve 日本語 \U0001f512 \x00 \u2028"}
    assert wire.decode(wire.encode(value)) == value


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}, {"a": b"bytes"}])
def test_what_json_cannot_say_is_not_sent(value):
    with pytest.raises(Refused, match="JSON"):
        wire.encode(value)


def test_64_kib_fit_and_one_byte_more_does_not():
    room = limits.CHANNEL_MESSAGE_MAX_BYTES - len(b'{"a":""}')
    assert len(wire.encode({"a": "x" * room})) == limits.CHANNEL_MESSAGE_MAX_BYTES == 65_536
    with pytest.raises(Refused, match="64 KiB"):
        wire.encode({"a": "x" * (room + 1)})


@pytest.mark.parametrize(
    "body",
    [
        b"{}", b'{"name":"pause"}', b'{"name":1,"arguments":{}}', b'{"name":"pause","arguments":[]}',
        b'{"name":"pause","arguments":{},"more":1}',
    ],
)  # fmt: skip
def test_an_object_that_is_no_request_is_refused(body):
    with pytest.raises(Refused, match="no request"):
        wire.read_request(body)


# --- any bytes ----------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.booleans(), st.booleans())
@example(wire.GREETING + bytes(32) + b"\xff" * 36, False, True)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_clearly_and_held_only_as_far_as_wanted(data, as_agent, after_greeting):
    asking, agent = fresh()
    side = asking if as_agent else agent
    if after_greeting:
        data = (agent.receive(asking.first) if as_agent else wire.GREETING + bytes(32)) + data
    place = 0
    try:
        while place < len(data) and side.wanted:
            part = data[place : place + side.wanted]
            place += len(part)
            side.receive(part)
            assert len(side._held) <= 65_536 + 36
            assert side.wanted <= 65_536
    except Refused as refused:
        assert refused.reason in REASONS  # noqa: PT017
    assert side.message is None
    with pytest.raises(Refused):
        side.receive(bytes(side.wanted + 1))


REASONS = {"another protocol", "empty", "larger than 64 KiB", "wrong secret, or changed on its way"}


@given(st.binary(max_size=2_000))
@settings(max_examples=500, deadline=None)
def test_any_body_is_an_object_or_refused(body):
    try:
        value = wire.decode(body)
    except Refused:
        return
    assert wire.decode(wire.encode(value)) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), JSON, max_size=4))
@settings(max_examples=200, deadline=None)
def test_what_can_be_said_is_understood(value):
    assert wire.decode(wire.encode(value)) == value


def test_any_message_takes_little_memory():
    worst = [
        b'{"a":"' + b'\\"' * 32_000 + b'"}',
        b"[" * 65_000,
        b'"' * 65_000,
        b'{"a":[' + b"0," * 32_000 + b"0]}",
    ]
    for body in worst:
        tracemalloc.start()
        with contextlib.suppress(Refused):
            wire.decode(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 4_000_000, body[:10]


# --- HMAC ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "data", "tag"),
    [  # RFC 4231, test cases 1 to 4
        ("0b" * 20, b"Hi There".hex(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe".hex(), b"what do ya want for nothing?".hex(), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ("aa" * 20, "dd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (bytes(range(1, 26)).hex(), "cd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    ],
)  # fmt: skip
def test_hmac_is_that_of_rfc_4231(key, data, tag):
    assert wire.hmac_sha256(bytes.fromhex(key), bytes.fromhex(data)).hex() == tag


@given(st.binary(min_size=1, max_size=64), st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_hmac_is_that_of_the_standard_library(key, data):
    assert wire.hmac_sha256(key, data) == hmac.digest(key, data, hashlib.sha256)


def test_nothing_that_is_printed_holds_the_secret_or_what_was_said():
    asking, agent = fresh()
    converse(asking, agent)
    shown = repr(asking) + repr(agent) + str(asking) + str(agent)
    for hidden in ("pause", repr(SECRET)[2:12], SECRET.hex(), "duration"):
        assert hidden not in shown
