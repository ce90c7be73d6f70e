"""May it be collected at all: the grant a participant gave, and the gate that holds everything to it.

A grant is a value one must hold: `Collector.start` refuses without one. It is checked when an event is
captured, when a batch is committed and before each request; its digest is in every batch.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from mcilib import limits
from mcilib.digest import sha256
from mcilib.errors import GrantError
from mcilib.events import Event, Focus


@dataclass(frozen=True, slots=True)
class Scope:
    """What one scope of a grant covers, in words, by source and by kind of event."""

    words: str
    sources: tuple[str, ...]
    kinds: tuple[str, ...]


#: scope <-> source <-> event kinds. A gap is no event of the participant and needs no scope. A `focus` has its
#: title under the scope `titles` only.
SCOPES: Mapping[str, Scope] = MappingProxyType(
    {
        "pointer": Scope(
            "where the pointer moves, which buttons are pressed, scrolling, and how the displays are arranged",
            ("pointer", "display"),
            ("move", "press", "release", "scroll", "display"),
        ),
        "keys": Scope(
            "when keys go down and up and of which class they are (letter, digit, ...), never which letter; "
            "shortcuts with ctrl or cmd by name; the keyboard layout",
            ("keyboard",),
            ("key_press", "key_release", "layout"),
        ),
        "apps": Scope(
            "which program the window in use belongs to, and where on the displays that window is",
            ("window",),
            ("focus",),
        ),
        "titles": Scope(
            "which program the window in use belongs to, where on the displays that window is, and the title of that "
            "window, which can name documents, web pages and people",
            ("window",),
            ("focus",),
        ),
    }
)

DEFAULT_POLICY = """\
What you do with the pointer, the keyboard and windows is recorded, as far as
the scopes above say, to train and evaluate computer programs that use
computers.
The text you type is not recorded. The recording says when it runs and stops
when you stop it. What waits on this device lies in a folder of yours, which
you can read and delete.
"""

_FOREVER_NS = 2**63
_PLAIN = "Use plain text: control characters could hide what a participant agrees to."
_WIDTH = 80
_FILE_MAX_BYTES = 1024 * 1024
_ID = re.compile("[0-9a-f]{32}")
_GIVEN_VIA = ("terminal", "host", "unattended")
_FILE = "grant.json"


@dataclass(frozen=True, slots=True)
class Grant:
    """A participant's agreement. Immutable; times are ISO 8601 in UTC.

    Made by `Grant.give` (a host that has asked), `Grant.ask` (asks on a terminal) or `mcilib grant`.
    """

    participant: str
    """Random pseudonym, 32 hex digits. Never a name."""
    device: str
    """Random id of this device within the programme, 32 hex digits."""
    operator: str
    """Who collects."""
    purpose: str
    """What for."""
    scopes: tuple[str, ...]
    """Sorted names out of `SCOPES`."""
    policy: str
    """The text that was agreed to."""
    language: str
    """Of the policy text (BCP 47)."""
    given_at: str
    given_via: str
    """`terminal`, `host` or `unattended` (nobody was asked on this device)."""
    expires_at: str | None = None
    retention_days: int = limits.RETENTION_DAYS

    def __post_init__(self) -> None:
        words: tuple[object, ...] = (
            self.operator, self.purpose, self.policy, self.language, self.given_at, self.given_via,
        )  # fmt: skip
        days: object = self.retention_days
        scopes: object = self.scopes
        if not (
            all(isinstance(word, str) for word in words)
            and isinstance(scopes, tuple)  # and so hashable, as a value is
            and all(_ID.fullmatch(str(id_)) for id_ in (self.participant, self.device))
            and isinstance(days, int)
            and days > 0
        ):
            raise GrantError("The grant has a field of the wrong kind", "Give it again with `mcilib grant`.")
        unknown = [str(s) for s in self.scopes if s not in SCOPES]
        if unknown or not self.scopes or len(set(self.scopes)) < len(self.scopes):
            raise GrantError(
                f"A grant cannot cover {', '.join(unknown or self.scopes) or 'nothing'}",
                f"Scopes that this version collects, each once: {', '.join(SCOPES)}.",
            )
        for name in ("operator", "purpose", "language"):
            if not getattr(self, name).isprintable():
                raise GrantError(f"The {name} of the grant has characters that cannot be shown", _PLAIN)
        if not self.policy.replace("\n", "").replace("\t", "").isprintable():
            raise GrantError("The policy of the grant has characters that cannot be shown", _PLAIN)
        for name in ("operator", "purpose"):
            if not getattr(self, name).strip():
                raise GrantError(f"The grant names no {name}", f"Say who collects and what for ({name}).")
        if self.given_via not in _GIVEN_VIA:
            raise GrantError(f"given_via is {self.given_via!r}", f"Use one of {', '.join(_GIVEN_VIA)}.")
        for stamp in (self.given_at, self.expires_at):
            if stamp is not None:
                _parse_time(stamp)

    @classmethod
    def give(
        cls,
        *,
        operator: str,
        purpose: str,
        scopes: Iterable[str],
        policy: str = DEFAULT_POLICY,
        language: str = "en",
        given_via: str = "host",
        expires_in: timedelta | None = None,
        retention_days: int = limits.RETENTION_DAYS,
        earlier: Grant | None = None,
    ) -> Grant:
        """A new grant, given now. The caller vouches that the participant agreed to exactly this.

        `earlier` keeps pseudonym and device id of a grant that this one replaces. Raises `GrantError`.
        """
        now = datetime.now(UTC).replace(microsecond=0)
        return cls(
            participant=earlier.participant if earlier else uuid.uuid4().hex,
            device=earlier.device if earlier else uuid.uuid4().hex,
            operator=operator,
            purpose=purpose,
            scopes=tuple(sorted(set(scopes))),
            policy=policy,
            language=language,
            given_at=now.isoformat(),
            given_via=given_via,
            expires_at=(now + expires_in).isoformat() if expires_in is not None else None,
            retention_days=retention_days,
        )

    @classmethod
    def ask(
        cls,
        *,
        operator: str,
        purpose: str,
        scopes: Iterable[str],
        policy: str = DEFAULT_POLICY,
        expires_in: timedelta | None = None,
        earlier: Grant | None = None,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
    ) -> Grant:
        """Shows the grant in full on the terminal and waits for `yes`. Raises `GrantError` on anything else.

        An answer that does not come from a terminal is recorded as `unattended`.
        """
        stdin, stdout = stdin or sys.stdin, stdout or sys.stdout
        grant = cls.give(
            operator=operator, purpose=purpose, scopes=scopes, policy=policy,
            given_via="terminal" if stdin.isatty() else "unattended", expires_in=expires_in, earlier=earlier,
        )  # fmt: skip
        print(grant.describe(), "", "Do you agree? Type yes: ", sep="\n", end="", file=stdout, flush=True)
        if stdin.readline().strip().lower() not in ("yes", "y"):
            raise GrantError("No grant was given", "Nothing is collected. Ask again when you have decided.")
        return grant

    @classmethod
    def load(cls, state_dir: str | os.PathLike[str]) -> Grant:
        """The grant recorded in `state_dir`. Raises `GrantError` when there is none or it cannot be read."""
        path = Path(state_dir) / _FILE
        again = "Give it again with `mcilib grant`."
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise ValueError("it is no ordinary file")
            with path.open("rb") as file:
                data = file.read(_FILE_MAX_BYTES + 1)
            if len(data) > _FILE_MAX_BYTES:
                raise ValueError("it is too large")
            record = json.loads(data.decode("utf-8"))
        except FileNotFoundError:
            raise GrantError(
                f"There is no grant in {os.fspath(state_dir)}",
                "Nothing is collected without one: `mcilib grant`.",
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise GrantError(f"The grant {path} cannot be read ({_reason(error)})", again) from None
        known = {f.name for f in fields(cls)}
        if not isinstance(record, dict) or set(record) - known:
            raise GrantError(f"The grant {path} is not one that this version wrote", again)
        try:
            return cls(**{**record, "scopes": tuple(record["scopes"])})
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise GrantError(f"The grant {path} is incomplete ({error})", again) from None

    def save(self, state_dir: str | os.PathLike[str]) -> Path:
        """Records the grant in `state_dir` (made with mode 0700; file 0600, atomic, fsynced)."""
        folder = Path(state_dir)
        path = folder / _FILE
        temporary = folder / f".{_FILE}.{os.getpid()}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump(asdict(self), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise GrantError(
                f"The grant cannot be written to {folder} ({_reason(error)})",
                "Choose another folder with --state, or make this one writable.",
            ) from None
        return path

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all fields, 64 hex digits."""
        return _digest(self)

    def covers(self, scope: str) -> bool:
        """Whether a source of this scope may be started. Who may have titles may have their programs."""
        return scope in self.scopes or (scope == "apps" and "titles" in self.scopes)

    def expired(self, wall_ns: int) -> bool:
        """True from the moment of expiry on."""
        expires_ns = self.expires_ns
        return expires_ns is not None and wall_ns >= expires_ns

    @property
    def expires_ns(self) -> int | None:
        """The moment of expiry as Unix time in nanoseconds; None when there is none."""
        if self.expires_at is None:
            return None
        return int(_parse_time(self.expires_at).timestamp()) * 1_000_000_000

    def describe(self) -> str:
        """The whole grant in a person's words: several lines of at most 80 columns."""
        asked = " (nobody was asked on this device)" if self.given_via == "unattended" else ""
        rows = [
            ("Who collects:", self.operator),
            ("What for:", self.purpose),
            ("What:", ""),
            *((f"  {name}:", SCOPES[name].words) for name in self.scopes),
            ("Given:", f"{self.given_at} via {self.given_via}{asked}"),
            ("Ends:", self.expires_at or "when you delete it"),
            ("Kept for:", f"{self.retention_days} {'day' if self.retention_days == 1 else 'days'}"),
            ("You are:", f"{self.participant} (random, no name is recorded)"),
            ("Policy:", ""),
        ]
        lines = [line for label, text in rows for line in _wrapped(f"{label:<16}{text}", " " * 16)]
        lines += [line for text in self.policy.strip().splitlines() for line in _wrapped(f"  {text}", "  ")]
        return "\n".join(lines)


