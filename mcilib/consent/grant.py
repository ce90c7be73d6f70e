"""The grant that a participant gave.

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
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from mcilib import limits
from mcilib.digest import sha256
from mcilib.errors import GrantError
from mcilib.files import write_private
from mcilib.language import Words, is_yes, marked


@dataclass(frozen=True, slots=True)
class Scope:
    """What one scope of a grant covers, in words, by source and by kind of event."""

    words: str
    """In full, as the grant has it (English; `mcilib.language` has others)."""
    short: str
    """In a few words."""
    sources: tuple[str, ...]
    kinds: tuple[str, ...]


#: scope <-> source <-> event kinds. A gap is no event of the participant and needs no scope. A `focus` has its
#: title under the scope `titles` only.
SCOPES: Mapping[str, Scope] = MappingProxyType(
    {
        "pointer": Scope(
            marked(
                "where the pointer moves, which buttons are pressed, scrolling, and how the displays are arranged"
            ),
            marked("the pointer"),
            ("pointer", "display"),
            ("move", "press", "release", "scroll", "display"),
        ),
        "keys": Scope(
            marked(
                "when keys go down and up and of which class they are (letter, digit, ...), never which letter; "
                "shortcuts with ctrl or cmd by name; the keyboard layout"
            ),
            marked("the rhythm of keys, never which letter"),
            ("keyboard",),
            ("key_press", "key_release", "layout"),
        ),
        "apps": Scope(
            marked("which program the window in use belongs to, and where on the displays that window is"),
            marked("the program in use"),
            ("window",),
            ("focus",),
        ),
        "titles": Scope(
            marked(
                "which program the window in use belongs to, where on the displays that window is, and the title of "
                "that window, which can name documents, web pages and people"
            ),
            marked("the program in use and the titles of its windows"),
            ("window",),
            ("focus",),
        ),
    }
)

DEFAULT_POLICY = marked(
    """\
What you do with the pointer, the keyboard and windows is recorded, as far as
the scopes above say, to train and evaluate computer programs that use
computers.
The text you type is not recorded. The recording says when it runs and stops
when you stop it. What waits on this device lies in a folder of yours, which
you can read and delete.
"""
)

_PLAIN = "Use plain text: control characters could hide what a participant agrees to."
_WIDTH = 80
_FILE_MAX_BYTES = 1024 * 1024
_ID = re.compile("[0-9a-f]{32}")
VIA_WORDS = {
    "terminal": marked("on a terminal"),
    "host": marked("in the program that records"),
    "panel": marked("on the page of the program that records"),
    "unattended": marked("unattended (nobody was asked on this device)"),
}
GRANT_FILE = "grant.json"
"""Its name in the state folder."""


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
    """The text that was agreed to. `policy_digest` tells it from others."""
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
        if self.given_via not in VIA_WORDS:
            raise GrantError(f"given_via is {self.given_via!r}", f"Use one of {', '.join(VIA_WORDS)}.")
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
        language: str = "en",
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
            operator=operator, purpose=purpose, scopes=scopes, policy=policy, language=language,
            given_via="terminal" if stdin.isatty() else "unattended", expires_in=expires_in, earlier=earlier,
        )  # fmt: skip
        tr = Words(language)
        print(
            grant.describe(),
            "",
            tr("Do you agree? Type yes: "),
            sep="\n",
            end="",
            file=stdout,
            flush=True,
        )
        if not is_yes(stdin.readline(), tr):
            raise GrantError(
                tr("No grant was given"), tr("Nothing is collected. Ask again when you have decided.")
            )
        return grant

    @classmethod
    def load(cls, state_dir: str | os.PathLike[str]) -> Grant:
        """The grant recorded in `state_dir`. Raises `GrantError` when there is none or it cannot be read."""
        path = Path(state_dir) / GRANT_FILE
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
        path = folder / GRANT_FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, json.dumps(asdict(self), indent=1).encode())
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

    @property
    def policy_digest(self) -> str:
        """SHA-256 over the text of the policy, but for space around it, 64 hex digits."""
        return sha256(self.policy.strip().encode()).hex()

    def covers(self, scope: str) -> bool:
        """Whether a source of this scope may be started. Who may have titles may have their programs."""
        return scope in self.scopes or (scope == "apps" and "titles" in self.scopes)

    def expired(self, wall_ns: int) -> bool:
        """True from the moment of expiry on."""
        expires_ns = self.expires_ns
        return expires_ns is not None and wall_ns >= expires_ns

    @property
    def given_ns(self) -> int:
        """Unix time in nanoseconds."""
        return int(_parse_time(self.given_at).timestamp()) * 1_000_000_000

    @property
    def expires_ns(self) -> int | None:
        """The moment of expiry as Unix time in nanoseconds; None when there is none."""
        if self.expires_at is None:
            return None
        return int(_parse_time(self.expires_at).timestamp()) * 1_000_000_000

    def describe(self) -> str:
        """The whole grant in a person's words, in its language as far as there is a catalogue: several lines of at most
        80 columns."""
        tr = Words(self.language)
        via = tr(VIA_WORDS[self.given_via])
        days = tr.many("{n} day", "{n} days", self.retention_days).format(n=self.retention_days)
        rows = [
            (tr("Who collects:"), self.operator),
            (tr("What for:"), self.purpose),
            (tr("What:"), ""),
            *((f"  {name}:", tr(SCOPES[name].words)) for name in self.scopes),
            (tr("Given:"), f"{self.given_at} {via}"),
            (tr("Ends:"), self.expires_at or tr("when you withdraw")),
            (tr("Kept for:"), days),
            (
                tr("You are:"),
                tr("{pseudonym} (random, no name is recorded)").format(pseudonym=self.participant),
            ),
            (tr("Policy:"), ""),
        ]
        room = max(16, 2 + max(len(label) for label, _ in rows))
        lines = [line for label, text in rows for line in _wrapped(f"{label:<{room}}{text}", " " * room)]
        lines += [line for text in self.policy.strip().splitlines() for line in _wrapped(f"  {text}", "  ")]
        return "\n".join(lines)


@lru_cache(maxsize=8)  # it is in every batch, and grants are few
def _digest(grant: Grant) -> str:
    canonical = json.dumps(asdict(grant), sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode()).hex()


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
