"""Which language a participant reads at the command line."""

from __future__ import annotations

import os

from mcilib.language import Words

_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
_AS_IN_THE_CODE = ("en", "c", "posix")


def words_here() -> Words:
    """Of the first of LANGUAGE, LC_ALL, LC_MESSAGES and LANG that is set, as gettext has it. It may name several
    languages (`fr:de`): then the first that there is."""
    named = next((value for name in _VARIABLES if (value := os.environ.get(name))), "")
    for language in named.split(":"):
        words = Words(language)
        plain = language.partition(".")[0].replace("-", "_").partition("_")[0].lower()
        if words.language != "en" or plain in _AS_IN_THE_CODE:
            return words
    return Words()
