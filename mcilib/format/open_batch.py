"""The batch that is being filled: takes events, folds them into rows, becomes a frame."""

from __future__ import annotations

import cmath
import math
import uuid
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from mcilib import limits
from mcilib.clock import ClockAnchor
from mcilib.consent import Grant
from mcilib.events import (
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
    event_count,
)
from mcilib.format.batch import write_frame
from mcilib.format.header import Header
from mcilib.format.metadata import QUANTA_MAX_PER_PX, TICK_MAX_NS, Coverage, Lever, Metadata
from mcilib.format.rare import CODE, KEY_RELEASE, SCROLL, Rare, to_quanta
from mcilib.format.rows import (
    COORDINATE_MAX,
    COUNT_MAX,
    ROWS_MAX,
    SCROLL_MAX,
    Rows,
    Run,
    time_range,
    writable,
)
from mcilib.protocols import SealedBatch

if TYPE_CHECKING:
    from mcilib.policy.plan import Plan

ROW_BYTES = 16
"""What a row is taken to need before compression, texts of names and titles apart: three times what moves and
keys do, a third of what the worst rows can."""
_PHASE_MOVES = 256
_TEXTS: dict[type, tuple[str, ...]] = {
    Press: ("button",), Release: ("button",), KeyPress: ("key",), KeyRelease: ("key",), Gap: ("source",),
    Layout: ("name",), Focus: ("app", "title"),
}  # fmt: skip


