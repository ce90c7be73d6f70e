"""All that the participant has decided, as one value, and what follows from it at a moment. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Any

from mcilib import limits
from mcilib.consent.exemption import Exemption, ExemptionState, ends_words, windows_of
from mcilib.consent.grant import SCOPES
from mcilib.consent.pause import Now, Pause
from mcilib.digest import sha256
from mcilib.errors import ConfigError
from mcilib.language import ENGLISH, Words, lasting

SCHEMA = 1
_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Bar:
    """Why something is not captured."""

    code: str
    """`unreadable`, `withdrawn`, `asked`, `paused`, `exempt` or `hours`."""
    words: str


@dataclass(frozen=True, slots=True)
class Barred:
    """What is not captured at a moment."""

    all: Bar | None = None
    """Nothing at all is captured, and why."""
    scopes: Mapping[str, Bar] = field(default_factory=dict)
    """Scopes of the grant of which nothing is captured."""
    apps: tuple[Exemption, ...] = ()
    """Those of programs: nothing is captured while one of them has the focus, or while nobody knows which has."""
    due_s: float | None = None
    """When to ask again at the latest; None: nothing changes by itself."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The participant has ended it. Kept until the receiver has confirmed that all is deleted."""

    participant: str
    """The pseudonym of the grant; empty once it is confirmed, or there is a grant with another one."""
    device: str
    """Random id; empty when the pseudonym is."""
    asked_ns: int
    """Unix time."""
    record_id: str
    """Of the control record that asks to delete all; empty before it is in the spool."""
    confirmed_ns: int | None = None
    former: str = ""
    """The pseudonym, when there is a grant with another one and it is not confirmed."""

    @classmethod
    def from_json(cls, record: Any) -> Withdrawal:
        """Raises `ValueError` or `TypeError` for anything else than its fields."""
        made = cls(**record)
        words = (made.participant, made.device, made.record_id, made.former)
        times = (made.asked_ns, 0 if made.confirmed_ns is None else made.confirmed_ns)
        if not all(isinstance(word, str) for word in words) or any(type(time) is not int for time in times):
            raise ValueError("a withdrawal has a field of the wrong kind")
        return made


