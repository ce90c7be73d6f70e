"""Vectors that are read. What is expected stands beside the columns, written by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgpack
from batches import MS, WALL_NS, batch, frame_of, one_of_each
from frames import (
    ABOUT,
    ANCHOR_NS,
    HEAD,
    compressed,
    of_columns,
    of_payload,
    of_raw,
    packed,
    stored,
    version_0,
)
from generate import Case

from mcilib.clock import ClockAnchor
from mcilib.events import (
    Display,
    Event,
    Focus,
    Gap,
    KeyPress,
    KeyRelease,
    Layout,
    Move,
    Press,
    Release,
    Scroll,
)
from mcilib.format.batch import Batch, Coverage, encode

NOTHING = {"clocks": {}, "coverage": Coverage()}
"""What `ABOUT` says of sources and coverage."""


def at(ms: float) -> int:
    """Milliseconds after the anchor."""
    return int(ANCHOR_NS + round(ms * MS))


def by_hand(
    about: str, rules: str, columns: dict[str, Any], *events: Event, canonical: bool = True, **fields: Any
) -> Case:
    """Columns as they are on the wire, and the rows they are."""
    return Case(
        about,
        tuple(rules.split()),
        lambda: of_columns(columns),
        batch(*events, **{**NOTHING, **fields}),
        canonical,
    )


def written(about: str, rules: str, expected: Batch) -> Case:
    """As mcilib writes it."""
    return Case(about, tuple(rules.split()), lambda: encode(expected), expected)


def _moves(*places: tuple[float, int, int]) -> tuple[Move, ...]:
    return tuple(Move(at(ms), x, y) for ms, x, y in places)


def _weight(weight: int) -> Case:
    # Errors 4, -1, 3, 0 in x and 0, 0, 0, -5 in y, whose steps for each weight are these.
    steps = {0: (4, -1, 3, 0), 1: (4, 0, 3, 0), 2: (4, 1, 3, 1), 3: (4, 2, 4, 3), 4: (4, 3, 6, 6)}[weight]
    xs = [sum(steps[: n + 1]) for n in range(4)]
    columns: dict[str, Any] = {"x": bytes((8, 1, 6, 0)), "y": bytes((0, 0, 0, 9)), "t": bytes((0, 8, 8, 8))}
    if weight:
        columns["w"] = weight
    moves = _moves(*((8 * n, x, -5 if n == 3 else 0) for n, x in enumerate(xs)))
    return by_hand(f"the predictor with weight {weight}", "R4", columns, *moves, canonical=weight == 0)


def _sealed(*keys: int) -> Callable[[], bytes]:
    def frame() -> bytes:
        import pyrage

        recipients = [str(pyrage.x25519.Identity.from_str(identities()[n]).to_public()) for n in keys]
        return encode(batch(*one_of_each()), recipients=recipients)

    return frame


def identities() -> tuple[str, ...]:
    """Test keys: `identities.txt`."""
    from generate import HERE

    lines = (HERE / "identities.txt").read_text("ascii").splitlines()
    return tuple(line for line in lines if line.startswith("AGE-SECRET-KEY-"))


def _key_ids(*keys: int) -> tuple[str, ...]:
    import pyrage

    publics = [str(pyrage.x25519.Identity.from_str(identities()[n]).to_public()) for n in keys]
    return tuple(hashlib.sha256(public.encode()).hexdigest()[:8] for public in publics)


def cases() -> dict[str, Case]:
    return {
        **_basic(),
        **_times(),
        **_places(),
        **_kinds(),
        **_about(),
        **_other_forms(),
        **_sealing(),
        **_version_0(),
    }


def _basic() -> dict[str, Case]:
    return {
        "empty": by_hand("a batch without a row", "M2", {}),
        "every_kind": written("every kind of event, every field", "C8 R2 R6 R9", batch(*one_of_each())),
        "moves": by_hand(
            "four moves, with the escapes of neither times nor positions",
            "C8",
            {"x": bytes((20, 1, 3, 0)), "y": bytes((40, 2, 0, 4)), "t": bytes((0, 8, 7, 9))},
            *_moves((0, 10, 20), (8, 9, 21), (15, 7, 21), (24, 7, 23)),
        ),
        **{f"weight_{weight}": _weight(weight) for weight in range(5)},
    }


def _times() -> dict[str, Case]:
    slow = (0, 15.6001, 31.2002, 46.8003, 62.4004, 78.0005, 93.6006, 109.2007, 124.8008, 140.4009)
    moves = _moves(*((round(ms), 3 * n * n, -n) for n, ms in enumerate(slow)))
    ten = {"x": bytes((2,) * 10), "y": bytes(10), "t": bytes((0, *(1,) * 9))}
    far, one_move = 2**63 - 1, {"x": b"\2", "y": b"\2"}
    return {
        "times_long": by_hand(
            "times of 255 ticks and more, and one that lies before the anchor",
            "C8 T1",
            {"x": bytes((2,) * 5), "y": bytes(5), "t": bytes((255, 254, 255, 255, 0)), "u": [-275, 0, 69_745]},
            *_moves((-20, 1, 0), (234, 2, 0), (489, 3, 0), (70_489, 4, 0), (70_489, 5, 0)),
        ),
        "times_between_kinds": by_hand(
            "differences of time count from the row before, of whatever kind",
            "R3",
            {
                "x": bytes((2, 2)), "y": bytes(2), "t": bytes((5, 30)), "k": bytes((4, 5, 4)),
                "i": [0, 1, 0], "j": [-3, 10, 0], "E": [5],
            },
            KeyPress(at(-3), "letter"), *_moves((2, 1, 0)), KeyRelease(at(12), "letter"), KeyPress(at(12), "letter"),
            *_moves((42, 2, 0)),
        ),
        "clock_steps": written("a clock of 15.6001 ms", "T3", batch(*moves, **NOTHING)),
        "clock_steps_corrected": by_hand(
            "a clock step whose guess is wrong for two rows, and steps before the anchor",
            "T3",
            {**ten, "t": bytes((255, *(1,) * 9)), "u": [-256], "C": [15_625_000, -500_000], "h": [2, 5], "r": [1, -3]},
            # floor((step * 15.625 - 0.5) / 1) for the steps -1, 0, 1 ... 8; then +1 in row 2 and -3 in row 7
            *_moves(*((ms, n + 1, 0) for n, ms in enumerate((-17, -1, 16, 30, 46, 62, 77, 90, 108, 124)))),
            canonical=False,
        ),
        "times_unordered": by_hand(
            "rows that are not in order of time are put in order, those of the same tick stay as they are",
            "T2",
            {"x": bytes((2,) * 4), "y": bytes(4), "t": bytes((9, 255, 4, 0)), "u": [-260]},
            *_moves((4, 2, 0), (8, 3, 0), (8, 4, 0), (9, 1, 0)),
            canonical=False,
        ),
        "corrections_large": by_hand(
            "only the result of all sums is judged",
            "T1 T3",
            {**one_move, "t": b"\xff", "u": [-(2**63)], "C": [1_000_000, 0], "h": [0], "r": [2**63]},
            Move(at(255), 1, 1), canonical=False,
        ),
        "times_unordered_all": by_hand(
            "columns count rows as they are written; putting them in order comes last",
            "T2",
            {
                "x": bytes((2, 2)), "y": bytes(2), "t": bytes((9, 255)), "u": [-260],
                "k": bytes((1,)), "i": [2], "j": [0], "B": [0], "z": [1, True],
            },
            Move(at(4), 2, 0, True), Press(at(4), 2, 0, "left", True), Move(at(9), 1, 0),
            canonical=False,
        ),
        "times_extreme": Case(
            "an anchor and a time as late as both clocks can hold",
            ("T1", "M1"),
            lambda: of_columns({"k": b"\6", "i": [0], "j": [1], "l": [far], "G": [20], "M": [-far, far - 7, *ABOUT[2:3], 7, *ABOUT[4:]]}),
            batch(Gap(-far + 7, far, "suspend"), anchor=ClockAnchor(-far, far - 7), tick_ns=7, **NOTHING),
        ),
        "tick_of_a_minute": Case(
            "the longest tick",
            ("M1",),
            lambda: of_columns({"x": b"\2", "y": b"\2", "t": b"\2", "M": [*ABOUT[:3], 60 * 10**9, *ABOUT[4:]]}),
            batch(Move(at(120_000), 1, 1), tick_ns=60 * 10**9, **NOTHING),
        ),
    }  # fmt: skip


def _places() -> dict[str, Case]:
    far = 2**31 - 1
    return {
        "positions_wide": by_hand(
            "steps of more than 127 pixels: -128 and 128 are the first that do not fit",
            "C8 R4",
            {
                "x": bytes((254, 255, 0, 255)), "y": bytes((253, 255, 255, 0)), "t": bytes((0, 1, 1, 1)),
                "v": [0, 1, 546, 300],
            },
            *_moves((0, 127, -127), (1, -1, 1), (2, -1, -400), (3, -279, -400)),
        ),
        "positions_extreme": written(
            "the farthest positions", "R4",
            batch(*_moves((0, far, -far), (1, -far, far), (2, 0, 0)), **NOTHING),
        ),
        "positions_extreme_quanta": by_hand(
            "the farthest positions in quanta, which are no whole pixels, of rows that are not in order of time",
            "R4 R5 T2",
            {
                "x": b"\xff\0", "y": b"\xff\0", "t": b"\5\xff", "v": [2 * far - 255, 2 * far - 1 - 255], "u": [-256],
                "k": b"\1", "i": [2], "j": [0], "a": [0], "p": [far], "q": [-far], "B": [0], "M": [*ABOUT, 256],
            },
            Move(at(4), far / 256, -far / 256), Press(at(4), far / 256, -far / 256, "left"),
            Move(at(5), far / 256, -far / 256),
            canonical=False, quanta_per_px=256,
        ),
        "positions_elsewhere": by_hand(
            "clicks that are not where the last move was, and one before any move",
            "R5",
            {
                "x": bytes((20,)), "y": bytes((40,)), "t": bytes((5,)),
                "k": bytes((1, 2, 1, 2, 3)), "i": [0, 0, 1, 0, 0], "j": [0, 4, 1, 2, 3],
                "a": [1, 2], "p": [-300, 307], "q": [2, 18], "B": [0, 2], "b": [0, 0, 1, 1], "s": [1],
            },
            Press(at(0), 0, 0, "left"), Release(at(4), -300, 2, "left"), *_moves((9, 10, 20)),
            Press(at(10), 10, 20, "right"), Release(at(12), 7, 20, "right"), Scroll(at(15), 10, 20, 0, 1, 1),
        ),
        "quanta_256": by_hand(
            "positions in 1/256 pixel, of moves and of clicks",
            "M1 R4",
            {
                "x": bytes((3, 2)), "y": bytes((255, 0)), "t": bytes((0, 1)), "v": [2 * 2560 - 255],
                "k": bytes((1,)), "i": [2], "j": [1], "a": [0], "p": [-128], "q": [1], "B": [0],
                "M": [*ABOUT, 256],
            },
            Move(at(0), -2 / 256, 10.0), Move(at(1), -1 / 256, 10.0), Press(at(2), -0.5, 1 / 256, "left"),
            quanta_per_px=256,
        ),
    }  # fmt: skip


def _kinds() -> dict[str, Case]:
    still = {"i": [0, 0, 0], "j": [0, 0, 0]}
    far = 2**31 - 1
    return {
        "buttons_and_keys": by_hand(
            "words by number and as text, a table with one entry needs no index, a key that is not said",
            "R6 W1",
            {
                "k": bytes((1, 2, 4, 5, 4)), "i": [0] * 5, "j": [0] * 5, "B": ["button9"],
                "E": ["ctrl+shift+t", None, 15], "e": [0, 1, 2],
            },
            Press(at(0), 0, 0, "button9"), Release(at(0), 0, 0, "button9"),
            KeyPress(at(0), "ctrl+shift+t"), KeyRelease(at(0), None), KeyPress(at(0), "other"),
        ),
        "scrolls": by_hand(
            "steps up and to the right, a fraction, a count that is not their sum",
            "R7 R8",
            {"k": bytes((3, 3, 3)), **still, "s": [-3, 0, 0.1], "d": [0, 2, -1.5], "c": [3, 2, 2**31 - 1]},
            Scroll(at(0), 0, 0, 0, -3, 3), Scroll(at(0), 0, 0, 2, 0, 2), Scroll(at(0), 0, 0, -1.5, 0.1, 2**31 - 1),
        ),
        "scrolls_whole": by_hand(
            "counts that are the sum of the steps are left out",
            "R7",
            {"k": bytes((3, 3, 3)), **still, "s": [-3, 0, 1], "d": [0, 2, -4]},
            Scroll(at(0), 0, 0, 0, -3, 3), Scroll(at(0), 0, 0, 2, 0, 2), Scroll(at(0), 0, 0, -4, 1, 5),
        ),
        "gaps": by_hand(
            "a source that saw nothing, and a machine that slept",
            "R8",
            {"k": bytes((6, 6)), "i": [0, 0], "j": [1, 0], "l": [600 * 10**9, 2**63 - 1], "G": [16, 20], "g": [0, 1]},
            Gap(at(1), 600 * 10**9, "pointer"), Gap(at(1), 2**63 - 1, "suspend"),
        ),
        "displays": by_hand(
            "a display, a scaled and turned one to the left of it, which then goes",
            "R9",
            {
                "k": bytes((7, 7, 7)), **still,
                "Y": [0, 0, 0, 1280, 800, 1, 0, 255, -1080, -180, 1080, 1920, 1.25, 270, 255, 0, 0, 0, 0, 64, 0],
            },
            Display(at(0), 0, 0, 0, 1280, 800), Display(at(0), 255, -1080, -180, 1080, 1920, 1.25, 270),
            Display(at(0), 255, 0, 0, 0, 0, 64.0),
        ),
        "fields_extreme": by_hand(
            "the largest and smallest of displays, windows, scrolls and gaps",
            "R7 R8 R9",
            {
                "k": bytes((7, 7, 9, 3, 3, 6)), "i": [0] * 6, "j": [0] * 6,
                "s": [2**53, -(2**53)], "d": [-(2**53), 2**53], "c": [1, 2**31 - 1], "l": [0], "G": [20],
                "Y": [0, -far, far, far, far, 64, 0, 255, far, -far, 0, 0, 2**-20, 90],
                "A": ["editor"], "W": [-far, far, far, -far],
            },
            Display(at(0), 0, -far, far, far, far, 64.0), Display(at(0), 255, far, -far, 0, 0, 2**-20, 90),
            Focus(at(0), "editor", None, -far, far, far, -far),
            Scroll(at(0), 0, 0, -(2**53), 2**53, 1), Scroll(at(0), 0, 0, 2**53, -(2**53), 2**31 - 1),
            Gap(at(0), 0, "suspend"),
        ),
        "layouts": by_hand(
            "keyboard layouts by name", "W1",
            {"k": bytes((8, 8)), "i": [0, 0], "j": [0, 1], "L": ["us", "de(nodeadkeys)"]},
            Layout(at(0), "us"), Layout(at(1), "de(nodeadkeys)"),
        ),
        "focus_apps_only": by_hand(
            "applications without titles and places", "C8",
            {"k": bytes((9, 9)), "i": [0, 0], "j": [0, 1], "A": ["editor", None]},
            Focus(at(0), "editor"), Focus(at(1), None),
        ),
        "focus_windows": by_hand(
            "a title of 512 bytes, the place of a window, and what is not said", "C7 R9",
            {
                "k": bytes((9, 9)), "i": [0, 0], "j": [0, 1], "A": ["editor", "\u7535\u5b50"],
                "T": ["\u00e9" * 256, None], "W": [None, None, None, None, -8, 20, 640, 480],
            },
            Focus(at(0), "editor", "\u00e9" * 256), Focus(at(1), "\u7535\u5b50", None, -8, 20, 640, 480),
        ),
        "synthetic": by_hand(
            "moves and a key by a program, by hand, and by nobody knows whom; other kinds do not count",
            "R10",
            {
                "x": bytes((2, 2, 2)), "y": bytes(3), "t": bytes((0, 1, 1)),
                "k": bytes((8, 4)), "i": [1, 1], "j": [0, 1], "E": [5], "L": ["us"],
                "z": [1, True, 1, False, 1, None],
            },
            Move(at(0), 1, 0), Layout(at(0), "us"), Move(at(1), 2, 0, True),
            KeyPress(at(2), "letter", False), Move(at(3), 3, 0),
        ),
    }  # fmt: skip


def _about() -> dict[str, Case]:
    return {
        "plan_and_coverage": Case(
            "a plan with its reasons, and everything that is not among the rows",
            ("M2", "M3"),
            lambda: of_columns(
                {
                    "x": b"\2", "y": b"\2", "t": b"\0", "M": [*ABOUT, 1, 500, 4, 2**63 - 1, 30 * 10**9],
                    "S": [16, 21, "gaze", "camera"], "D": [27, 3, "too_fast", 2**53],
                    "P": ["motion", "thinned", "tolerance_px", 2.5, "age_s", 300, "upload", None, "keys", True],
                    "R": ["battery below 20 %", "metered network"],
                }
            ),
            batch(
                Move(at(0), 1, 1),
                clocks={"pointer": "x11", "gaze": "camera"},
                coverage=Coverage(500, 2**63 - 1, 4, 30 * 10**9, {"buffer_full": 3, "too_fast": 2**53}),
                levers={"motion": "thinned", "tolerance_px": 2.5, "age_s": 300, "upload": None, "keys": True},
                reasons=("battery below 20 %", "metered network"),
            ),
        ),
        "backends": by_hand(
            "what the sources were heard with: words of this column only, a word of all, text, and one that does not say",
            "M4 W1",
            {"M": ABOUT, "S": [16, 21, 17, 21, 18, 22, "gaze", 22, "pen", 23], "by": [32, 33, 21, "camera", None]},
            clocks={"pointer": "x11", "keyboard": "x11", "window": "callback", "gaze": "callback", "pen": "trace"},
            backends={"pointer": "xrecord", "keyboard": "pynput", "window": "x11", "gaze": "camera"},
        ),
        "backends_as_text": by_hand(
            "words that have a number, as text", "M4 N1",
            {"by": ["xrecord", "pynput", "trace"], "S": [16, 21, 17, 21, 18, 23], "M": ABOUT},
            clocks={"pointer": "x11", "keyboard": "x11", "window": "trace"},
            backends={"pointer": "xrecord", "keyboard": "pynput", "window": "trace"}, canonical=False,
        ),
        "backends_elsewhere": by_hand(
            "words of the column of backends are text everywhere else", "M4 W1",
            {"k": b"\4\x08", "i": [0, 0], "j": [0, 0], "E": ["pynput"], "L": ["xrecord"], "M": [*ABOUT[:5], "xrecord"],
             "S": ["xrecord", "pynput"], "by": [32]},
            KeyPress(at(0), "pynput"), Layout(at(0), "xrecord"),
            platform="xrecord", clocks={"xrecord": "pynput"}, backends={"xrecord": "xrecord"},
        ),
        "backends_not_said": by_hand(
            "no source says what it was heard with", "N1",
            {"M": ABOUT, "S": [16, 21, 17, 21], "by": [None, None]},
            clocks={"pointer": "x11", "keyboard": "x11"}, canonical=False,
        ),
        "backends_of_no_source": by_hand(
            "an empty column of backends, and no sources", "N1", {"M": ABOUT, "by": []}, canonical=False
        ),
        "audit": by_hand(
            "the head of the participant's audit log", "M5",
            {"M": ABOUT, "R": ["why"], "audit": bytes(range(32))}, reasons=("why",), audit=bytes(range(32)).hex(),
        ),
        "levers_extreme": by_hand(
            "the largest and smallest integer of a plan, one like a number of a word, and a float", "M3",
            {"M": ABOUT, "P": ["most", 2**63 - 1, "least", -(2**63) + 1, "word", 0, "text", "0", "float", 5e-324]},
            levers={"most": 2**63 - 1, "least": -(2**63) + 1, "word": 0, "text": "0", "float": 5e-324},
        ),
        "other_software": Case(
            "written by something else, on a platform that has no number",
            ("W1", "M1"),
            lambda: of_columns({"M": [*ABOUT[:4], "recorder/9.1", "haiku"]}),
            batch(software="recorder/9.1", platform="haiku", **NOTHING),
        ),
        "entries_of_the_future": Case(
            "entries that later writers add to the header and to M",
            ("H7", "M2"),
            lambda: of_columns(
                {"M": [*ABOUT, 1, 0, 0, 0, 0, "new", -1, b"\1"]},
                msgpack.packb([*msgpack.unpackb(HEAD), "new", [1, [2]], None]),
            ),
            batch(**NOTHING),
            canonical=False,
        ),
        "header_alone": Case(
            "the header of another participant and device", ("H2",),
            lambda: frame_of(
                msgpack.packb([b"\1" * 16, b"\2" * 16, b"\3" * 16, b"\4" * 32, 0, []]), stored(packed({}))
            ),
            batch(batch_id="01" * 16, participant="02" * 16, device="03" * 16, grant="04" * 32, sequence=0, **NOTHING),
        ),
        "columns_of_the_future": by_hand(
            "columns with long names, whatever they hold, are ignored",
            "C9",
            {"screen": {"key frames": [[1, 2], {"deep": [None] * 20}]}, "gaze_x": [0.5] * 9, "x": b"\2", "y": b"\2",
             "t": b"\0", "note": "x" * 600},
            Move(at(0), 1, 1), canonical=False,
        ),
    }  # fmt: skip


def _other_forms() -> dict[str, Case]:
    press = (Press(at(3), 1, 1, "left"), Release(at(3), 1, 1, "left"), Display(at(4), 1, 2, 3, 4, 5, 1.25))
    one = {"x": b"\2", "y": b"\2", "t": b"\3"}
    loose = (  # the same columns backwards, long forms of lengths and integers, a float of 32 bits, an index for one entry
        b"\xdf\0\0\0\x0b"
        b"\xd9\1M"
        + b"\xdc\0\6\xcf"
        + ANCHOR_NS.to_bytes(8, "big")
        + b"\xcf"
        + WALL_NS.to_bytes(8, "big")
        + b"\xc5\0\10"
        + ABOUT[2]
        + b"\xcf"
        + MS.to_bytes(8, "big")
        + b"\xda\0\5"
        + b"0.1.0"
        + b"\xd9\5linux"
        + b"\xa1Y\xdc\0\7\1\2\3\xcc\4\xcd\0\5\xca\x3f\xa0\0\0\0"
        + b"\xa1B\x91\xa4left\xa1b\x92\xd1\0\0\xd3\0\0\0\0\0\0\0\0"
        + b"\xa1j\xdd\0\0\0\3\xd2\0\0\0\0\0\1\xa1i\x93\1\0\0\xa1k\xc6\0\0\0\3\1\2\7"
        + b"\xa1w\xd0\0\xa1t\xc4\1\3\xa1y\xc4\1\2\xa1x\xc5\0\1\2"
    )
    return {
        "canonical_order": by_hand(
            "what other_forms is in canonical form", "N1",
            {**one, "k": bytes((1, 2, 7)), "i": [1, 0, 0], "j": [0, 0, 1], "B": [0], "Y": [1, 2, 3, 4, 5, 1.25, 0]},
            *_moves((3, 1, 1)), *press,
        ),
        "other_forms": Case(
            "another order of columns, long forms, words as text, what could be left out",
            ("N1",),
            lambda: of_raw(loose),
            batch(*_moves((3, 1, 1)), *press, **NOTHING),
            canonical=False,
        ),
        "left_over": by_hand(
            "empty columns, and a table of words that no row needs", "N1",
            {**one, "B": [0, 1, 2], "k": b"", "i": [], "v": [], "z": []},
            *_moves((3, 1, 1)), canonical=False,
        ),
        "content_checksum": Case(
            "a Zstandard frame with a content checksum", ("Z5",),
            lambda: of_payload(compressed(packed(one), write_checksum=True)),
            batch(*_moves((3, 1, 1)), **NOTHING),
        ),
        "window_of_8_mib": Case(
            "a Zstandard frame that asks for the largest window", ("Z2",),
            # 0x68: a window of 2^23 bytes; a content size of 4 bytes, not a single segment
            lambda: of_payload(stored(packed(one))[:4] + b"\x80\x68" + stored(packed(one))[5:]),
            batch(*_moves((3, 1, 1)), **NOTHING),
        ),
        "sequence_largest": Case(
            "the largest sequence", ("H3",),
            lambda: of_columns(one, msgpack.packb([*msgpack.unpackb(HEAD)[:4], 10**16 - 1, []])),
            batch(*_moves((3, 1, 1)), sequence=10**16 - 1, **NOTHING),
        ),
    }  # fmt: skip


def _sealing() -> dict[str, Case]:
    return {
        f"sealed_{name}": Case(
            f"sealed to {words}; opened by {opener}",
            ("S1", "H5", "H8"),
            _sealed(*keys),
            batch(*one_of_each(), key_ids=_key_ids(*keys)),
            identities=(identities()[opening],),
        )
        for name, words, keys, opener, opening in (
            ("to_one", "one key", (0,), "it", 0),
            ("to_two", "two keys", (0, 1), "the second", 1),
        )
    }


def _version_0() -> dict[str, Case]:
    columns: dict[str, list[Any]] = {
        "kind": [0, 1, 2, 3, 3, 4, 5, 6], "t": [0, 7, 7, 7, 7, 7, 7, 7], "x": [640, 0, -643, 0, 0], "y": [400, 0, 1, 0, 0],
        "dx": [0, 0.25], "dy": [-5, 0], "count": [5, 1], "duration": [600 * 10**9],
        "buttons": ["left", "button9"], "button": [0, 1], "keys": ["ctrl+c", None], "key": [0, 1],
        "sources": ["pointer"], "source": [0],
    }  # fmt: skip
    events = (
        Move(at(0), 640, 400), Press(at(7), 640, 400, "left"), Release(at(14), -3, 401, "button9"),
        Scroll(at(21), -3, 401, 0, -5, 5), Scroll(at(28), -3, 401, 0.25, 0, 1),
        KeyPress(at(35), "ctrl+c"), KeyRelease(at(42), None), Gap(at(49), 600 * 10**9, "pointer"),
    )  # fmt: skip
    return {
        "v0_every_kind": Case(
            "version 0: every kind of event that it had",
            ("F2",),
            lambda: version_0(columns, rows=8, events=12, last=49),
            batch(*events),
            canonical=False,
            version=0,
        ),
        "v0_empty": Case(
            "version 0: without a row", ("F2",), lambda: version_0({}), batch(), canonical=False, version=0
        ),
    }  # fmt: skip