class OpenBatch:
    """Takes events until it is full. Pure: no clock, no I/O. One thread; the properties from any.

    **Folding.** A move to the place where the pointer already is (in quanta; `pointer_at`, from the batch
    before, says where it is at first) is counted as coalesced and is no row. A scroll step at the same place,
    in the same direction and at most `limits.SCROLL_MERGE_NS` after the first of a row becomes part of that
    row. So the rows do not depend on where one batch ends and the next begins, as long as `add` decides it,
    or nobody ends it before `growing_until_ns`.

    Nothing is raised for an event that cannot be written (NaN, a name of a kilobyte): it is counted in
    `invalid` and, when sealed, in the coverage as dropped.
    """

    __slots__ = (
        "anchor", "tick_ns", "quanta_per_px", "coalesced", "thinned", "invalid", "paused_ns", "plan", "grant",
        "ended_ns", "_at_x", "_at_y", "_before", "_first_ns", "_last_ns", "_limit_px", "_max_bytes", "_rare",
        "_rare_inputs", "_room", "_runs", "_scroll", "_synthetic", "_t_ns", "_text_bytes", "_x", "_y",
    )  # fmt: skip

    def __init__(
        self,
        anchor: ClockAnchor,
        max_events: int = limits.BATCH_MAX_EVENTS,
        max_bytes: int = limits.BATCH_MAX_BYTES,
        tick_ns: int = limits.TICK_NS,
        quanta_per_px: int = 1,
        pointer_at: tuple[int, int] | None = None,
    ) -> None:
        for name, value, most in (
            ("max_events", max_events, ROWS_MAX),
            ("max_bytes", max_bytes, limits.PAYLOAD_MAX_BYTES),
            ("tick_ns", tick_ns, TICK_MAX_NS),
            ("quanta_per_px", quanta_per_px, QUANTA_MAX_PER_PX),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"{name} is {value}, not 1 to {most}")
        self.anchor, self.tick_ns, self.quanta_per_px = anchor, tick_ns, quanta_per_px
        self.coalesced = 0
        """Moves to where the pointer already was."""
        self.thinned = 0
        """Moves left out by a plan: see `mcilib.sampler`."""
        self.invalid = 0
        """Events that the format cannot hold."""
        self.paused_ns = 0
        """How long in all, before it began, nothing was to be collected: kept here for whoever fills it."""
        self.plan: Plan | None = None
        """Under which it was begun: as well."""
        self.grant: Grant | None = None
        """Under which it was begun."""
        self.ended_ns = 0
        """When (monotonic) it was closed."""
        self._first_ns, self._last_ns = time_range(anchor, tick_ns)
        self._limit_px = COORDINATE_MAX / quanta_per_px
        self._max_bytes, self._text_bytes = max_bytes, 0
        self._room = max(1, min(max_events, max_bytes // ROW_BYTES))  # rows
        at: tuple[int | None, int | None] = pointer_at or (None, None)
        self._at_x, self._at_y = at
        self._t_ns: list[int] = []  # of each move
        self._x: list[int] = []  # in quanta
        self._y: list[int] = []
        self._rare: list[Event] = []  # everything that is no move, as it came
        self._before: list[int] = []  # moves before each of them
        self._scroll = -1  # the place there of the last row, if that is a scroll
        self._runs: list[Run] = []
        self._synthetic: bool | None = None
        self._rare_inputs = 0  # rare rows for which it is said

    def add(self, event: Event) -> bool:
        """Takes one event; False when the batch is full and has no row for it: nothing was taken then."""
        try:
            if type(event) is not Move:  # nearly all of them are
                return self._add_rare(event)
            x, y, t_ns, limit = event.x, event.y, event.t_ns, self._limit_px
            if not (
                self._first_ns <= t_ns <= self._last_ns and -limit <= x <= limit and -limit <= y <= limit
            ):
                self.invalid += 1
                return True
            if self.quanta_per_px != 1 or type(x) is not int or type(y) is not int:
                x, y = to_quanta(x, self.quanta_per_px), to_quanta(y, self.quanta_per_px)
            if x == self._at_x and y == self._at_y:
                self.coalesced += 1
                return True
            if self._room <= 0:
                return False
            if type(t_ns) is not int:
                t_ns = int(t_ns)
            if event.synthetic is not self._synthetic:
                self._begin_run(event.synthetic)
            self._room -= 1
            self._t_ns.append(t_ns)
            self._x.append(x)
            self._y.append(y)
            self._at_x, self._at_y, self._scroll = x, y, -1
        except (TypeError, AttributeError):  # not a number, or no event at all, from somebody else's source
            self.invalid += 1
        return True

    def _add_rare(self, event: Event) -> bool:
        if not (writable(event, self.quanta_per_px) and self._first_ns <= event.t_ns <= self._last_ns):
            self.invalid += 1
            return True
        if type(event) is Scroll and self._fold(event):
            return True
        if self._room <= 0:
            return False
        code = CODE[type(event)]
        if code <= KEY_RELEASE:
            if event.synthetic is not self._synthetic:  # type: ignore[union-attr]
                self._begin_run(event.synthetic)  # type: ignore[union-attr]
            self._rare_inputs += 1
        if code <= SCROLL:
            self._at_x = to_quanta(event.x, self.quanta_per_px)  # type: ignore[union-attr, arg-type]
            self._at_y = to_quanta(event.y, self.quanta_per_px)  # type: ignore[union-attr, arg-type]
        self._scroll = len(self._rare) if code == SCROLL else -1
        self._rare.append(event)
        self._before.append(len(self._t_ns))
        self._text_bytes += _text_bytes(event)
        left = (self._max_bytes - self._text_bytes) // ROW_BYTES - len(self)
        self._room = min(self._room - 1, left)
        return True

    def _fold(self, step: Scroll) -> bool:
        row = self._rare[self._scroll] if self._scroll >= 0 else None
        if (
            type(row) is Scroll
            and 0 <= step.t_ns - row.t_ns <= limits.SCROLL_MERGE_NS
            and (row.x, row.y, row.synthetic) == (step.x, step.y, step.synthetic)
            and _sign(row.dx) == _sign(step.dx)
            and _sign(row.dy) == _sign(step.dy)
        ):
            dx, dy, count = row.dx + step.dx, row.dy + step.dy, row.count + step.count
            if max(abs(dx), abs(dy)) <= SCROLL_MAX and count <= COUNT_MAX:
                self._rare[self._scroll] = replace(row, dx=dx, dy=dy, count=count)
                return True
        return False

    def _begin_run(self, synthetic: bool | None) -> None:
        if not (synthetic is None or type(synthetic) is bool):
            raise TypeError("synthetic is neither True, False nor None")
        self._runs.append((len(self._t_ns) + self._rare_inputs, synthetic))
        self._synthetic = synthetic

    def __len__(self) -> int:
        """Rows."""
        return len(self._t_ns) + len(self._rare)

    @property
    def full(self) -> bool:
        """No event that needs a row of its own has room."""
        return self._room <= 0

    @property
    def pointer_at(self) -> tuple[int, int] | None:
        """Where the pointer is after the last row, in quanta: for the batch that comes next."""
        at_x, at_y = self._at_x, self._at_y
        return None if at_x is None or at_y is None else (at_x, at_y)

    @property
    def growing_until_ns(self) -> int | None:
        """When the last row is a scroll: until then (monotonic) a step may still join it."""
        row = self._rare[self._scroll] if self._scroll >= 0 else None
        return row.t_ns + limits.SCROLL_MERGE_NS if row is not None else None

    @property
    def captured(self) -> dict[str, int]:
        """Events by kind, without kinds of which there were none: with all scroll steps, and moves that are no row."""
        counts = Counter(move=len(self._t_ns) + self.coalesced + self.thinned)
        for event in islice(self._rare, len(self._rare)):
            counts[event.kind] += int(event_count(event))
        return {kind: count for kind, count in counts.items() if count}

    @property
    def span_ns(self) -> tuple[int, int]:
        """From when on (monotonic) and until when it has taken something, or may have: not less than from its anchor
        until it was closed."""
        times = [*self._t_ns, *(int(event.t_ns) for event in self._rare)]
        return min(self.anchor.monotonic_ns, *times), max(self.ended_ns, *times)

    @property
    def event_count(self) -> int:
        return sum(self.captured.values())

    def align(self, phase_ns: int | None = None) -> int:
        """Moves the anchor by less than a tick, so that it lies `phase_ns` into one; returns the phase.

        Without one, it is chosen so that as few times as can be lie near the edge between two ticks, where
        the noise of a clock costs bytes: devices report at their own steady rate. A recorder keeps to the
        phase of its first batch.
        """
        tick_ns = self.tick_ns
        if phase_ns is None:
            turns = (cmath.rect(1, math.tau * (t % tick_ns) / tick_ns) for t in self._t_ns[:_PHASE_MOVES])
            phase_ns = round(cmath.phase(sum(turns)) / math.tau * tick_ns) % tick_ns
        back_ns = (self.anchor.monotonic_ns - phase_ns) % tick_ns
        self.anchor = ClockAnchor(self.anchor.monotonic_ns - back_ns, self.anchor.wall_ns - back_ns)
        return phase_ns

    def rows(self, metadata: Metadata) -> Rows:
        """The rows as they are written."""
        zero_ns, tick_ns = self.anchor.monotonic_ns, self.tick_ns
        begin_ns = zero_ns - tick_ns // 2
        rows = Rows(
            [(t_ns - begin_ns) // tick_ns for t_ns in self._t_ns], self._x, self._y,
            before=self._before,
            rare_ticks=[int((event.t_ns - begin_ns) // tick_ns) for event in self._rare],
            synthetic=self._runs,
        )  # fmt: skip
        rare, in_order = self._rare, rows.in_order()
        if not in_order and rows.ticks == sorted(rows.ticks) and not rows.synthetic:  # sources interleave
            rare, in_order = self._place_rare(rows), True
        rows.rare = Rare.of(rare, self.quanta_per_px)
        return rows if in_order else Rows.of(rows.events(metadata), metadata)

    def _place_rare(self, rows: Rows) -> list[Event]:
        """Puts rare rows where their time belongs among moves that are in order; those of one tick as they came.

        Returns them in that order.
        """
        order = sorted(range(len(self._rare)), key=rows.rare_ticks.__getitem__)
        rows.rare_ticks = [rows.rare_ticks[n] for n in order]
        rows.before = [
            min(max(rows.before[n], bisect_left(rows.ticks, tick)), bisect_right(rows.ticks, tick))
            for n, tick in zip(order, rows.rare_ticks, strict=True)
        ]
        return [self._rare[n] for n in order]

    def seal(
        self,
        *,
        sequence: int,
        grant: Grant,
        boot: str,
        clocks: Mapping[str, str],
        coverage: Coverage = Coverage(),  # noqa: B008  (frozen)
        level: int = limits.ZSTD_LEVEL,
        recipients: Sequence[str] = (),
        levers: Mapping[str, Lever] | None = None,
        reasons: tuple[str, ...] = (),
        batch_id: str | None = None,
        backends: Mapping[str, str] | None = None,
        audit: str = "",
    ) -> SealedBatch:
        """The rows, in order of time, as a frame. The batch stays as it is: it may be sealed again.

        `boot` as `mcilib.clock.boot_id`, `clocks` by source, `coverage` of what the batch itself does not
        know, `recipients` age public keys (none: in clear), `batch_id` 32 hex digits, random by default,
        `backends` by source, of those in `clocks` that have one, `audit` the head of the audit log, 64 hex digits or
        nothing.
        `ValueError` when one of them is not of that form, `SealError` when it cannot be sealed.
        """
        dropped = dict(coverage.dropped)
        if self.invalid:
            dropped["invalid"] = dropped.get("invalid", 0) + self.invalid
        batch_id = batch_id or uuid.uuid4().hex
        header = Header(batch_id, grant.participant, grant.device, grant.digest, sequence)
        metadata = Metadata(
            anchor=self.anchor,
            boot=boot,
            tick_ns=self.tick_ns,
            quanta_per_px=self.quanta_per_px,
            clocks=clocks,
            backends=backends or {},
            coverage=replace(
                coverage,
                coalesced=coverage.coalesced + self.coalesced,
                thinned=coverage.thinned + self.thinned,
                dropped=dropped,
            ),
            levers=levers or {},
            reasons=reasons,
            audit=audit,
        )
        frame = write_frame(header, metadata, self.rows(metadata), level, recipients)
        return SealedBatch(batch_id, sequence, frame)


def _text_bytes(event: Event) -> int:
    """What its names take in UTF-8."""
    texts = [getattr(event, name) for name in _TEXTS.get(type(event), ())]
    return sum(len(text if text.isascii() else text.encode()) for text in texts if text is not None)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
