"""One run of the agent: the banner, capture until told to end, the summary."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Literal

from mcilib.cli._control_words import change_line
from mcilib.cli._drain import upload
from mcilib.cli._endpoint import HOPELESS, Asking, remedy
from mcilib.cli._keys import key_words, read_recipients
from mcilib.cli._language import words_here
from mcilib.cli._output import count, print_rows, say
from mcilib.cli._stop import StopSignal
from mcilib.cli._summary import status_line, summary
from mcilib.collector import Collector
from mcilib.config import Settings, as_duration
from mcilib.config.policies import policies_of
from mcilib.consent import SCOPES, Grant
from mcilib.controls import ControlChange
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import ConfigError, DeliveryError, GrantError, McilibError, SealError, SpoolError
from mcilib.indicator import FirstOf, Indicator, MacIndicator, NotificationIndicator, TerminalIndicator
from mcilib.policy.plan import Plan
from mcilib.privacy import KeyDetail
from mcilib.protocols import Outcome, Source, Transport
from mcilib.sources._x11 import on_x11
from mcilib.sources.display import DisplaySource
from mcilib.sources.keyboard import KeyboardSource
from mcilib.sources.pointer import PointerSource
from mcilib.sources.window import WindowSource

CHECK_S = 3.0
"""How long capture waits for the endpoint at the start; the first upload tells about a slower one."""

LAST_UPLOAD_S = 10.0
"""For the one upload at the end of --for."""

STATUS_EVERY_S = 60.0

_IN_ORDER = ("display", "keyboard", "window", "pointer")
"""How sources start: how things are is told before what is done, or a batch would begin anew in between."""

_IN_CLEAR = "no: who gets hold of a batch can read it. --recipients seals them."

START_ENDS_S = 1.0
"""For a start under way when the end is asked for."""


class Agent:
    """One run, from the banner to the summary."""

    def __init__(
        self, settings: Settings, folder: Path, grant: Grant, stop: StopSignal, policy: str | None = None
    ) -> None:
        self._settings, self._folder, self._grant, self._stop = settings, folder, grant, stop
        self._policy = policy
        self._changes: deque[ControlChange] = (
            deque()
        )  # noted in the thread that made them, said in the main one
        self._sources = _sources(settings, grant)
        self._recipients_file = settings.seal.recipients_file
        self._sealed = key_words(self._recipients()) if self._recipients_file is not None else None

    def run(self, transport: Transport, for_s: float | None) -> int:
        settings, spool = self._settings, self._settings.spool
        collector = Collector(
            sources=self._sources,
            grant=self._grant,
            state_dir=self._folder,
            transport=transport,
            batch_max_events=settings.batch.max_events,
            batch_max_bytes=settings.batch.max_bytes,
            batch_max_age_s=settings.batch.max_age_s,
            quanta_per_px=settings.batch.quanta_per_px,
            zstd_level=settings.batch.zstd_level,
            recipients=self._recipients if self._recipients_file is not None else (),
            spool_max_bytes=spool.max_bytes,
            spool_max_files=spool.max_files,
            spool_max_age_s=spool.max_age_s,
            spool_min_free_bytes=spool.min_free_bytes,
            upload_interval_s=settings.upload.interval_s,
            max_request_bytes=settings.upload.max_request_bytes,
            hold_s=settings.upload.hold_s,
            fallback_age_s=settings.upload.fallback_age_s,
            policies=policies_of(settings.adapt),
            indicator=_indicator(),
            on_control=self._on_control,
            pause_cap_s=settings.consent.pause_cap_s,
            policy=self._policy,
            language=words_here().language,
        )
        before = DirectorySpool.read_statistics(self._folder / "spool")
        self._announce()
        if not self._check_endpoint(transport) or not self._start(collector):
            return 0
        try:
            print(f"Collecting{f' for {as_duration(for_s)}' if for_s is not None else ''}.", flush=True)
            if held := collector.held:
                print(f"Nothing is captured now: {held}.", flush=True)
            end = self._wait(collector, for_s)
            if end == "withdrawn":
                self._ask_to_delete(collector)
        finally:
            collector.stop()
        if end == "withdrawn":
            return 0
        after = collector.statistics()
        reason = self._upload_last(collector.plan) if end == "over" else ""
        summary(after, before, DirectorySpool.read_statistics(self._folder / "spool"), reason)
        if end == "expired":
            raise _expired(self._grant)
        lost = after.capture.dropped.get("spool", 0)
        if lost:
            raise self._loss(count(lost, "event"))
        return 0

    def _recipients(self) -> tuple[str, ...]:
        """As they are now: the keys may be changed while it runs. Raises `SealError`."""
        return read_recipients(self._recipients_file) if self._recipients_file is not None else ()

    def _loss(self, events: str) -> McilibError:
        try:
            self._recipients()
        except SealError as error:
            return SealError(f"{events} could not be sealed and are lost. {error.problem}", error.next_step)
        return SpoolError(
            f"{events} could not be written and are lost",
            "Make the state folder writable; see `mcilib doctor`.",
        )

    def _announce(self) -> None:
        grant = self._grant
        if grant.given_via == "unattended":
            print("Unattended: nobody was asked on this device. `mcilib grant` on a terminal asks.")
        rows = [["mcilib", f"records on this device for {grant.operator}."], ["For:", grant.purpose]]
        names: dict[str, list[str]] = {}
        for source in self._sources:
            names.setdefault(source.scope, []).append(source.name)
        rows += [["What:", f"{', '.join(names[scope])} ({SCOPES[scope].words})"] for scope in names]
        rows += [
            [
                "Where to:",
                f"{self._settings.upload.endpoint}, every {as_duration(self._settings.upload.interval_s)}",
            ],
            ["Until then:", f"{self._folder}"],
            ["Sealed:", f"to {self._sealed} ({self._recipients_file})" if self._sealed else _IN_CLEAR],
            [
                "To stop:",
                f"press Ctrl-C here, or end process {os.getpid()}. `mcilib status` shows what waits.",
            ],
        ]
        print_rows(rows)
        sys.stdout.flush()

    def _check_endpoint(self, transport: Transport) -> bool:
        """Warns about an endpoint that does not answer now, raises for one that never will. False: end."""
        with Asking(transport) as asking:
            answer = self._stop.call(asking.answer, CHECK_S).result()
        if answer is not None and answer.outcome in HOPELESS:
            raise DeliveryError(f"{self._settings.upload.endpoint}: {answer.detail}", remedy(answer.outcome))
        if not self._stop.requested and (answer is None or answer.outcome is not Outcome.DELIVERED):
            detail = answer.detail if answer is not None else f"no answer within {CHECK_S:g} s"
            where = self._settings.upload.endpoint
            say(f"mcilib: {where} cannot be reached now ({detail}). Batches wait on this device.")
        return not self._stop.requested

    def _start(self, collector: Collector) -> bool:
        """False when told to end before anything was captured. Raises what `Collector.start` raises."""
        call = self._stop.call(collector.start)
        if not call.done and not call.join(START_ENDS_S):
            # A display that hangs holds the thread, and the interpreter would wait for it at its end.
            sys.stdout.flush()
            os._exit(0)
        call.result()
        if self._stop.requested:
            collector.stop()
        return not self._stop.requested

    def _wait(
        self, collector: Collector, for_s: float | None
    ) -> Literal["told", "over", "expired", "withdrawn"]:
        """Until told to end, `for_s` is over, the grant expires or the participant withdraws."""
        started_s = time.monotonic()
        terminal = sys.stdout.isatty()
        shown_s = started_s
        while not self._stop.requested:
            if self._say_changes():
                return "withdrawn"
            now_s = time.monotonic()
            if self._grant.expired(time.time_ns()):
                return "expired"
            if for_s is not None and now_s >= started_s + for_s:
                return "over"
            if terminal and now_s >= shown_s + STATUS_EVERY_S:
                shown_s = now_s
                print(status_line(collector, now_s - started_s), flush=True)
            ends = [for_s and started_s + for_s - now_s, terminal and shown_s + STATUS_EVERY_S - now_s]
            waits = [float(end) for end in ends if end]
            if self._grant.expires_ns is not None:
                waits.append(max(0.0, (self._grant.expires_ns - time.time_ns()) / 1e9))
            self._stop.wait(min(waits, default=None))
        return "told"

    def _on_control(self, change: ControlChange) -> None:
        """In the thread that made the change, which waits for no terminal."""
        self._changes.append(change)
        self._stop.wake()

    def _say_changes(self) -> bool:
        """One line for each. True when the participant has withdrawn."""
        while self._changes:
            change = self._changes.popleft()
            print(change_line(change, words_here()), flush=True)
            if change.what == "withdraw":
                return True
            if change.what == "regrant":
                self._grant = Grant.load(self._folder)
        return False

    def _ask_to_delete(self, collector: Collector) -> None:
        """The one request that is still sent, once: what is not confirmed then is asked again by the next run."""
        print("Asking the receiver to delete all that it has of you.", flush=True)
        result = self._stop.call(lambda: collector.flush(LAST_UPLOAD_S)).result()
        self._say_changes()
        withdrawal = collector.decisions.withdrawal
        if withdrawal is None or withdrawal.confirmed_ns is not None:
            print("It has confirmed that all is deleted.")
        else:
            why = f" ({result.detail})" if result is not None and result.detail else ""
            print(f"It has not confirmed yet{why}. `mcilib run` asks again, and captures nothing.")

    def _upload_last(self, plan: Plan) -> str:
        """Why something still waits; empty when nothing does. Keeps to the plan that was in force last."""
        print("Ended by itself. Uploading what waits.", flush=True)
        return upload(self._settings, self._folder, self._grant, self._stop, LAST_UPLOAD_S, plan.to_send())


def _sources(settings: Settings, grant: Grant) -> list[Source]:
    detail = KeyDetail.parse(settings.agent.key_detail)
    titles = settings.agent.window_detail == "title"
    if titles and "titles" not in grant.scopes:
        raise GrantError(
            f"The grant covers {', '.join(grant.scopes)}, which does not allow to keep titles of windows",
            "Ask for the scope titles with `mcilib grant`, or leave --window-detail at app.",
        )
    covered = list(dict.fromkeys(source for scope in grant.scopes for source in SCOPES[scope].sources))
    if not on_x11():  # displays and windows are read there only
        covered = [name for name in covered if name in ("pointer", "keyboard")]
    sources: list[Source] = []
    every: dict[str, Any] = {"read_interval_s": settings.agent.read_interval_s}
    for name in sorted(settings.agent.sources or covered, key=_IN_ORDER.index):
        if name not in covered:
            raise GrantError(
                f"The grant covers {', '.join(grant.scopes)}, which does not allow to capture the {name}",
                "Ask for its scope with `mcilib grant`, or leave it out of --sources.",
            )
        if name == "pointer":
            sources.append(PointerSource(backend=settings.agent.backend, **every))
        elif name == "display":
            sources.append(DisplaySource(**every))
        elif name == "window":
            sources.append(WindowSource(titles=titles, **every))
        elif detail is not KeyDetail.NONE:
            sources.append(KeyboardSource(detail=detail, backend=settings.agent.backend, **every))
    if not sources:
        raise ConfigError("At key detail none there is nothing to capture", "Choose another --key-detail.")
    return sources


def _indicator() -> Indicator:
    """A note of the desktop, else a line where the agent says all else, else on stderr."""
    note: Indicator = MacIndicator() if sys.platform == "darwin" else NotificationIndicator()
    return FirstOf(note, TerminalIndicator(sys.stdout), TerminalIndicator())


def _expired(grant: Grant) -> GrantError:
    return GrantError(
        f"The grant expired at {grant.expires_at}", "Nothing is collected or sent any more: `mcilib grant`."
    )
