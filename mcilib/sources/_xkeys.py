"""Keys of an X server: which character or name a keycode has under the keyboard layout in force.

pynput reads the core keyboard mapping once and takes AltGr for the second group, so that AltGr+Q on a German
keyboard reads `q` and not `@`, and a layout changed later is never seen. This asks the XKB extension for
the key types and symbols instead and applies them as the X Keyboard Extension protocol says
(https://www.x.org/releases/current/doc/kbproto/xkbproto.html, section 12.2.1: "key types").
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from mcilib.sources._x11 import connect

_SHIFT, _CONTROL = 0x01, 0x04  # fixed by the core protocol; the other modifiers are looked up
_MAPPING_NOTIFY, _KEYBOARD, _MODIFIERS = 34, 1, -1
RULES = "_XKB_RULES_NAMES"
_GROUP_SHIFT = 13  # bits 13 and 14 of a key event's state hold the effective group

_NAMES = {
    0xFF08: "backspace", 0xFF09: "tab", 0xFE20: "tab", 0xFF0D: "enter", 0xFF0A: "enter", 0xFF1B: "esc",
    0xFFFF: "delete", 0xFF63: "insert", 0xFF50: "home", 0xFF51: "left", 0xFF52: "up", 0xFF53: "right",
    0xFF54: "down", 0xFF55: "page_up", 0xFF56: "page_down", 0xFF57: "end", 0xFF67: "menu", 0xFF13: "pause",
    0xFF61: "print_screen", 0xFF15: "print_screen", 0xFF14: "scroll_lock", 0xFF7F: "num_lock",
    0xFFE1: "shift", 0xFFE2: "shift", 0xFFE3: "ctrl", 0xFFE4: "ctrl", 0xFFE5: "caps_lock", 0xFFE6: "caps_lock",
    0xFFE7: "alt", 0xFFE8: "alt", 0xFFE9: "alt", 0xFFEA: "alt", 0xFFEB: "cmd", 0xFFEC: "cmd",
    0xFFED: "hyper", 0xFFEE: "hyper", 0xFE03: "alt_gr", 0xFE11: "alt_gr", 0xFF7E: "alt_gr",
    0xFF8D: "enter", 0xFF80: "space", 0xFF89: "tab", 0xFF95: "home", 0xFF96: "left", 0xFF97: "up",
    0xFF98: "right", 0xFF99: "down", 0xFF9A: "page_up", 0xFF9B: "page_down", 0xFF9C: "end", 0xFF9D: "home",
    0xFF9E: "insert", 0xFF9F: "delete", 0x20: "space", 0xA0: "space",
    **{0xFFBE + n: f"f{n + 1}" for n in range(35)},
    **{0xFF91 + n: f"f{n + 1}" for n in range(4)},
    **dict.fromkeys(range(0xFE04, 0xFE10), "group"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """One key as the layout has it now: the character it types, or its name, and which modifiers are held."""

    char: str | None
    name: str | None
    ctrl: bool
    alt: bool
    shift: bool
    cmd: bool
    level3: bool
    layout: str | None = field(default=None, compare=False)
    """The layout it was typed with, where that is known."""


@dataclass(frozen=True, slots=True)
class _KeyType:
    mask: int
    levels: dict[int, int]  # modifiers held (masked) -> level


@dataclass(frozen=True, slots=True)
class _Syms:
    types: tuple[int, int, int, int]
    group_info: int
    width: int
    syms: tuple[int, ...]


class Keymap:
    """An immutable snapshot of the server's keyboard mapping. Any thread."""

    def __init__(
        self,
        types: list[_KeyType],
        first: int,
        keys: list[_Syms],
        modifiers: list[list[int]],
        layouts: Sequence[str] = (),
        state: int = 0,
    ) -> None:
        self._types, self._first, self._keys, self._layouts = types, first, keys, layouts
        self._state = state
        self.layout = self._layout(state)
        """In force when this was read; None where the server does not say."""
        held = [{self._base_name(code) for code in codes if code} for codes in modifiers]
        self._alt, self._cmd, self._level3 = (
            sum(1 << bit for bit, names in enumerate(held) if bit >= 3 and wanted in names)
            for wanted in ("alt", "cmd", "alt_gr")
        )

    def look_up(self, keycode: int, state: int) -> Key:
        """What `keycode` means under `state` (modifiers and group, as in a core key event)."""
        keysym, level = self._keysym(keycode, state)
        char, name = keysym_meaning(keysym)
        if char is None and name is None:  # say ctrl+alt+F4, which switches consoles: still F4
            name = self._base_name(keycode)
        return Key(
            char=char,
            name=name,
            ctrl=bool(state & _CONTROL),
            alt=bool(state & self._alt),
            shift=bool(state & _SHIFT),
            cmd=bool(state & self._cmd),
            level3=bool(state & self._level3) or (char is not None and level >= 2),
            layout=self._layout(state),
        )

    def named(self, layouts: Sequence[str]) -> Keymap:
        """The same with other names of its groups."""
        other = copy(self)
        other._layouts = layouts
        other.layout = other._layout(other._state)
        return other

    def _layout(self, state: int) -> str | None:
        group = (state >> _GROUP_SHIFT) & 3
        return self._layouts[group] if group < len(self._layouts) else None

    def _keysym(self, keycode: int, state: int) -> tuple[int, int]:
        index = keycode - self._first
        if not 0 <= index < len(self._keys):
            return 0, 0
        key = self._keys[index]
        groups = key.group_info & 0x0F
        if not groups:
            return 0, 0
        group = (state >> _GROUP_SHIFT) & 3
        if group >= groups:  # out of range: clamp, redirect or wrap, as the key says
            rule = key.group_info & 0xC0
            redirected = (key.group_info >> 4) & 3
            group = {0x40: groups - 1, 0x80: redirected if redirected < groups else 0}.get(
                rule, group % groups
            )
        kind = self._types[key.types[group]]
        level = kind.levels.get(state & kind.mask, 0)
        position = group * key.width + level
        return (key.syms[position] if level < key.width and position < len(key.syms) else 0), level

    def _base_name(self, keycode: int) -> str | None:
        return keysym_meaning(self._keysym(keycode, 0)[0])[1]


