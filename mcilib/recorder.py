"""The capture side: buffer -> gate -> batch -> seal -> spool, in one thread that sleeps until it is needed."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from mcilib import limits
from mcilib.batching import Batcher
from mcilib.clock import Clock, SystemClock, boot_id
from mcilib.consent import Gate
from mcilib.errors import McilibError, SealError, SpoolError
from mcilib.events import Event, Gap, event_count
from mcilib.files import without_home
from mcilib.format.metadata import LEVERS_MAX, NAME_MAX_BYTES, REASON_MAX_BYTES, Coverage, Lever
from mcilib.format.open_batch import OpenBatch
from mcilib.format.vocabulary import is_text
from mcilib.guarding import Guarding
from mcilib.policy.plan import Plan
from mcilib.protocols import SealedBatch, Source, Spool
from mcilib.statistics import CaptureStatistics, Health

_log = logging.getLogger("mcilib")

Recipients: TypeAlias = "Sequence[str] | Callable[[], Sequence[str]]"
"""Age public keys, or what gives them whenever a batch is to be sealed. None: batches stay in clear; but a
function that gives none is an error, as what was meant to be sealed is not written in clear."""


class Recorder:
    """Turns events into batches on disk. Is the `EventSink` that sources emit into.

    `emit` stamps nothing, waits for nothing and never raises: it appends to a bounded buffer. One thread takes
    the buffer when it has grown to `drain_mark` events or when the open batch is due, holds each event to the
    gate, and commits batches to `spool`. With no input the thread does not wake.

    A batch ends at `max_events` rows, at `max_bytes` before compression, and when it is `max_age_s` old, which
    waits for a scroll row that may still grow; see `mcilib.batching`. A sleep of the machine is noticed at the
    next event, since nothing polls. Positions are kept to `quanta_per_px`.

    Batches are sealed to `recipients` before they go anywhere. A crash loses at most the open batch. While
    nothing can be sealed, or the spool cannot be written, up to `MEMORY_MAX_EVENTS` rows wait in memory;
    `health()` says so, and what does not fit, or still waits at `stop`, is counted as dropped by cause `spool`.

    Each batch names `sources`, where their times come from and what they are heard with, and tells what was
    seen since the batch before and is no row. It tells the reasons of the plan under which it was begun, and its
    levers, but for those that are as `usual`. The values given here hold until a plan is adopted; a batch is never
    closed at a lower age than `max_age_s`.

    `on_commit` is called from the recorder's thread after each commit, `on_adopted` when it goes by another plan;
    `on_pulse` every 0.25 to 1.5 s while there is input, from the source's thread that told of it; `on_due` from the
    recorder's when a batch is due or `due_s()` seconds are over. Methods may be called from any thread.

    Before a batch is in the spool `on_batch(batch_id, sequence, began_ns, ended_ns, kinds)` is called with what it may
    hold: the monotonic time from its begin to its end, and the kinds of its events. It may raise `SpoolError`; then the
    batch waits. `audit_head` gives the head of the audit log for each batch: 64 hex digits or nothing.

    While programs are exempt, events wait some 2 s until it is known which program was in use (`mcilib.guarding`): also
    in `commit`, but at `hold` and `stop` what still waits is excluded.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        spool: Spool,
        sources: Sequence[Source],
        recipients: Recipients = (),
        max_events: int = limits.BATCH_MAX_EVENTS,
        max_bytes: int = limits.BATCH_MAX_BYTES,
        max_age_s: float = limits.BATCH_MAX_AGE_S,
        quanta_per_px: int = 1,
        zstd_level: int = limits.ZSTD_LEVEL,
        buffer_events: int = limits.BUFFER_EVENTS,
        drain_mark: int = limits.DRAIN_MARK_EVENTS,
        on_commit: Callable[[], None] = lambda: None,
        usual: Plan = Plan(),  # noqa: B008  (frozen)
        on_adopted: Callable[[], None] = lambda: None,
        on_pulse: Callable[[], object] = lambda: None,
        on_due: Callable[[], object] = lambda: None,
        due_s: Callable[[], float | None] = lambda: None,
        on_batch: Callable[[str, int, int, int, Collection[str]], None] = lambda *_: None,
        audit_head: Callable[[], str] = lambda: "",
        clock: Clock | None = None,
    ) -> None:
        self._gate, self._spool, self._sources = gate, spool, tuple(sources)
        self._recipients, self._zstd_level = recipients, zstd_level
        self._buffer_events, self._drain_mark = buffer_events, min(drain_mark, buffer_events)
        self._usual, self._on_commit, self._on_adopted = usual, on_commit, on_adopted
        self._on_pulse, self._on_due, self._due_s = on_pulse, on_due, due_s
        self._on_batch, self._audit_head = on_batch, audit_head
        self._pulsed_ns, self._since_pulse = -_LIGHT_NS, 0  # when it was, and events since
        self._clock: Clock = clock or SystemClock()
        self._boot = boot_id(gate.grant.device)

        self._buffer: deque[Event] = deque()
        self._armed = False  # the recorder knows that the buffer is not empty
        self._wake = threading.Event()
        self._running = False
        self._taking = False  # as long as it runs, nobody holds it and nothing is shunned
        self._shunned: frozenset[str] = frozenset()  # kinds of events that are excluded as they are told
        self._settling = self._settled = 0  # how often `settle` was called, and of these, how many are done
        self._blind_ns: int | None = None  # since when, while that is not done
        self._held_since: tuple[int, int] | None = None  # (monotonic, asleep) when it was held
        self._not_collected_ns = 0  # of all holds that have ended
        self._not_collected_told_ns = 0  # what the batches committed so far tell of it
        self._work = threading.RLock()  # held while events move from the buffer to the spool
        self._drops = threading.RLock()  # for counts, never for long; again by `stop` in a signal handler

        # By cause: events that are no row of a batch. Besides losses: those in _NO_LOSS.
        self._aside: Counter[str] = Counter()
        self._told: Counter[str] = Counter()  # how many of them the batches committed so far tell
        self._batcher = Batcher(
            gate, self._clock, self._set_aside,
            max_events=max_events, max_bytes=max_bytes, max_age_s=max_age_s, quanta_per_px=quanta_per_px,
        )  # fmt: skip
        watchers = [source.name for source in self._sources if source.scope in ("apps", "titles")]
        self._guarding = Guarding(gate, self._batcher, self._clock, self._set_aside, watchers)
        self._adopting: deque[Plan] = deque(maxlen=1)  # the newest plan, until a turn has seen it
        self._unwritten = self._batcher.closed
        self._problem: tuple[str, McilibError] | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    # --- called by sources, for each event -----------------------------------------------------------------

    def emit(self, event: Event, /) -> bool:
        """Takes one event; False when it was dropped (buffer full, or not running), which is counted."""
        waiting = len(self._buffer)
        if (waiting >= self._buffer_events or not self._taking) and (cause := self._refusal(event, waiting)):
            self._set_aside(cause, event_count(event))
            return False
        self._buffer.append(event)
        if not self._armed or waiting + 1 >= self._drain_mark:
            self._armed = True
            self._wake.set()
        self._count(1)
        return True

    def _refusal(self, event: Event, waiting: int) -> str | None:
        """Why it is not taken; None: it is."""
        if not self._running:
            return "not_running"
        held = self._held_since is not None
        if (held and type(event) is not Gap) or getattr(event, "kind", None) in self._shunned:
            return "excluded"
        if waiting >= self._buffer_events:
            return "excluded" if held else "buffer_full"
        return None

    def emit_all(self, events: Sequence[Event], /) -> int:
        """`emit` for each; how many were taken."""
        waiting = len(self._buffer) + len(events)
        if waiting > self._buffer_events or not self._taking:
            return sum(map(self.emit, events))
        self._buffer.extend(events)
        if events and (not self._armed or waiting >= self._drain_mark):
            self._armed = True
            self._wake.set()
        self._count(len(events))
        return len(events)

    def _count(self, events: int) -> None:
        """Gives the pulse, more often where more comes."""
        self._since_pulse += events
        passed_ns = self._clock.monotonic_ns() - self._pulsed_ns
        enough_ns = _BUSY_NS if self._since_pulse >= limits.PULSE_EVENTS else _LIGHT_NS
        if events and passed_ns >= enough_ns:
            self._pulsed_ns, self._since_pulse = self._pulsed_ns + passed_ns, 0
            self._tell(self._on_pulse)

    def _tell(self, tell: Callable[[], object]) -> None:
        try:
            tell()
        except Exception as error:  # of the host's
            self._say("plan", McilibError(f"The plan cannot be told ({type(error).__name__})", "Report it."))

    @property
    def room(self) -> int:
        return self._buffer_events - len(self._buffer)

    def _set_aside(self, cause: str, count: int) -> None:
        """Counts events that become no row, for the coverage of the next batch."""
        if type(count) is not int or count < 0:  # somebody's scroll
            cause, count = "invalid", 1
        with self._drops:
            self._aside[cause] += count

    # --- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread. A stopped recorder may be started again."""
        self._batcher.begin_run()
        self._batcher.paused_ns = self._not_collected_ns
        self._shunned, self._settled = frozenset(), self._settling
        self._running = self._taking = True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mcilib-recorder", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = limits.SOURCE_STOP_TIMEOUT_S) -> None:
        """Commits what was captured and ends the thread. Events emitted afterwards are dropped."""
        self._running = self._taking = False
        self._count_hold()
        self._wake.set()
        # An interrupted join() makes Python 3.11 take a thread that goes on for ended: the next one would not wait.
        if self._thread is not None and self._ended.wait(timeout_s):
            self._thread.join(timeout_s)

    def hold(self) -> None:
        """Takes nothing but gaps from now on: what sources have heard and not yet told is excluded. What was captured
        is committed, by the thread. The first batch after `release` tells how long it was. That nothing is taken is
        so at once, and nothing is waited for. One thread at a time calls this and `release`."""
        if not self._running or self._held_since is not None:
            return
        with self._drops:
            self._taking, self._held_since = False, self._now()
        if self._work.acquire(blocking=False):  # else the thread does it, when the disk lets it
            try:
                self._take_held()
                self._batcher.close()
            finally:
                self._work.release()
        self._wake.set()

    def release(self) -> None:
        """Takes events again."""
        if self._held_since is None:
            return
        with self._work:
            self._take_held()
            self._batcher.pass_over(*self._count_hold())
        with self._drops:
            self._taking = self._running and not self._shunned

    def settle(self, kinds: Collection[str] = (), *, blind: bool = False) -> None:
        """After the gate has closed something: what was told until now is taken, and from then on nothing more from
        before the gate closed (`Gate.shut`). The thread does so, at once; nothing is waited for. Until it has, no event
        of `kinds` is taken, whatever its time: it is excluded. `blind`: who tells which program is in use was stopped.
        """
        with self._drops:
            self._shunned |= frozenset(kinds)
            self._taking = self._taking and not self._shunned
            self._settling += 1
            if blind:
                self._blind_ns = self._clock.monotonic_ns()
        self._wake.set()

    def _settle(self, asked: int) -> None:
        """What was told before `settle` was called for the time `asked` has been taken. With `_work` held."""
        if self._settled == asked:
            return
        self._gate.shut()
        with self._drops:
            self._settled = asked
            blind_ns, self._blind_ns = self._blind_ns, None
            if self._settling == asked:
                self._shunned = frozenset()
                self._taking = self._running and self._held_since is None
        if blind_ns is not None:
            self._guarding.blind(blind_ns)

    def discard(self) -> int:
        """Forgets all that is in memory and not yet in the spool; it counts as excluded. Returns how many events.
        `Gate.restart` was called before, so that what is told meanwhile is not taken. What is true of displays, layout
        and the program in use is known on, and told again before the next input."""
        with self._work:
            before = self._aside["excluded"]
            self._guarding.take(self._buffer)  # who tells of that is heard
            self._guarding.exclude_waiting()
            self._batcher.lose_open()
            self._batcher.lose_closed()
            return self._aside["excluded"] - before

    @property
    def excluded(self) -> int:
        """How many events were excluded so far. Waits for nothing."""
        return self._aside["excluded"]

    def adopt(self, plan: Plan) -> None:
        """What `plan` says of motion, ticks, the age of batches and compression holds from the next turn of the thread
        on, which is at once. Waits for nothing; what comes meanwhile may be taken under either plan."""
        self._adopting.append(plan)
        self._wake.set()

    def _count_hold(self) -> tuple[int, int]:
        """Ends a hold; how long it was, and how much of it the machine slept (ns)."""
        with self._drops:
            held_ns, slept_ns = self._held_for_ns()
            self._not_collected_ns += held_ns
            self._held_since = None
            return held_ns, slept_ns

    def _held_for_ns(self) -> tuple[int, int]:
        if self._held_since is None:
            return 0, 0
        awake_ns, slept_ns = (
            max(0, now - then) for now, then in zip(self._now(), self._held_since, strict=True)
        )
        return awake_ns + slept_ns, slept_ns

    def _now(self) -> tuple[int, int]:
        return self._clock.monotonic_ns(), self._clock.suspended_ns()

    def commit(self) -> bool:
        """Commits the open batch now, in the caller's thread; True when nothing is left in memory."""
        with self._work:
            self._armed = False
            self._take()
            self._batcher.close()
            return self._write()

    @property
    def guards_programs(self) -> bool:
        """Whether programs are exempt, so that it must be told which is in use."""
        return bool(self._gate.barred.apps)

    def threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread is not None else []

    def statistics(self) -> CaptureStatistics:
        batcher = self._batcher
        with self._work:
            waiting = len(self._unwritten)
            self._guarding.take(self._buffer)
            if len(self._unwritten) > waiting:
                self._wake.set()
            pending = [*self._unwritten, *([batcher.open] if batcher.open is not None else [])]
            with self._drops:
                aside = self._aside + Counter(invalid=sum(batch.invalid for batch in pending))
                not_collected_ns = self._not_collected_ns + self._held_for_ns()[0]
            return CaptureStatistics(
                captured=dict(batcher.captured),
                coalesced=batcher.coalesced,
                excluded=aside["excluded"],
                thinned=batcher.thinned,
                dropped={cause: count for cause, count in aside.items() if cause not in _NO_LOSS},
                not_collected_s=not_collected_ns / 1e9,
                gap_count=batcher.gap_count,
                gap_s=batcher.gap_ns / 1e9,
                open_events=sum(batch.event_count for batch in pending),
            )

    def health(self) -> Health:
        problem = self._problem
        return Health.of(*problem) if problem is not None else Health()

    # --- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._running:
                if not self._wake.wait(self._patience_s()):
                    self._tell(self._on_due)
                self._wake.clear()
                with self._work:
                    self._turn()
            with self._work:
                self._take_held()
                if not self.commit():
                    self._give_up(0)
        finally:
            self._ended.set()

    def _turn(self) -> None:
        """What is to be done now. Called, as all that follows, with `_work` held."""
        self._armed = False
        if held := self._held_since is not None:
            self._take_held()
        self._take()
        ends_ns = self._batcher.ends_ns
        if held or (ends_ns is not None and self._clock.monotonic_ns() >= ends_ns):
            self._batcher.close()  # while it is held there is nothing to wait for
        self._write()
        # Until the open batch is due, an event that comes needs no wake-up before the mark.
        self._armed = self._due_ns() is not None

    def _take_held(self) -> None:
        """All that was told before a hold or the end; what still waits to be known is excluded."""
        self._guarding.take(self._buffer)
        self._guarding.drop()

    def _take(self) -> None:
        """What waits, and then the newest plan."""
        asked = self._settling
        self._guarding.take(self._buffer)
        self._settle(asked)
        if self._adopting:
            self._batcher.adopt(self._adopting.pop())
            self._on_adopted()

    def _patience_s(self) -> float | None:
        """How long nothing needs to be done: until the open batch is due or the spool is tried again."""
        waits = []
        if (due_ns := self._due_ns()) is not None:
            waits.append(max(0.0, (due_ns - self._clock.monotonic_ns()) / 1e9))
        if self._unwritten:
            waits.append(limits.SPOOL_RETRY_S)
        if (due_s := self._due_s()) is not None:
            waits.append(due_s)
        return min(waits, default=None)

    def _due_ns(self) -> int | None:
        """When the open batch ends; without one, when what waits to be known goes into the next."""
        ends_ns = self._batcher.ends_ns
        return self._guarding.ends_ns if ends_ns is None else ends_ns

    def _write(self) -> bool:
        """Commits the batches in line; True when all went."""
        all_written = True
        while self._unwritten:
            batch = self._unwritten[0]
            if self._gate.closed(self._clock.wall_ns()) is not None or self._batcher.is_outside(batch):
                self._batcher.lose(self._unwritten.popleft(), "excluded")
                continue
            with self._drops:
                untold = self._aside - self._told
            try:
                self._commit(batch, untold, batch.paused_ns - self._not_collected_told_ns)
            except (SealError, SpoolError) as error:
                self._say("seal" if isinstance(error, SealError) else "spool", error)
                self._give_up(limits.MEMORY_MAX_EVENTS)
                return False
            except (
                Exception
            ) as error:  # a bug of ours or of a foreign spool: this batch, and never the thread
                message = f"A batch could not be sealed and is lost ({type(error).__name__})"
                self._say("spool", McilibError(message, "Report it."))
                self._batcher.lose(self._unwritten.popleft(), "unsealable")
                all_written = False
                continue
            self._unwritten.popleft()
            self._told.update(untold)
            self._not_collected_told_ns = batch.paused_ns
            self._told["invalid"] += batch.invalid  # which `seal` has told by itself
            self._set_aside("invalid", batch.invalid)
            self._problem = None
            self._on_commit()
        return all_written

    def _commit(self, batch: OpenBatch, untold: Counter[str], not_collected_ns: int) -> None:
        recipients = current(self._recipients)
        dropped = {cause: n for cause, n in untold.items() if cause not in _NO_LOSS}
        coverage = Coverage(
            coalesced=untold["coalesced"],
            thinned=untold["thinned"],
            excluded=untold["excluded"],
            not_collected_ns=not_collected_ns,
            dropped=dropped,
        )
        plan = batch.plan or self._usual
        levers, reasons = _told(plan, self._usual)

        began_ns, ended_ns = batch.span_ns
        kinds = frozenset(batch.captured)

        def seal(sequence: int) -> SealedBatch:
            sealed = batch.seal(
                sequence=sequence,
                grant=batch.grant or self._gate.grant,
                boot=self._boot,
                clocks={source.name: source.clock for source in self._sources},
                backends=_backends(self._sources),
                coverage=coverage,
                level=plan.zstd_level(self._zstd_level),
                recipients=recipients,
                levers=levers,
                reasons=reasons,
                audit=self._audit_head(),
            )
            self._on_batch(sealed.batch_id, sealed.sequence, began_ns, ended_ns, kinds)
            return sealed

        self._spool.commit(seal)

    def _give_up(self, rows: int) -> None:
        """Loses the oldest batches in line until no more than `rows` rows are left, or one batch that has more."""
        while sum(map(len, self._unwritten)) > rows and (len(self._unwritten) > 1 or not rows):
            self._batcher.lose(self._unwritten.popleft(), "spool")

    def _say(self, part: str, error: McilibError) -> None:
        if self._problem != (part, error):
            _log.error("mcilib: %s", without_home(error))
        self._problem = part, error


