"""What a key may be called: the table of the design, without a display."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcilib.privacy import KEY_CLASSES, KeyDetail, key_class, key_label


@pytest.mark.parametrize(
    ("char", "name", "expected"),
    [
        ("a", None, "letter"), ("ł", None, "letter"), ("й", None, "letter"), ("ß", None, "letter"),
        ("7", None, "digit"), (".", None, "punctuation"), ("@", None, "punctuation"), ("€", None, "punctuation"),
        ("^", None, "punctuation"), ("\u0301", None, "other"), (" ", None, "space"), ("\u00a0", None, "space"),
        (None, "space", "space"), (None, "enter", "enter"), (None, "tab", "tab"),
        (None, "backspace", "editing"), (None, "delete", "editing"), (None, "left", "navigation"),
        (None, "page_up", "navigation"), (None, "f1", "function"), (None, "f24", "function"),
        (None, "esc", "function"), (None, "media_play_pause", "function"), (None, "shift", "modifier"),
        (None, "alt_gr", "modifier"), (None, "caps_lock", "modifier"), (None, None, "other"),
        (None, "unheard_of", "other"), ("ab", None, "other"),
    ],
)  # fmt: skip
def test_classes(char, name, expected):
    assert key_class(char, name) == expected
    assert expected in KEY_CLASSES


@pytest.mark.parametrize(
    ("char", "name", "held", "expected"),
    [
        ("c", None, {"ctrl"}, "ctrl+c"),
        ("T", None, {"ctrl", "shift"}, "ctrl+shift+t"),
        ("l", None, {"cmd"}, "cmd+l"),
        (None, "delete", {"ctrl", "alt"}, "ctrl+alt+delete"),
        ("f", None, {"alt"}, "letter"),
        (None, "space", {"alt"}, "space"),
        (None, "tab", {"alt"}, "alt+tab"),
        (None, "tab", {"alt", "shift"}, "alt+shift+tab"),
        (None, "f4", {"alt"}, "alt+f4"),
        ("@", None, {"level3"}, "punctuation"),
        ("@", None, {"level3", "ctrl"}, "punctuation"),
        ("@", None, {"level3", "ctrl", "alt"}, "punctuation"),
        (None, "tab", {"level3", "alt"}, "tab"),
        (None, "shift", {"ctrl"}, "modifier"),
        ("a", None, {"shift"}, "letter"),
        (None, None, {"ctrl"}, "other"),
    ],
)
def test_shortcuts(char, name, held, expected):
    assert key_label(KeyDetail.CLASS, char, name, **dict.fromkeys(held, True)) == expected


CHARS = st.none() | st.characters()
HELD = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("ctrl", "alt", "shift", "cmd", "level3"), st.booleans())
)


@given(CHARS, HELD)
def test_what_types_is_never_named(char, held):
    """Without ctrl or cmd, and always with AltGr, the label is one of the classes."""
    label = key_label(KeyDetail.CLASS, char, None, **held)
    if not (held.get("ctrl") or held.get("cmd")) or held.get("level3"):
        assert label in KEY_CLASSES


@given(CHARS, HELD)
def test_timing_says_nothing(char, held):
    assert key_label(KeyDetail.TIMING, char, None, **held) is None
    assert key_label(KeyDetail.NONE, char, None, **held) is None


def test_details_are_ordered_and_parsed():
    assert KeyDetail.NONE < KeyDetail.TIMING < KeyDetail.CLASS
    assert KeyDetail.parse("class") is KeyDetail.CLASS
    with pytest.raises(ValueError, match="none, timing, class"):
        KeyDetail.parse("content")