def keysym_meaning(keysym: int) -> tuple[str | None, str | None]:
    """(character, None) for a key that types, (None, name) for one that does not, (None, None) if unknown.

    Keypad operators and digits are characters. Dead keys type nothing by themselves.
    """
    if keysym in _NAMES:
        return None, _NAMES[keysym]
    if 0x21 <= keysym <= 0xFF:  # Latin-1 keysyms are their code points
        return chr(keysym), None
    if 0x01000100 <= keysym <= 0x0110FFFF:  # Unicode keysyms
        return chr(keysym - 0x01000000), None
    if 0xFFAA <= keysym <= 0xFFB9:
        return chr(keysym - 0xFF80), None
    if keysym >> 8 == 0x1008FF:
        return None, "media_key"
    return _legacy_char(keysym), None


def _legacy_char(keysym: int) -> str | None:
    """Cyrillic, Latin-2 and the other keysyms from before Unicode; dead keys and the like give None."""
    return _legacy_chars().get(keysym) if 0x100 < keysym < 0x3000 else None


@cache
def _legacy_chars() -> dict[int, str]:
    """pynput carries their table. That file alone is run: importing it would import all of pynput, which takes 4 MiB
    and asks the display."""
    found = find_spec("pynput")
    folder = Path(next(iter((found and found.submodule_search_locations) or ["."])))
    spec = spec_from_file_location("mcilib_keysyms", folder / "_util" / "xorg_keysyms.py")
    if spec is None or spec.loader is None:
        raise ImportError("pynput has no table of keysyms")
    table = module_from_spec(spec)
    spec.loader.exec_module(table)
    chars = {keysym: table.SYMBOLS.get(name, (0, None))[1] for keysym, name in table.KEYSYMS.items()}
    return {
        keysym: char
        for keysym, char in chars.items()
        if char is not None and char not in table.DEAD_KEYS and 0x100 < keysym < 0x3000
    }


def read_keymap() -> Keymap:
    """Asks the server that `DISPLAY` names. Raises what Xlib raises when it cannot answer.

    Over a connection of its own: a client that has said it knows XKB is no longer told by MappingNotify that
    the layout was replaced, and the listener's connection waits for that.
    """
    from Xlib.ext.record import RawField
    from Xlib.protocol import rq

    class UseExtension(rq.ReplyRequest):
        _request = rq.Struct(
            rq.Card8("opcode"), rq.Opcode(0), rq.RequestLength(), rq.Card16("major"), rq.Card16("minor")
        )
        _reply = rq.Struct(
            rq.ReplyCode(), rq.Card8("supported"), rq.Card16("sequence_number"), rq.ReplyLength(), rq.Pad(24)
        )

    class GetMap(rq.ReplyRequest):
        _request = rq.Struct(
            rq.Card8("opcode"),
            rq.Opcode(8),
            rq.RequestLength(),
            rq.Card16("device"),
            rq.Card16("full"),
            rq.Pad(20),
        )
        _reply = rq.Struct(
            rq.ReplyCode(),
            rq.Card8("device"),
            rq.Card16("sequence_number"),
            rq.ReplyLength(),
            RawField("data"),
        )

    display = connect()
    try:
        opcode = display.query_extension("XKEYBOARD").major_opcode
        UseExtension(display=display.display, opcode=opcode, major=1, minor=0)
        reply = GetMap(
            display=display.display, opcode=opcode, device=0x100, full=0x03
        )  # core: types, symbols
        state = display.screen().root.query_pointer().mask
        return parse_keymap(
            bytes(reply.data), display.get_modifier_mapping(), read_layout_names(display), state
        )
    finally:
        display.close()


