"""What participants read, in their language: a gettext catalogue (`mcilib/locale/`), else English, as in the code.

    tr = Words("de-AT")
    tr("Who collects:")                          # the text, translated
    tr("{app} is exempt").format(app=app)        # placeholders by name, filled in afterwards
    tr.many("{n} batch", "{n} batches", n).format(n=n)
    marked("paused")                             # for the catalogue; looked up later, by tr(...)

The calls are what the catalogue is made from (`make words`), so each has its text in it and no variable. Nothing of the
environment is read here: whoever makes `Words` says which language.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

TYPE_CHECKING = False  # as typing's, which takes 8 ms to import

if TYPE_CHECKING:
    from datetime import tzinfo
    from gettext import NullTranslations

_TAG = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,4}")
_ENGLISH = "en"
_LAST_S = 253_402_214_400  # the last day that a calendar has


class Words:
    """The texts in one language. Immutable, any thread; equal when their language is.

    `language` is a tag (BCP 47, or as in LANG: `de`, `de-AT`, `de_AT.UTF-8`). A part of it is enough: for `de-AT` there
    is `de`. What is no tag, or has no catalogue, is English; so is a text that a catalogue does not have.
    """

    __slots__ = ("_catalogue", "language")

    def __init__(self, language: str = _ENGLISH) -> None:
        self.language, self._catalogue = _found(language)

    def __call__(self, text: str) -> str:
        return self._catalogue.gettext(text) if self._catalogue is not None and text else text

    def many(self, one: str, more: str, number: int) -> str:
        """The form for `number`: a language may have more than two."""
        if self._catalogue is None:
            return one if number == 1 else more
        return self._catalogue.ngettext(one, more, number)

    def number(self, value: float, form: str = ",") -> str:
        """`format(value, form)` with the signs between digits that the language has."""
        tr = self
        # Translators: how this number is written: which signs stand between thousands and before decimals.
        sample = tr("1,234.5")
        signs = {",": sample[1], ".": sample[-2]}
        return "".join(signs.get(character, character) for character in format(value, form))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Words) and self.language == other.language

    def __hash__(self) -> int:
        return hash(self.language)

    def __repr__(self) -> str:
        return f"Words({self.language!r})"


def marked(text: str) -> str:
    """The text itself: it stands in a table, and is looked up where it is shown."""
    return text


def is_yes(answer: str, tr: Words) -> bool:
    """Whether a line that was typed is a yes, in full or by its first letter; the English one counts everywhere."""
    yes = {"yes", tr("yes").lower()}
    return answer.strip().lower() in yes | {word[0] for word in yes}


def one_line(text: str) -> str:
    """Without line breaks, and with what cannot be shown escaped: it stays what it is, on a terminal too."""
    text = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def moment(wall_ns: int, tz: tzinfo | None = None) -> str:
    """Unix time as clocks on the wall show it, such as `2026-01-31 12:30`; in the system's time zone unless given."""
    from datetime import UTC, datetime

    seconds = min(max(wall_ns // 10**9, 0), _LAST_S)
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone(tz).strftime("%Y-%m-%d %H:%M")
    except (OSError, OverflowError, ValueError):  # Windows knows few years
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def lasting(seconds: float, tr: Words) -> str:
    """How long, in its two largest units: `3 days 4 h`, `2 h 5 min`, `4 min 30 s`, `0 s`. Part of a second is one."""
    whole = max(0, math.ceil(seconds))
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        text = tr.many("{n} day", "{n} days", days).format(n=tr.number(days))
        return f"{text} {hours} h" if hours else text
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    return f"{seconds} s"


@lru_cache(maxsize=8)
def _found(language: str) -> tuple[str, NullTranslations | None]:
    """The tag and the catalogue of the nearest language there is."""
    tag = language.partition(".")[0].partition("@")[0]
    if _TAG.fullmatch(tag):
        parts = re.split("[-_]", tag)
        for length in range(len(parts), 0, -1):
            name = "_".join([parts[0].lower(), *parts[1:length]])
            catalogue = _catalogue(name) if parts[0].lower() != _ENGLISH else None
            if catalogue is not None:
                return name.replace("_", "-"), catalogue
    return _ENGLISH, None


def _catalogue(name: str) -> NullTranslations | None:
    import io
    import pkgutil  # finds it in an archive and in a frozen program too
    from gettext import GNUTranslations

    try:
        data = pkgutil.get_data("mcilib", f"locale/{name}/LC_MESSAGES/mcilib.mo")
        return GNUTranslations(io.BytesIO(data)) if data is not None else None
    except Exception:  # it is not there, or damaged: gettext raises what it likes
        return None


ENGLISH = Words()
