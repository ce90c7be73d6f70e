"""The demo's verdict: what counts as a difference, and that nothing else does."""

from __future__ import annotations

import pytest

from mcilib.cli._demo.report import Figures, table
from mcilib.cli._demo.stations import Station, differences

COUNTS = {"move": 10, "press": 2, "key_press": 3}
IDS = frozenset({"a" * 32, "b" * 32})


def stations(**changed: Station) -> list[Station]:
    names = ("injected", "captured", "spooled", "received", "exported")
    known = [Station(name, COUNTS, IDS if name in names[2:] else None) for name in names]
    return [changed.get(station.name, station) for station in known]


def test_the_same_everywhere_is_no_difference() -> None:
    assert differences(stations()) == []
    assert differences(stations()[1:]) == [], "nothing is injected on a person's own display"
    zero = {**COUNTS, "scroll": 0}
    assert differences(stations(captured=Station("captured", zero))) == [], "none is the same as not named"


@pytest.mark.parametrize("name", ["injected", "captured", "spooled", "received", "exported"])
@pytest.mark.parametrize("change", [{"move": 9}, {"press": 3}, {"key_press": 0}, {"scroll": 1}])
def test_one_event_more_or_less_anywhere_is_a_difference(name: str, change: dict[str, int]) -> None:
    ids = IDS if name in ("spooled", "received", "exported") else None
    found = differences(stations(**{name: Station(name, {**COUNTS, **change}, ids)}))
    kind, number = next(iter(change.items()))
    assert len(found) == 1
    assert found[0].startswith(f"{kind}: ")
    assert f"{name} {number}" in found[0]


@pytest.mark.parametrize("name", ["spooled", "received", "exported"])
@pytest.mark.parametrize("ids", [{"a" * 32}, {"a" * 32, "c" * 32}, set(), {"a" * 32, "b" * 32, "c" * 32}])
def test_another_batch_id_is_a_difference_although_the_counts_agree(name: str, ids: set[str]) -> None:
    found = differences(stations(**{name: Station(name, COUNTS, frozenset(ids))}))
    assert len(found) == len(IDS ^ ids)
    assert all(line.startswith("batch ") and name in line for line in found)


@pytest.mark.parametrize("kind", ["gap", "display", "layout"])
def test_what_nobody_injects_is_compared_but_not_with_what_was_injected(kind: str) -> None:
    more = {**COUNTS, kind: 1}
    seen = [Station(name, more, IDS) for name in ("captured", "spooled", "received", "exported")]
    assert differences([Station("injected", COUNTS), *seen]) == []
    assert differences([*seen[:3], Station("exported", COUNTS, IDS)]) == [
        f"{kind}: captured 1, spooled 1, received 1, exported 0"
    ]


def test_the_table_fits_a_terminal_and_says_what_differs() -> None:
    big = dict.fromkeys(("move", "press", "release", "scroll", "key_press", "key_release", "gap"), 1234567)
    shown = [Station(name, big, None if name[0] in "ic" else IDS) for name in ("injected", "captured")]
    shown += [Station(name, big, IDS) for name in ("spooled", "received", "exported")]
    figures = Figures(
        display=":7", virtual=True, seconds=20.0, stations=shown, batch_bytes=123_456_789, cpu_s=12.3456,
        wakeups=1_234_567, keys={f"ctrl+shift+{n}": 1_000 for n in range(30)}, folder="/f", store="/f/store",
        read=["mcilib export /f/store"], delete="rm -r /f", notes=["a long note " * 12],
        differences=["move: captured 2, spooled 1"],
    )  # fmt: skip
    text = table(figures)
    assert max(map(len, text.splitlines())) <= 80
    assert "NOT the same:\n    move: captured 2, spooled 1\n" in text
    assert "The same everywhere" not in text
