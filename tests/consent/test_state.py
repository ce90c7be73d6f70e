"""What follows from all decisions together; what is no state of ours is refused in words; exemptions as values."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcilib import limits
from mcilib.consent import Exemption, ExemptionState, ExemptScope, Pause
from mcilib.consent.exemption import plain
from mcilib.consent.pause import Now
from mcilib.consent.state import (
    Bar,
    Barred,
    ControlState,
    Withdrawal,
    allowed_scopes,
    kinds_of,
    pseudonym_hash,
)
from mcilib.errors import ConfigError

S = 1_000_000_000
NOON = 1_750_075_200 * S  # 2025-06-16 12:00 UTC, a Monday
NOW = Now(100 * S, 0, NOON, "b0")


def exemption(number: int = 1, **fields) -> Exemption:
    scope = fields.pop("scope", ExemptScope(scopes=("keys",)))
    return Exemption(f"{number:032x}", scope, "other", "", NOON, **fields)


FULL = ControlState(
    pause=Pause(NOW, 60 * S),
    exemptions=(
        exemption(1, until_ns=NOON + S),
        exemption(
            2, scope=ExemptScope(apps=("a*",)), state=ExemptionState.DENIED, decided_ns=3, answer="no\nnever"
        ),
        exemption(3, scope=ExemptScope(hours=("mon-fri 12:00-13:00",))),
        exemption(4, scope=ExemptScope(everything=True)),
    ),
    hold_s=60.0,
    asked="?",
    withdrawal=Withdrawal("a" * 32, "d" * 32, 1, "b" * 32, 2),
    withdrawn=("9a" * 32,),
)


def test_written_and_read_it_is_the_same():
    assert ControlState.from_json(FULL.to_json()) == FULL
    assert ControlState.from_json(ControlState().to_json()) == ControlState()
    assert b"unreadable" not in replace(FULL, unreadable="why").to_json()


def paths(value, path=()):
    yield path
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from paths(inner, (*path, key))


ALL_PATHS = [path for path in paths(json.loads(FULL.to_json())) if path]


@pytest.mark.parametrize("path", ALL_PATHS, ids=str)
def test_each_part_of_another_kind_is_refused_in_words(path):
    others: tuple[object, ...] = (None, 3.5, -1, "x", [], {}, [[]], True)
    for other in others:
        record = json.loads(FULL.to_json())
        holder = record
        for key in path[:-1]:
            holder = holder[key]
        if holder[path[-1]] == other or type(holder[path[-1]]) is type(other):
            continue
        holder[path[-1]] = other
        with contextlib.suppress(ValueError):
            state = ControlState.from_json(json.dumps(record).encode())
            # What may be there is written as it was read.
            assert json.loads(state.to_json()) == record, (path, other)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_nothing_but_a_value_error(data):
    with pytest.raises(ValueError, match=r"."):
        ControlState.from_json(data)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (FULL, "withdrawn"),
        (replace(FULL, unreadable="why"), "unreadable"),
        (replace(FULL, withdrawal=None), "asked"),
        (replace(FULL, withdrawal=None, asked=""), "paused"),
        (replace(FULL, withdrawal=None, asked="", pause=None), "exempt"),
        (replace(FULL, withdrawal=None, asked="", pause=None, exemptions=FULL.exemptions[:3]), "hours"),
        (replace(FULL, withdrawal=None, asked="", pause=None, exemptions=FULL.exemptions[:2]), None),
    ],
)
def test_one_reason_is_told_the_strongest_first(state, code):
    barred = state.barred(NOW, UTC)
    assert (barred.all.code if barred.all else None) == code
    assert ("keys" in barred.scopes) is True


@pytest.mark.parametrize("state", list(ExemptionState))
def test_only_what_is_pending_or_approved_bars(state):
    made = ControlState(
        exemptions=(exemption(state=state), exemption(2, scope=ExemptScope(apps=("a",)), state=state))
    )
    barred = made.barred(NOW)
    bars = state in (ExemptionState.PENDING, ExemptionState.APPROVED)
    assert bool(barred.scopes) is bars
    assert len(barred.apps) == bars


def test_it_says_when_to_look_again():
    state = ControlState(exemptions=(exemption(until_ns=NOON + 20 * S),))
    assert state.barred(NOW).due_s == 20
    hours = ControlState(exemptions=(exemption(scope=ExemptScope(hours=("12:05-12:10",))),))
    assert hours.barred(NOW, UTC).due_s == 300
    far = ControlState(exemptions=(exemption(until_ns=NOON + 10**6 * S),))
    assert far.barred(NOW).due_s == limits.PLAN_DUE_CAP_S
    assert ControlState(exemptions=(exemption(),)).barred(NOW).due_s is None
    assert ControlState().barred(NOW) == Barred()


def test_programs_take_titles_with_them():
    barred = ControlState(exemptions=(exemption(scope=ExemptScope(scopes=("apps",))),)).barred(NOW)
    assert set(barred.scopes) == {"apps", "titles"}
    assert allowed_scopes(("titles", "pointer"), barred) == {"pointer"}
    assert allowed_scopes(("titles", "pointer"), Barred()) == {"titles", "apps", "pointer"}
    assert allowed_scopes(("titles",), Barred(scopes={"titles": Bar("exempt", "")})) == {"apps"}
    assert allowed_scopes(("keys",), Barred(all=Bar("paused", ""))) == frozenset()
    assert kinds_of(frozenset(["keys"])) == {"key_press", "key_release", "layout"}


def test_an_exemption_is_added_exchanged_and_found():
    state = ControlState().with_exemption(exemption(1)).with_exemption(exemption(2))
    denied = replace(exemption(1), state=ExemptionState.DENIED)
    state = state.with_exemption(denied)
    assert [e.exemption_id[-1] for e in state.exemptions] == ["1", "2"]
    assert state.exemption(f"{1:032x}") == denied
    for wrong in ("0", "", "f"):
        with pytest.raises(ConfigError, match="names"):
            state.exemption(wrong)


def test_those_that_are_over_make_room_first():
    full = ControlState(exemptions=tuple(exemption(n) for n in range(limits.EXEMPTIONS_MAX)))
    with pytest.raises(ConfigError, match="already"):
        full.with_exemption(exemption(1_000))
    over = full.with_exemption(replace(exemption(5), state=ExemptionState.DENIED))
    made = over.with_exemption(exemption(1_000))
    assert exemption(5).exemption_id not in {e.exemption_id for e in made.exemptions}
    assert len(made.exemptions) == limits.EXEMPTIONS_MAX


def test_pseudonyms():
    state = ControlState(
        withdrawal=Withdrawal("a" * 32, "d" * 32, 1, ""), withdrawn=(pseudonym_hash("b" * 32),)
    )
    assert state.is_withdrawn("a" * 32)
    assert state.is_withdrawn("b" * 32)
    assert not state.is_withdrawn("c" * 32)
    assert not ControlState(withdrawal=Withdrawal("", "d" * 32, 1, "", 2)).is_withdrawn("c" * 32)


# --- exemptions as values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "of nothing"),
        ({"scopes": ("keys",), "everything": True}, "scopes and everything"),
        ({"scopes": ("screams",)}, "no kind"),
        ({"apps": ("",)}, "no program"),
        ({"apps": ("a\x1b",)}, "no program"),
        ({"apps": ("x" * 129,)}, "no program"),
        ({"hours": ("25:00-26:00",)}, "no weekly hours"),
        ({"hours": ("funday 12:00-13:00",)}, "no weekly hours"),
        ({"apps": tuple("abcdefghijklmnopqrstuvwxyz1234567")}, "too many parts"),
    ],
)
def test_what_can_not_be_exempt(fields, message):
    with pytest.raises(ConfigError, match=message):
        ExemptScope(**fields)


@pytest.mark.parametrize(
    ("pattern", "app", "covered"),
    [
        ("KeePassXC", "keepassxc", True),
        ("keepass*", "keepassxc", True),
        ("keepass?", "keepassxc", False),
        ("firefox", "chromium", False),
        ("STRASSE", "straße", True),
        ("firefox", None, True),
    ],
)
def test_programs_by_name(pattern, app, covered):
    assert ExemptScope(apps=(pattern,)).covers_app(app) is covered


def test_one_without_programs_covers_none():
    assert not ExemptScope(everything=True).covers_app(None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"exemption_id": "x"}, "32 hex"),
        ({"reason_class": "mood"}, "no class"),
        ({"note": "x" * (limits.EXEMPTION_NOTE_MAX_BYTES + 1)}, "too long"),
        ({"note": "a\x1b[8m"}, "cannot be shown"),
        ({"answer": "\x00"}, "cannot be shown"),
    ],
)
def test_what_is_no_exemption(fields, message):
    with pytest.raises(ConfigError, match=message):
        replace(exemption(), **fields)


def test_it_expires_to_the_nanosecond():
    made = exemption(until_ns=NOON)
    assert made.at(NOON - 1) is made
    assert made.at(NOON).state is ExemptionState.EXPIRED
    assert replace(made, state=ExemptionState.DENIED).at(NOON).state is ExemptionState.DENIED


@given(st.text())
def test_any_answer_becomes_one_that_can_be_kept(text):
    replace(exemption(), answer=plain(text * 3_000))