_BUSY_NS, _LIGHT_NS = int(limits.PULSE_SAMPLE_S * 1e9), int(limits.PULSE_LIGHT_S * 1e9)
_NO_LOSS = ("coalesced", "thinned", "excluded")


def _told(plan: Plan, usual: Plan) -> tuple[dict[str, Lever], tuple[str, ...]]:
    """Its levers and reasons as a batch has room for them."""
    reasons = []
    for reason in plan.reasons[:LEVERS_MAX]:
        cut = reason.encode("utf-8", "replace")[:REASON_MAX_BYTES]
        reasons.append(cut.decode("utf-8", "ignore"))  # no half character
    return plan.levers(usual), tuple(reasons)


def _backends(sources: Sequence[Source]) -> dict[str, str]:
    """Source -> backend, of those that name one. An attribute `backend` that is no such text is no name."""
    named: dict[str, Any] = {source.name: getattr(source, "backend", None) for source in sources}
    return {name: backend for name, backend in named.items() if is_text(backend, NAME_MAX_BYTES)}


def current(recipients: Recipients) -> tuple[str, ...]:
    """The recipients as they are now. `SealError` when they cannot be told: nothing may be written then."""
    try:
        now = recipients() if callable(recipients) else recipients
        keys = tuple(now)
        if isinstance(now, str) or not all(isinstance(key, str) for key in keys):
            raise TypeError
    except SealError:
        raise
    except Exception as error:  # of the host's
        raise SealError(
            f"The recipients of batches cannot be told ({type(error).__name__})", "Mend what gives them."
        ) from None
    if len(keys) > limits.RECIPIENTS_MAX or (callable(recipients) and not keys):  # what is to be sealed is
        raise SealError(f"There are {len(keys)} recipients of batches", f"Name 1 to {limits.RECIPIENTS_MAX}.")
    return keys
