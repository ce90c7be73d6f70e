"""How much of a key is kept: nothing, its timing, or its class. Never the typed character.

`key_label` is the only place where a key becomes text; sources call it before a record exists.
"""

from __future__ import annotations

import unicodedata
from enum import IntEnum


class KeyDetail(IntEnum):
    """What a key event says, from least to most. Content is refused until it is built with redaction."""

    NONE = 0
    """No key events at all."""
    TIMING = 1
    """When keys go down and up, not which."""
    CLASS = 2
    """The class of the key (default); shortcuts with ctrl or cmd name their key."""

    @classmethod
    def parse(cls, text: str) -> KeyDetail:
        """From `none`, `timing` or `class`. Raises `ValueError` that lists the choices."""
        try:
            return cls[text.upper()]
        except KeyError:
            choices = ", ".join(d.name.lower() for d in cls)
            raise ValueError(f"key detail {text!r} is not one of {choices}") from None


#: All that a key can be called at CLASS, shortcuts apart.
KEY_CLASSES = (
    "letter", "digit", "punctuation", "space", "enter", "tab", "editing", "navigation", "function",
    "modifier", "other",
)  # fmt: skip

_CLASS_OF_NAME = {
    "space": "space",
    "enter": "enter",
    "tab": "tab",
    **dict.fromkeys(("backspace", "delete", "insert"), "editing"),
    **dict.fromkeys(("left", "right", "up", "down", "home", "end", "page_up", "page_down"), "navigation"),
    **dict.fromkeys(("shift", "ctrl", "alt", "alt_gr", "cmd", "hyper", "caps_lock", "num_lock",
                     "scroll_lock", "group"), "modifier"),
    **dict.fromkeys(("esc", "menu", "print_screen", "pause"), "function"),
    **dict.fromkeys((f"f{n}" for n in range(1, 36)), "function"),
}  # fmt: skip


def key_class(char: str | None, name: str | None) -> str:
    """The class of a key that types `char`, or that is called `name` when it types nothing.

    Dead keys and keys that the layout does not map are `other`.
    """
    if name is not None:
        return _CLASS_OF_NAME.get(name, "function" if name.startswith("media_") else "other")
    if char is None or len(char) != 1:
        return "other"
    if char.isalpha():
        return "letter"
    if char.isdigit():
        return "digit"
    if char.isspace():
        return "space"
    return "punctuation" if unicodedata.category(char)[0] in "PS" else "other"


def key_label(
    detail: KeyDetail,
    char: str | None,
    name: str | None,
    *,
    ctrl: bool = False,
    alt: bool = False,
    shift: bool = False,
    cmd: bool = False,
    level3: bool = False,
) -> str | None:
    """What may be kept of one key: None at TIMING, else its class or, for a shortcut, its name.

    With ctrl or cmd held a key types nothing, so it is named (`ctrl+shift+t`). With alt alone it is named
    only when the layout yields no character for it (`alt+tab`). While AltGr or Option is held (`level3`) keys
    type characters such as `@`, the euro sign or `ł`: only the class is kept, whatever else is held.
    """
    if detail < KeyDetail.CLASS:
        return None
    cls = key_class(char, name)
    if level3 or cls in ("modifier", "other"):
        return cls
    types_text = char is not None or cls == "space"
    if ctrl or cmd or (alt and not types_text):
        held = [m for m, on in (("ctrl", ctrl), ("alt", alt), ("shift", shift), ("cmd", cmd)) if on]
        return "+".join([*held, (name or char or "").lower()])
    return cls
