"""A grant is given, kept, read back exactly, and refused in every other case."""

from __future__ import annotations

import io
import json
import stat
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mcilib import Grant, GrantError
from mcilib.clock import ClockAnchor
from mcilib.consent import SCOPES, Gate
from mcilib.events import EVENT_TYPES, Focus, Move
from mcilib.testing.fakes import example_grant


def test_saved_and_loaded_it_is_the_same(tmp_path):
    grant = example_grant(
        policy="Text ż\nmore", language="pl", expires_in=timedelta(days=30), retention_days=7
    )
    path = grant.save(tmp_path / "new" / "state")
    assert Grant.load(tmp_path / "new" / "state") == grant
    assert Grant.load(tmp_path / "new" / "state").digest == grant.digest
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["grant.json"]


@pytest.mark.parametrize(
    "field", ["participant", "device", "operator", "purpose", "scopes", "policy", "language", "given_at",
              "given_via", "expires_at", "retention_days"],
)  # fmt: skip
def test_the_digest_covers_every_field(field):
    grant = example_grant()
    other: Any = {
        "scopes": ("keys",), "given_via": "terminal", "retention_days": 1,
        "participant": "0" * 32, "device": "0" * 32, "given_at": "2030-01-01T00:00:00+00:00", "expires_at": "2030-01-01T00:00:00+00:00",
    }.get(field, "changed")  # fmt: skip
    from dataclasses import replace

    assert replace(grant, **{field: other}).digest != grant.digest


def test_pseudonyms_are_random_and_kept_on_renewal():
    first, second = example_grant(), example_grant()
    assert first.participant != second.participant
    assert first.device != second.device
    renewed = example_grant("pointer", earlier=first)
    assert (renewed.participant, renewed.device) == (first.participant, first.device)


def test_nothing_in_it_names_the_machine_or_the_person():
    import getpass
    import socket

    text = json.dumps(example_grant().describe())
    assert socket.gethostname() not in text
    assert len(getpass.getuser()) < 3 or f"/{getpass.getuser()}" not in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scopes": ["screen"]}, "cannot cover screen"),
        ({"scopes": ["key_content", "keys"]}, "cannot cover key_content"),
        ({"scopes": []}, "cannot cover nothing"),
        ({"operator": " "}, "no operator"),
        ({"purpose": ""}, "no purpose"),
        ({"given_via": "magic"}, "given_via"),
        ({"operator": "Lab\x1b[8m"}, "operator .* cannot be shown"),
        ({"operator": "Lab\nWhat:  nothing"}, "operator .* cannot be shown"),
        ({"purpose": "\ud800"}, "purpose .* cannot be shown"),
        ({"policy": "fine\n\x1b[2Jnot"}, "policy .* cannot be shown"),
    ],
)
def test_grants_that_cannot_be_given(fields, message):
    with pytest.raises(GrantError, match=message):
        Grant.give(**{"operator": "Lab", "purpose": "x", "scopes": ["keys"], **fields})


def test_missing(tmp_path):
    with pytest.raises(GrantError, match=r"no grant in .*mcilib grant"):
        Grant.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b" " * 2_000_000,
        b"",
        b"{",
        b"[]",
        b"{}",
        b'"x"',
        b"\xff\xfe",
        b'{"operator": "x"}',
        b'{"surprise": 1}',
        b"null",
    ],
)
def test_unreadable(tmp_path, content):
    (tmp_path / "grant.json").write_bytes(content)
    with pytest.raises(GrantError, match=r"mcilib grant"):
        Grant.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("scopes", 5), ("scopes", None), ("operator", 7), ("given_at", "yesterday"), ("expires_at", 5),
     ("policy", None), ("retention_days", "long"), ("participant", 3), ("device", "not hex"), ("scopes", "keys"),
     ("scopes", ["keys", "keys"])],
)  # fmt: skip
def test_a_field_of_the_wrong_kind(tmp_path, field, value):
    path = example_grant().save(tmp_path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, field: value}))
    with pytest.raises(GrantError):
        Grant.load(tmp_path)


def test_a_grant_that_is_no_file(tmp_path):
    (tmp_path / "grant.json").mkdir()
    with pytest.raises(GrantError, match="no ordinary file"):
        Grant.load(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "grant.json")
    with pytest.raises(GrantError, match="no ordinary file"):
        Grant.load(tmp_path)


def test_not_allowed_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GrantError, match="cannot be written"):
        example_grant().save(tmp_path / "file" / "state")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_answer_out_of_a_pipe_is_nobodys():
    asked: dict[str, Any] = {"operator": "Lab", "purpose": "x", "scopes": ["keys"], "stdout": io.StringIO()}
    assert Grant.ask(**asked, stdin=Terminal("yes\n")).given_via == "terminal"
    assert Grant.ask(**asked, stdin=io.StringIO("yes\n")).given_via == "unattended"