@lru_cache(maxsize=8)  # it is in every batch, and grants are few
def _digest(grant: Grant) -> str:
    canonical = json.dumps(asdict(grant), sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode()).hex()


class Gate:
    """Holds events, commits and requests to a grant. Pure: time comes as an argument. Any thread."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self._kinds = {kind for scope in grant.scopes for kind in SCOPES[scope].kinds} | {"gap"}
        self._expires_ns = grant.expires_ns

    def admits(self, kind: str, wall_ns: int) -> bool:
        """True when an event of this kind, seen at this wall time, may become part of a batch."""
        return kind in self._kinds and not self._expired(wall_ns)

    def expires_ns(self, kind: str) -> int:
        """The wall time before which events of this kind are admitted: 0 when none is."""
        if kind not in self._kinds:
            return 0
        return _FOREVER_NS if self._expires_ns is None else self._expires_ns

    def cut(self, event: Event) -> Event:
        """An event that was admitted, without the parts of it that the grant does not cover."""
        if type(event) is Focus and event.title is not None and "titles" not in self.grant.scopes:
            return replace(event, title=None)
        return event

    def closed(self, wall_ns: int) -> str | None:
        """Why nothing may be captured, committed or sent now; None when it may."""
        return f"the grant expired at {self.grant.expires_at}" if self._expired(wall_ns) else None

    def _expired(self, wall_ns: int) -> bool:
        return self._expires_ns is not None and wall_ns >= self._expires_ns


def _wrapped(line: str, indent: str) -> list[str]:
    if len(line) <= _WIDTH:
        return [line.rstrip()]
    return textwrap.wrap(line, _WIDTH, subsequent_indent=indent, drop_whitespace=True)


def _parse_time(text: str) -> datetime:
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError:
        raise GrantError(f"{text!r} is not a time", "Give the grant again with `mcilib grant`.") from None
    return stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)


def _reason(error: Exception) -> Any:
    return getattr(error, "strerror", None) or error