@dataclass(frozen=True, slots=True)
class ControlState:
    """What the participant has decided. A value: each change gives a new one."""

    pause: Pause | None = None
    exemptions: tuple[Exemption, ...] = ()
    """Oldest first."""
    hold_s: float = 0.0
    """Batches rest at least so long on this device before they go."""
    asked: str = ""
    """Not empty: something is asked of the participant, this, and nothing is captured until they have answered."""
    withdrawal: Withdrawal | None = None
    """The last one. Its pseudonym is never collected for again."""
    withdrawn: tuple[str, ...] = ()
    """SHA-256 of each pseudonym that was withdrawn: a grant with one of them is void."""
    unreadable: str = ""
    """Not empty: what was decided cannot be read, and why. Nothing is captured, since it may have been barred, and
    nothing is sent, since it may have been withdrawn. Not written."""

    @property
    def pending_withdrawal(self) -> str:
        """The pseudonym of which the receiver has not confirmed yet that all is deleted; empty when there is none."""
        return self.withdrawal.participant if self.withdrawal is not None else ""

    def is_withdrawn(self, participant: str) -> bool:
        """Whether a pseudonym was withdrawn, so that a grant with it is void."""
        return participant == self.pending_withdrawal or pseudonym_hash(participant) in self.withdrawn

    def at(self, now: Now) -> ControlState:
        """Without what is over."""
        pause = self.pause if self.pause is not None and self.pause.left_ns(now) > 0 else None
        exemptions = self.at_wall(now.wall_ns)
        if pause is self.pause and exemptions == self.exemptions:
            return self
        return replace(self, pause=pause, exemptions=exemptions)

    def at_wall(self, wall_ns: int) -> tuple[Exemption, ...]:
        """The exemptions; what is over by then has expired."""
        return tuple(exemption.at(wall_ns) for exemption in self.exemptions)

    def barred(self, now: Now, tz: tzinfo | None = None, tr: Words = ENGLISH) -> Barred:
        """What is not captured at `now`. `tz` is the system's time zone unless given."""
        state = self.at(now)
        bars = [e for e in state.exemptions if e.state.bars]
        everything = [e for e in bars if e.scope.everything]
        windows, week, waits = windows_of(bars), 0, list[float | None]()
        if windows:
            from mcilib.policy.hours import change_s, week_ns  # 20 ms to import

            week, waits = week_ns(now.wall_ns, tz), [change_s(windows, now.wall_ns, tz)]
        whole: Bar | None = None
        if state.unreadable:
            unreadable = tr("what you have decided cannot be read ({why})")
            whole = Bar("unreadable", unreadable.format(why=state.unreadable))
        elif state.pending_withdrawal:
            whole = Bar("withdrawn", tr("you have withdrawn"))
        elif state.asked:
            whole = Bar("asked", tr(state.asked))
        elif state.pause is not None:
            left = left_words(state.pause.left_ns(now), tr)
            whole = Bar("paused", tr("you have paused it, {left} left").format(left=left))
        elif everything:
            ends = _exempt_words(everything[0], tr, tz)
            whole = Bar("exempt", tr("everything is exempt ({ends})").format(ends=ends))
        elif any(window.holds(week) for window in windows):
            whole = Bar("hours", tr("these hours are exempt"))
        exempt = tr("{scope} is exempt ({ends})")
        scopes = {
            scope: Bar("exempt", exempt.format(scope=scope, ends=_exempt_words(exemption, tr, tz)))
            for exemption in bars
            for scope in exemption.scope.scopes
        }
        if "apps" in scopes:  # a title says which program it is
            scopes.setdefault("titles", scopes["apps"])
        waits += [max(0.0, (e.until_ns - now.wall_ns) / _S) for e in bars if e.until_ns is not None]
        waits += [limits.PLAN_DUE_CAP_S] if waits else []  # a wall clock that is stepped wakes nobody
        if state.pause is not None:
            waits += [state.pause.left_ns(now) / _S, limits.PAUSE_LOOK_S]
        return Barred(
            whole,
            scopes,
            tuple(e for e in bars if e.scope.apps),
            min((wait for wait in waits if wait is not None), default=None),
        )

    def with_exemption(self, exemption: Exemption) -> ControlState:
        """Added, or in the place of the one with its id. Those that are over go when there are too many."""
        others = [e for e in self.exemptions if e.exemption_id != exemption.exemption_id]
        if len(others) == len(self.exemptions):
            over = [e for e in others if not e.state.bars]
            for old in over[: max(0, len(others) + 1 - limits.EXEMPTIONS_MAX)]:
                others.remove(old)
            if len(others) >= limits.EXEMPTIONS_MAX:
                raise ConfigError(
                    f"There are {len(others)} exemptions already", "Withdraw one, or ask for everything."
                )
            return replace(self, exemptions=(*others, exemption))
        exchanged = (exemption if e.exemption_id == exemption.exemption_id else e for e in self.exemptions)
        return replace(self, exemptions=tuple(exchanged))

    def exemption(self, exemption_id: str) -> Exemption:
        """By its id, or the beginning of it if there is one only. Raises `ConfigError`."""
        found = [e for e in self.exemptions if e.exemption_id.startswith(exemption_id)]
        if len(found) != 1 or not exemption_id:
            raise ConfigError(
                f"{exemption_id!r} names {len(found) if exemption_id else 'no'} exemptions",
                "Give an id as `mcilib exempt --list` shows it.",
            )
        return found[0]

    def to_json(self) -> bytes:
        withdrawal = self.withdrawal
        record = {
            "schema": SCHEMA,
            "pause": self.pause.to_json() if self.pause is not None else None,
            "exemptions": [exemption.to_json() for exemption in self.exemptions],
            "hold_s": self.hold_s,
            "asked": self.asked,
            "withdrawal": None
            if withdrawal is None
            else {name: getattr(withdrawal, name) for name in Withdrawal.__slots__},
            "withdrawn": list(self.withdrawn),
        }
        return json.dumps(record, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ControlState:
        """Raises `ValueError`, in words, for anything that `to_json` did not give."""
        try:
            record = json.loads(data)
            if record["schema"] != SCHEMA:
                raise ValueError(f"it has schema {record['schema']!r}, this version knows {SCHEMA}")
            withdrawal = record["withdrawal"]
            hold_s, asked = record["hold_s"], record["asked"]
            if type(hold_s) not in (int, float) or not 0 <= hold_s <= limits.HOLD_CAP_S:
                raise ValueError("hold_s is out of range")
            if not isinstance(asked, str):
                raise ValueError("asked is not a text")
            withdrawn = record["withdrawn"]
            if not isinstance(record["exemptions"], list):
                raise ValueError("exemptions are not a list")
            if not isinstance(withdrawn, list) or not all(isinstance(one, str) for one in withdrawn):
                raise ValueError("withdrawn is not a list of digests")
            return cls(
                pause=None if record["pause"] is None else Pause.from_json(record["pause"]),
                exemptions=tuple(Exemption.from_json(one) for one in record["exemptions"]),
                hold_s=float(hold_s),
                asked=asked,
                withdrawal=None if withdrawal is None else Withdrawal.from_json(withdrawal),
                withdrawn=tuple(withdrawn),
            )
        except (KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
            raise ValueError(f"it is not what this version writes ({error})") from None
        except ValueError as error:
            raise ValueError(str(error)) from None


def pseudonym_hash(participant: str) -> str:
    """What is kept of a pseudonym that was withdrawn: 64 hex digits."""
    return sha256(participant.encode()).hex()


def allowed_scopes(granted: tuple[str, ...], barred: Barred) -> frozenset[str]:
    """The scopes of a grant of which something may be captured. Who may have titles may have their programs."""
    if barred.all is not None:
        return frozenset()
    allowed = frozenset(granted) - set(barred.scopes)
    if "titles" in granted and "apps" not in barred.scopes:
        allowed |= {"apps"}
    return allowed


def kinds_of(scopes: frozenset[str]) -> frozenset[str]:
    return frozenset(kind for scope in scopes for kind in SCOPES[scope].kinds)


def left_words(left_ns: int, tr: Words = ENGLISH) -> str:
    """Such as `4 min 30 s`."""
    return lasting(left_ns / _S, tr)


def _exempt_words(exemption: Exemption, tr: Words, tz: tzinfo | None) -> str:
    ends = ends_words(exemption, tr, tz)
    return tr("asked for, {ends}").format(ends=ends) if exemption.state is ExemptionState.PENDING else ends
