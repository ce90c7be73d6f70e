"""Paths of a pointer, and how far apart two of them are, in exact arithmetic and written from the rule alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TypeAlias

from hypothesis import strategies as st

from mcilib.events import Event, Gap, KeyPress, Move, Press, Release, Scroll

MS = 1_000_000
REST_NS = 100 * MS

Sample: TypeAlias = "tuple[int, int, int]"
"""Tick, x and y in quanta."""


def errors(every: Sequence[Sample], kept: Sequence[int], tick_ns: int) -> Iterator[Fraction]:
    """How far (Chebyshev, in quanta) the path of the samples at these places in `every` is from the path of all of
    them: at each sample, and at both ends of each stretch of time between two, where both paths are straight."""
    assert kept[0] == 0
    assert kept[-1] == len(every) - 1
    at = 0  # in `kept`: the last one up to here
    for k, sample in enumerate(every):
        if at + 1 < len(kept) and kept[at + 1] == k:
            at += 1
        begin = every[kept[at]]
        if kept[at] == k:
            yield Fraction(0)
        else:
            yield _apart(sample, _way(begin, every[kept[at + 1]], sample[0], tick_ns))
        if k + 1 < len(every) and every[k + 1][0] > sample[0]:
            for tick in (sample[0], every[k + 1][0]):
                true = _way(sample, every[k + 1], tick, tick_ns)
                yield _apart(true, _way(begin, every[kept[at + 1]], tick, tick_ns))


def _way(begin: Sample, end: Sample, tick: int, tick_ns: int) -> tuple[int, Fraction, Fraction]:
    """Where one is on the way, before the jump at its end."""
    gap = end[0] - begin[0]
    if gap * tick_ns > REST_NS or tick == begin[0]:
        return tick, Fraction(begin[1]), Fraction(begin[2])
    done = Fraction(tick - begin[0], gap)
    return tick, begin[1] + (end[1] - begin[1]) * done, begin[2] + (end[2] - begin[2]) * done


def _apart(
    one: tuple[int, Fraction | int, Fraction | int], other: tuple[int, Fraction, Fraction]
) -> Fraction:
    return Fraction(max(abs(one[1] - other[1]), abs(one[2] - other[2])))


def is_placed(event: Event) -> bool:
    return isinstance(event, Move | Press | Release | Scroll)


def place(event: Event, quanta_per_px: int) -> tuple[int, int]:
    """In quanta, as the format rounds."""
    assert isinstance(event, Move | Press | Release | Scroll)
    return round(Fraction(event.x) * quanta_per_px), round(Fraction(event.y) * quanta_per_px)


_WAITS_MS = st.sampled_from([0, 0, 1, 1, 1, 2, 5, 8, 16, 16, 40, 60, 99, 100, 101, 130, 400, 3_000])
_STEPS = st.one_of(
    st.integers(-2, 2),
    st.integers(-2, 2),
    st.sampled_from([4, 8, 8, -8, 20, 300, -2_000]),
    st.floats(-3, 3, width=16),
)


@st.composite
def motions(draw: st.DrawFn, most: int = 60) -> list[Event]:
    """A pointer's events, with keys and gaps between them, at rising times that tell them apart: the n-th is n ns after
    a whole millisecond."""
    events: list[Event] = []
    t_ms, x, y = 1_000_000, 500.0, 500.0
    step_x = step_y = 0.0
    wait_ms = 1
    for n in range(draw(st.integers(0, most))):
        how = draw(st.integers(0, 9))
        if how >= 4:  # else it goes on as it did
            wait_ms, step_x, step_y = draw(_WAITS_MS), draw(_STEPS), draw(_STEPS)
        t_ms, x, y = t_ms + wait_ms, x + step_x, y + step_y
        t_ns = t_ms * MS + n
        other = draw(st.integers(0, 30))
        said = draw(st.sampled_from([None] * 8 + [True]))
        if other == 0:
            events.append(Press(t_ns, x, y, "left", said))
        elif other == 1:
            events.append(Scroll(t_ns, x, y, 0, 1, 1, said))
        elif other == 2:
            events.append(KeyPress(t_ns, "tab", said))
        elif other == 3:
            events.append(Gap(t_ns, 5, "pointer"))
        else:
            integral = x.is_integer() and y.is_integer()
            events.append(Move(t_ns, int(x), int(y), said) if integral else Move(t_ns, x, y, said))
    return events