def read_layout_names(display: Any) -> list[str]:
    """As whoever set the layout has left them on the root window, after the layout itself; none where nobody has."""
    rules = display.screen().root.get_full_property(display.intern_atom(RULES), 0)
    return layout_names(bytes(rules.value)) if rules is not None else []


def layout_names(rules: bytes) -> list[str]:
    """One for each group, from the property `RULES`: rules, model, layouts, variants, options, each ended
    by a zero. Names as `setxkbmap -query` lists them, `de(nodeadkeys)` for one with a variant."""
    parts = [part.decode("ascii", "replace") for part in rules.split(b"\0")] + [""] * 4
    layouts, variants = parts[2].split(","), parts[3].split(",") + [""] * 4
    return [
        f"{name}({variant})" if variant else name for name, variant in zip(layouts, variants, strict=False)
    ]


def parse_keymap(
    data: bytes, modifiers: list[list[int]], layouts: Sequence[str] = (), state: int = 0
) -> Keymap:
    """From the body of an XkbGetMap reply, without its first 8 bytes, in the machine's byte order; the names of its
    groups, and the state of the keyboard now."""
    n_types, first_key, n_keys = data[7], data[9], data[12]
    at = 32
    types: list[_KeyType] = []
    for _ in range(n_types):
        mask, _, _, _, n_entries, preserve = struct.unpack_from("=BBHBBB", data, at)
        at += 8
        levels = {}
        for _ in range(n_entries):
            active, entry_mask, level = struct.unpack_from("=BBB", data, at)
            at += 8
            if active:
                levels[entry_mask] = level
        at += 4 * n_entries * bool(preserve)
        types.append(_KeyType(mask, levels))
    keys: list[_Syms] = []
    for _ in range(n_keys):
        t0, t1, t2, t3, group_info, width, n_syms = struct.unpack_from("=6BH", data, at)
        syms = struct.unpack_from(f"={n_syms}I", data, at + 8)
        at += 8 + 4 * n_syms
        keys.append(_Syms((t0, t1, t2, t3), group_info, width, syms))
    return Keymap(types, first_key, keys, modifiers, layouts, state)


class KeyReader:
    """Which key a keycode is, for events that are read late. For the reader's thread.

    A keycode that was mapped anew between its event and the read may have meant either: it reads as no known key,
    unless it is the same in both mappings and nothing stood between them.
    """

    def __init__(self) -> None:
        self._keymap: Keymap | None = None
        self._before: Keymap | None = None
        self._mapped: Counter[int] = Counter()
        """How often each keycode was mapped anew while what is read now was typed; under `_MODIFIERS` the modifiers."""

    def begin(self) -> None:
        self._keymap = read_keymap()
        self._mapped.clear()

    @property
    def layout(self) -> str | None:
        """In force when the mapping was last read."""
        return self._keymap.layout if self._keymap is not None else None

    def changed(self, notices: Sequence[Any], *, unread: bool) -> bool:
        """Takes what the server has told of its mapping; `unread`: some events are older. True if it has changed."""
        mapped: Counter[int] = Counter()
        for event in notices:
            if event.type == _MAPPING_NOTIFY:
                first, count = event.first_keycode, event.count
                mapped.update(range(first, first + count) if event.request == _KEYBOARD else [_MODIFIERS])
        if mapped:
            self._before, self._keymap = self._keymap, read_keymap()
        self._mapped = mapped if unread else Counter()
        return bool(mapped)

    def rename(self, layouts: Sequence[str]) -> None:
        """The names of the layouts have changed."""
        if self._keymap is not None:
            self._keymap = self._keymap.named(layouts)

    def look_up(self, keycode: int, state: int) -> Key:
        """For the events read since `changed`."""
        if self._keymap is None:
            raise RuntimeError("begin() comes first")
        key = self._keymap.look_up(keycode, state)
        if not self._mapped:
            return key
        key = replace(key, layout=None)  # that of before, or the one of now
        times = max(self._mapped[keycode], self._mapped[_MODIFIERS])
        if times > 1 or (times and self._before is not None and self._before.look_up(keycode, state) != key):
            return replace(key, char=None, name=None)
        return key