def test_the_description_fits_a_terminal():
    grant = example_grant(purpose="word " * 60, policy="long " * 90 + "\n\n- short\n", given_via="unattended")
    lines = grant.describe().splitlines()
    assert max(map(len, lines)) <= 80
    assert "  - short" in lines
    assert grant.describe().count("word") == 60
    assert grant.describe().count("long") == 90


def test_ask_shows_everything_and_takes_yes_only():
    for answer, given in (("yes\n", True), ("y\n", True), ("no\n", False), ("\n", False), ("", False)):
        shown = io.StringIO()
        ask: dict[str, Any] = {
            "operator": "Example Lab", "purpose": "to learn", "scopes": ["pointer"], "policy": "The whole text.",
            "expires_in": timedelta(days=1), "stdin": Terminal(answer), "stdout": shown,
        }  # fmt: skip
        if given:
            grant = Grant.ask(**ask)
            assert grant.given_via == "terminal"
            assert grant.expires_at is not None
        else:
            with pytest.raises(GrantError, match="No grant was given"):
                Grant.ask(**ask)
        for part in ("Example Lab", "to learn", "pointer", "The whole text.", "Ends:", "Kept for"):
            assert part in shown.getvalue()


def test_unattended_says_that_nobody_was_asked():
    assert "nobody was asked" in example_grant(given_via="unattended").describe()
    assert "nobody was asked" not in example_grant().describe()


def test_the_gate_holds_to_scopes_and_time():
    gate = Gate(example_grant("pointer", expires_in=timedelta(hours=1)))
    end = gate.grant.expires_ns or 0
    anchor = ClockAnchor(0, 0)  # monotonic time is wall time
    assert gate.admits("move", end - 1, anchor)
    assert gate.admits("gap", end - 1, anchor)
    assert gate.admits("display", end - 1, anchor)
    assert not gate.admits("key_press", end - 1, anchor)
    assert not gate.admits("layout", end - 1, anchor)
    assert not gate.admits("move", end, anchor)
    assert gate.closed(end - 1) is None
    assert "expired" in (gate.closed(end) or "")
    assert Gate(example_grant()).closed(2**62) is None
    assert Gate(example_grant("keys")).admits("layout", 0, anchor)
    assert not Gate(example_grant("keys")).admits("display", 0, anchor)


def test_what_no_scope_covers_is_never_admitted():
    gate = Gate(example_grant())
    assert not gate.admits("focus", 0, ClockAnchor(0, 0)), "neither apps nor titles is granted"
    assert not gate.admits("of a version to come", 0, ClockAnchor(0, 0))


def test_the_words_of_a_scope_name_all_that_it_covers():
    shown = " ".join(example_grant().describe().split())
    for words in (
        "where the pointer moves",
        "how the displays are arranged",
        "which class",
        "the keyboard layout",
    ):
        assert words in shown
    assert "displays" not in example_grant("keys").describe()
    assert "layout" not in example_grant("pointer").describe()


def test_every_kind_of_event_has_one_scope():
    """But `focus`: with its title it is of `titles`, without of `apps` too. A gap is of none."""
    kinds = [kind for name, scope in SCOPES.items() for kind in scope.kinds if name != "titles"]
    assert sorted([*kinds, "gap"]) == sorted(EVENT_TYPES)
    assert SCOPES["titles"].kinds == SCOPES["apps"].kinds == ("focus",)


@pytest.mark.parametrize(
    ("scopes", "title"),
    [(("apps",), None), (("titles",), "a letter"), (("apps", "titles"), "a letter")],
)
def test_a_title_is_of_its_own_scope(scopes, title):
    focus = Focus(1, "editor", "a letter", 1, 2, 3, 4)
    gate = Gate(example_grant(*scopes))
    assert gate.admits("focus", 0, ClockAnchor(0, 0))
    assert not gate.admits("move", 0, ClockAnchor(0, 0))
    assert gate.cut(focus) == replace(focus, title=title)
    assert gate.cut(Focus(1, "editor")) == Focus(1, "editor")
    assert gate.cut(Move(1, 2, 3)) == Move(1, 2, 3)


@pytest.mark.parametrize(
    ("scope", "words"),
    [("apps", "which program the window in use belongs to"), ("titles", "the title of that window")],
)
def test_what_is_kept_of_windows_is_said(scope, words):
    assert words in " ".join(example_grant(scope).describe().split())
    assert "window in use" not in example_grant().describe()
