"""Exemptions: a part of a grant that a participant asks not to be captured. It is off from the moment of asking."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from mcilib import limits
from mcilib.consent.grant import SCOPES
from mcilib.errors import ConfigError
from mcilib.language import ENGLISH, Words, moment

if TYPE_CHECKING:
    from mcilib.policy.hours import Window

_ID = re.compile(r"[0-9a-f]{32}")
_TIME_END_NS = 2**63

REASON_CLASSES = ("personal", "medical", "legal", "confidential", "representation", "other")
"""Why, as far as the operator needs to know. `representation`: work of a works council or a union."""


class ExemptionState(Enum):
    PENDING = "pending"
    """Asked for, not decided: nothing of it is captured."""
    APPROVED = "approved"
    """Nothing of it is captured until it ends."""
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    """By the participant."""

    @property
    def bars(self) -> bool:
        """Whether what it covers is not captured."""
        return self in (ExemptionState.PENDING, ExemptionState.APPROVED)


@dataclass(frozen=True, slots=True)
class ExemptScope:
    """What an exemption covers: exactly one of these. Raises `ConfigError`."""

    scopes: tuple[str, ...] = ()
    """Of `SCOPES`: kinds of events."""
    apps: tuple[str, ...] = ()
    """Programs, as `Focus.app` names them; `*` and `?` stand for others, case does not count."""
    hours: tuple[str, ...] = ()
    """Weekly windows of local time in which nothing is captured, such as `mon-fri 12:00-13:00`."""
    everything: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("scopes", "apps", "hours", "everything") if getattr(self, name)]
        if len(given) != 1:
            raise ConfigError(
                f"An exemption is of {' and '.join(given) or 'nothing'}",
                "Name kinds of events, programs, weekly hours, or everything: one of these.",
            )
        if not self.everything and isinstance(getattr(self, given[0]), str):  # its letters would be the names
            raise ConfigError(f"{given[0]} of an exemption is one text", f"Give a tuple: {given[0]}=(...,).")
        for scope in self.scopes:
            if scope not in SCOPES:
                raise ConfigError(f"{scope!r} is no kind of events", f"Kinds: {', '.join(SCOPES)}.")
        for app in self.apps:
            if not app.isprintable() or not 0 < len(app.encode()) <= limits.EXEMPT_APP_MAX_BYTES:
                raise ConfigError(
                    f"{app!r} is no program", "Give the name as `mcilib inspect` shows it; * stands for any."
                )
        for window in self.hours:
            try:
                if not window.isprintable() or len(window) > limits.EXEMPT_APP_MAX_BYTES:
                    raise ValueError("must be such as 'mon-fri 12:00-13:00', on one line")
                _window(window)
            except ValueError as error:
                raise ConfigError(
                    f"{window!r} are no weekly hours: {error}", "Give them as in 'mon-fri 12:00-13:00'."
                ) from None
        if len(self.scopes) + len(self.apps) + len(self.hours) > limits.EXEMPT_PARTS_MAX:
            raise ConfigError("An exemption has too many parts", "Ask for several exemptions.")

    @property
    def kind(self) -> str:
        """`scopes`, `apps`, `hours` or `everything`."""
        return next(name for name in ("scopes", "apps", "hours", "everything") if getattr(self, name))

    def covers_app(self, app: str | None) -> bool:
        """Whether a program is one of these; one that is not known may be."""
        if app is None:
            return bool(self.apps)
        name = app.casefold()
        return any(fnmatchcase(name, pattern.casefold()) for pattern in self.apps)

    @property
    def words(self) -> str:
        """Such as `keys`, `the program keepassxc`, `mon-fri 12:00-13:00`, `everything`."""
        return self.words_in(ENGLISH)

    def words_in(self, tr: Words) -> str:
        """The same in a language."""
        if self.everything:
            return tr("everything")
        if self.apps:
            programs = tr.many("the program {names}", "the programs {names}", len(self.apps))
            return programs.format(names=", ".join(self.apps))
        return ", ".join(self.scopes or self.hours)

    def to_json(self) -> dict[str, Any]:
        if self.everything:
            return {"everything": True}
        return {name: list(v) for name in ("scopes", "apps", "hours") if (v := getattr(self, name))}

    @classmethod
    def from_json(cls, record: Any) -> ExemptScope:
        """Raises `ConfigError` for anything else than `to_json` gives, `TypeError`, `ValueError`."""
        if not isinstance(record, dict) or set(record) - {"scopes", "apps", "hours", "everything"}:
            raise ValueError("the scope of an exemption is none that this version knows")
        parts: dict[str, Any] = {}
        for name, value in record.items():
            if name == "everything":
                if type(value) is not bool:
                    raise ValueError("everything is not true or false")
                parts[name] = value
            elif not isinstance(value, list) or not all(isinstance(part, str) for part in value):
                raise ValueError(f"{name} is not a list of words")
            else:
                parts[name] = tuple(value)
        return cls(**parts)


@dataclass(frozen=True, slots=True)
class Exemption:
    """One request and what became of it. Times are Unix time in ns. Raises `ConfigError`."""

    exemption_id: str
    """32 hex digits: the id of its control record too."""
    scope: ExemptScope
    reason_class: str
    """One of `REASON_CLASSES`."""
    note: str
    """In the participant's words, for the operator."""
    requested_ns: int
    until_ns: int | None = None
    """When it ends; None: when the participant withdraws it."""
    state: ExemptionState = ExemptionState.PENDING
    decided_ns: int | None = None
    answer: str = ""
    """In the operator's words."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.exemption_id):
            raise ConfigError("The id of an exemption is not 32 hex digits", "Report a bug.")
        if self.reason_class not in REASON_CLASSES:
            raise ConfigError(
                f"{self.reason_class!r} is no class of reasons", f"Classes: {', '.join(REASON_CLASSES)}."
            )
        times = [time_ns for time_ns in (self.until_ns, self.decided_ns) if time_ns is not None]
        for time_ns in (self.requested_ns, *times):
            # On the disk, or on its way, nobody could read it any more.
            if type(time_ns) is not int or not 0 <= time_ns < _TIME_END_NS:
                raise ConfigError(
                    "The exemption has a time that is none", "Give Unix time in ns, a whole number."
                )
        for text in (self.note, self.answer):
            if len(text.encode("utf-8", "replace")) > limits.EXEMPTION_NOTE_MAX_BYTES:
                raise ConfigError(
                    "The note of an exemption is too long",
                    f"Use {limits.EXEMPTION_NOTE_MAX_BYTES} bytes at most.",
                )
            if not text.replace("\n", "").isprintable():
                raise ConfigError("The note has characters that cannot be shown", "Use plain text.")

    def at(self, wall_ns: int) -> Exemption:
        """As it is at that time: it may have expired."""
        if self.state.bars and self.until_ns is not None and wall_ns >= self.until_ns:
            return replace(self, state=ExemptionState.EXPIRED)
        return self

    def to_json(self) -> dict[str, Any]:
        return {
            "exemption": self.exemption_id,
            "scope": self.scope.to_json(),
            "reason_class": self.reason_class,
            "note": self.note,
            "requested_ns": self.requested_ns,
            "until_ns": self.until_ns,
            "state": self.state.value,
            "decided_ns": self.decided_ns,
            "answer": self.answer,
        }

    @classmethod
    def from_json(cls, record: Any) -> Exemption:
        """Raises `ConfigError`, `ValueError`, `KeyError` or `TypeError`."""
        for name in ("requested_ns", "until_ns", "decided_ns"):
            value = record[name]
            if type(value) is not int and not (value is None and name != "requested_ns"):
                raise ValueError(f"{name} is no time")
        words = [record[name] for name in ("exemption", "reason_class", "note", "answer")]
        if not all(isinstance(word, str) for word in words):
            raise ValueError("an exemption has a word that is none")
        return cls(
            exemption_id=words[0],
            scope=ExemptScope.from_json(record["scope"]),
            reason_class=words[1],
            note=words[2],
            requested_ns=record["requested_ns"],
            until_ns=record["until_ns"],
            state=ExemptionState(record["state"]),
            decided_ns=record["decided_ns"],
            answer=words[3],
        )


def plain(text: str) -> str:
    """Of somebody else's text what a note or an answer may be."""
    shown = "".join(c for c in text[: limits.EXEMPTION_NOTE_MAX_BYTES] if c == "\n" or c.isprintable())
    return shown.encode("utf-8", "replace")[: limits.EXEMPTION_NOTE_MAX_BYTES].decode(errors="ignore")


def ends_words(exemption: Exemption, tr: Words = ENGLISH, tz: tzinfo | None = None) -> str:
    """Such as `until 2026-01-31 12:00`, in the system's time zone unless given."""
    if exemption.until_ns is None:
        return tr("until you withdraw it")
    return tr("until {moment}").format(moment=moment(exemption.until_ns, tz))


def windows_of(exemptions: Sequence[Exemption]) -> tuple[Window, ...]:
    """The weekly hours of those that bar."""
    return tuple(_window(text) for e in exemptions if e.state.bars for text in e.scope.hours)


def _window(text: str) -> Window:
    from mcilib.policy.hours import Window  # for an exemption that has some: it takes 20 ms to import

    return Window.parse(text)
