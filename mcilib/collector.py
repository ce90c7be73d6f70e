"""Everything composed: sources, gate, recorder, spool and uploader under one start and one stop."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from mcilib import limits
from mcilib.capture import Capture, carry_out, stop_together
from mcilib.channel.folder import check_state_folder
from mcilib.clock import Clock, SystemClock
from mcilib.consent.dispatch import carry_out as carry_out_control
from mcilib.consent.exemption import Exemption, ExemptScope
from mcilib.consent.gate import Gate
from mcilib.consent.grant import Grant
from mcilib.consent.pause import Pause
from mcilib.consent.state import ControlState
from mcilib.controls import ControlChange, Controls, check_policy
from mcilib.delivery.schedule import SCHEDULE_FILE, ScheduleFile, endpoint_of
from mcilib.delivery.spool import DirectorySpool, intact_frame
from mcilib.delivery.uploader import Uploader
from mcilib.errors import ConfigError, GrantError, IndicatorError, SourceError, SpoolError
from mcilib.format.metadata import QUANTA_MAX_PER_PX
from mcilib.format.seal import seal
from mcilib.governor import PLAN_FILE, Governor, write_plan
from mcilib.indicator import Indicator, default_indicator
from mcilib.participant import Participant
from mcilib.policy import default_policies
from mcilib.policy.plan import Plan, Upload
from mcilib.policy.policy import Policy
from mcilib.protocols import Resources, SendPlan, Session, Source, Transport
from mcilib.recorder import Recipients, Recorder, current
from mcilib.resources.energy import MachineEnergy
from mcilib.resources.ledger import IMPACT_FILE, ImpactLedger
from mcilib.resources.meter import CostMeter
from mcilib.resources.session import SessionWatch
from mcilib.resources.watch import ResourceWatch
from mcilib.statistics import (
    CaptureStatistics,
    CostStatistics,
    DiskStatistics,
    Forgotten,
    Health,
    Problem,
    Statistics,
    UploadStatistics,
)

_log = logging.getLogger("mcilib")

_SAVE_S = 0.1  # for the impact file when it stops, whatever the rest took


@dataclass(frozen=True, slots=True)
class FlushResult:
    """What `Collector.flush` came to."""

    delivered: bool
    """Everything that had been captured before the call is with the receiver."""
    committed: bool
    """Everything that had been captured before the call is on disk."""
    waiting_batches: int
    """Batches still on this device."""
    detail: str = ""
    """One line for people when something still waits."""


class Collector:
    """Collects from `sources` under `grant` into `state_dir`, and delivers through `transport`.

        with Collector(sources=[PointerSource()], grant=grant, state_dir="state", transport=transport) as collector:
            ...

    The constructor raises `ConfigError` for an option out of range. `start` raises early and clearly (`GrantError`
    without a valid grant that covers every source, `SealError` for a recipient that is none, `SourceError`,
    `SpoolError`); afterwards nothing raises into the host: see `health()` and `statistics()`. Before `start`
    there is no thread, no file and no open display. `stop` commits the open batch, uploads nothing and takes at
    most 2 s; a stopped collector may be started again. An interpreter that ends without `stop` stops it. A fork's
    child owns nothing of it.

    `recipients` are age public keys: each batch is sealed to all of them before it touches the disk, and each of
    them opens it (needs the extra `seal`). Given as a function it is asked before each batch, from a thread of
    the collector, so that recipients can change while it runs; while it fails, batches wait in memory. Without
    recipients batches are in clear. `quanta_per_px` is the part of a pixel that positions are kept to, 1 to 256:
    more than 1 is of use where the system gives fractions.

    How much is collected and sent follows from what the machine can spare: `policies` (default:
    `mcilib.policy.default_policies()`; none: all is collected as configured) make a plan of what `resources` tell
    (default: a `mcilib.resources.watch.ResourceWatch`). See `statistics().plan`; `override` decides otherwise.

    Two things are asked before each request: the grant and the plan. Batches rest `hold_s` (seconds, 0 to 7 days) on
    the device before they go, whoever asks, and what the plan keeps back goes all the same once it is older than
    `fallback_age_s`. Back-off survives a restart, in `state_dir/spool/schedule.json`.

    The participant decides: `pause`, `request_exemption`, `forget`, `hold`, `withdraw` and the rest work here and,
    while it runs, from `mcilib pause` and its like through a channel in the state folder (`channel=False`: not),
    which acts for the same user only. What they have decided is in the state folder and holds over restarts.
    `on_control` is told of each change, in the thread that made it. A pause is at most `pause_cap_s` (seconds, 1800
    to 86,400). With `policy`, the text that the operator requires now, a grant with another text is refused.
    `indicator` tells the participant at each start, and whenever capture goes on, that it does (default: a
    notification, else a line on stderr): where it cannot, nothing is captured. What the participant is told is in
    `language`, where there is a catalogue of it.

    While the participant's session is locked, or another user's is in the foreground, sources are stopped, nothing is
    captured and no thread of capture wakes; `held` says so. `session` is what tells (default: a
    `mcilib.resources.session.SessionWatch`; where nobody tells, capture goes on).

    `transport=None` keeps everything in the spool, `state_dir/spool`. The collector closes the transport when
    it stops. One collector at a time may use a state directory. Methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        sources: Sequence[Source],
        grant: Grant | None,
        state_dir: str | os.PathLike[str],
        transport: Transport | None = None,
        recipients: Recipients = (),
        batch_max_events: int = limits.BATCH_MAX_EVENTS,
        batch_max_bytes: int = limits.BATCH_MAX_BYTES,
        batch_max_age_s: float = limits.BATCH_MAX_AGE_S,
        quanta_per_px: int = 1,
        zstd_level: int = limits.ZSTD_LEVEL,
        spool_max_bytes: int = limits.SPOOL_MAX_BYTES,
        spool_max_files: int = limits.SPOOL_MAX_FILES,
        spool_max_age_s: float = limits.SPOOL_MAX_AGE_S,
        spool_min_free_bytes: int = limits.SPOOL_MIN_FREE_BYTES,
        upload_interval_s: float = limits.UPLOAD_INTERVAL_S,
        max_request_bytes: int = limits.REQUEST_MAX_BYTES,
        policies: Sequence[Policy] | None = None,
        resources: Resources | None = None,
        hold_s: float = 0.0,
        fallback_age_s: float = limits.FALLBACK_AGE_S,
        session: Session | None = None,
        indicator: Indicator | None = None,
        on_control: Callable[[ControlChange], object] = lambda change: None,
        pause_cap_s: float = limits.PAUSE_CAP_S,
        policy: str | None = None,
        channel: bool = True,
        language: str = "en",
        clock: Clock | None = None,
    ) -> None:
        names = [source.name for source in sources]
        if not names or len(set(names)) < len(names):
            raise SourceError(
                f"Sources are {', '.join(names) or 'missing'}", "Give each name once, at least one."
            )
        for option, value, least, most in (
            ("batch_max_events", batch_max_events, 1, limits.BATCH_EVENTS_CAP),
            ("batch_max_bytes", batch_max_bytes, 1, limits.BATCH_BYTES_CAP),
            ("batch_max_age_s", batch_max_age_s, 0.001, limits.BATCH_AGE_CAP_S),
            ("quanta_per_px", quanta_per_px, 1, QUANTA_MAX_PER_PX),
            ("zstd_level", zstd_level, 1, 22),
            ("upload_interval_s", upload_interval_s, 0, limits.UPLOAD_INTERVAL_CAP_S),
            ("max_request_bytes", max_request_bytes, 1, limits.RECEIVER_MAX_BODY_BYTES),
            ("hold_s", hold_s, 0.0, limits.HOLD_CAP_S),
            ("fallback_age_s", fallback_age_s, 0.0, limits.FALLBACK_AGE_CAP_S),
            ("pause_cap_s", pause_cap_s, limits.PAUSE_CAP_S, limits.PAUSE_LONGEST_CAP_S),
        ):
            if not least <= value <= most:  # not a number is refused too
                raise ConfigError(f"{option} is {value}", f"Give a number from {least:g} to {most:g}.")
            if isinstance(most, int) and not isinstance(value, int):
                raise ConfigError(f"{option} is {value}", "Give a whole number.")
        if isinstance(recipients, str):
            raise ConfigError("recipients is one text", "Give a list of age public keys.")
        self._sources, self._grant, self._transport = tuple(sources), grant, transport
        self._clock: Clock = clock or SystemClock()
        self._recipients = recipients
        self._max_events, self._max_bytes, self._max_age_s = (
            batch_max_events, batch_max_bytes, batch_max_age_s,
        )  # fmt: skip
        self._quanta_per_px, self._zstd_level = quanta_per_px, zstd_level
        self._upload_interval_s, self._max_request_bytes = upload_interval_s, max_request_bytes
        self._hold_s, self._fallback_age_s = hold_s, fallback_age_s
        self._state_dir = Path(state_dir)
        self.spool = DirectorySpool(
            self._state_dir / "spool",
            max_bytes=spool_max_bytes,
            max_files=spool_max_files,
            max_age_s=spool_max_age_s,
            min_free_bytes=spool_min_free_bytes,
            intact=intact_frame,
            clock=self._clock,
        )
        self._indicator, self._on_control = indicator or default_indicator(), on_control
        self._pause_cap_s, self._policy, self._has_channel = pause_cap_s, policy, channel
        self._language = language
        self._controls: Controls | None = None
        self._recorder: Recorder | None = None
        self._uploader: Uploader | None = None
        self._pid = 0  # of the process that started it: a fork's child owns none of this
        self._life = threading.RLock()  # start and stop, one at a time
        self._starting_in: int | None = None  # the thread in `start`
        self._stop_asked = False
        self._running = False
        self._capture = Capture(
            self._sources,
            session if session is not None else SessionWatch(),
            self._clock,
            on_turn=lambda: self._governor.consider(),
            on_resume=lambda: self._show("resumed"),
        )
        self._meter, self._capture_meter = CostMeter(self.threads), CostMeter(self._capture_threads)
        self._ledger = ImpactLedger(self._state_dir / IMPACT_FILE, clock=self._clock, machine=MachineEnergy())
        self._schedule_file = ScheduleFile(self.spool.path / SCHEDULE_FILE)
        self._base = Plan(batch_age_s=batch_max_age_s, upload=Upload.SCHEDULED)
        self._governor = Governor(
            default_policies() if policies is None else policies,
            resources if resources is not None else ResourceWatch(self._state_dir),
            base=self._base,
            clock=self._clock,
            cpu_ns=lambda: self._capture_meter.cpu_ns(),
            needs_network=not getattr(transport, "is_local", False),
            away=lambda: self._capture.session_away,
        )

    def start(self) -> None:
        """Starts to collect; nothing when it runs. A `stop` meanwhile, from a signal handler say, ends it.

        Raises `McilibError` before anything was captured, and then leaves nothing running. Where requests of the
        participant to the receiver wait, such as to delete data, `GrantError` takes up to 4 s: they are not void with
        the grant, and are sent first, once, and nothing else.
        """
        with self._life:
            if self._running:
                return
            try:
                grant = self._checked_grant()
            except GrantError:
                self._send_requests()
                raise
            if recipients := current(self._recipients):
                seal(b"", recipients)  # every later one will be as this: a key that is none is found now
            self._capture.begin()
            self._stop_asked, self._starting_in = False, threading.get_ident()
            try:
                self._start(grant)
            except BaseException:
                self._stop_asked = True
                raise
            finally:
                self._starting_in = None
                if self._stop_asked:
                    self._stop_all()

    def _start(self, grant: Grant | None) -> None:
        """All parts, in the order of the data, until somebody asks to stop."""
        try:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(
                f"The state folder {self._state_dir} cannot be made ({error.strerror})", "Choose another."
            ) from None
        check_state_folder(self._state_dir)
        self._meter, self._capture_meter = CostMeter(self.threads), CostMeter(self._capture_threads)
        self._ledger.begin(disk=self._disk())
        self.spool.open()
        self._pid, self._running = os.getpid(), True
        atexit.register(self.stop)
        self._recorder = self._uploader = None
        controls = self._controls = self._make_controls(grant, channel=self._has_channel)
        controls.open()
        if self._transport is not None:
            self._uploader = self._make_uploader(
                controls, self._transport, lambda: self._governor.consider().to_send()
            )
        if controls.gate is not None:
            self._start_capture(controls, controls.gate)
        else:  # withdrawn: what is left to do is to ask the receiver to delete all
            controls.begin(None, None, self._uploader)
        if self._stop_asked:
            return
        if self._uploader is not None:
            self._uploader.start()

    def _make_controls(self, grant: Grant | None, *, channel: bool) -> Controls:
        return Controls(
            self._state_dir,
            self.spool,
            grant,
            clock=self._clock,
            indicator=self._indicator,
            pause_cap_s=self._pause_cap_s,
            policy=self._policy,
            channel=self.control if channel else None,
            on_control=self._on_control,
            language=self._language,
        )

    def _make_uploader(
        self, controls: Controls, transport: Transport, plan: Callable[[], SendPlan]
    ) -> Uploader:
        return Uploader(
            self.spool,
            transport,
            may_send=controls.may_send,
            interval_s=self._upload_interval_s,
            max_request_bytes=self._max_request_bytes,
            plan=plan,
            hold_s=self._hold_s,
            fallback_age_s=self._fallback_age_s,
            schedule_file=self._schedule_file,
            endpoint=endpoint_of(transport),
            on_decision=controls.decided,
            on_carried_out=controls.carried_out,
            clock=self._clock,
        )

    def _send_requests(self) -> None:
        """Sends the control records that wait, once, and no data. Raises nothing: what is not sent now waits."""
        transport = self._transport
        if transport is None or not self.spool.path.is_dir():
            return
        # Whatever it is, that the grant is void is what the host is to hear.
        with contextlib.suppress(Exception), contextlib.ExitStack() as ends:
            check_state_folder(self._state_dir)
            ends.enter_context(self.spool)
            controls = self._make_controls(None, channel=False)  # without a grant no data goes
            ends.callback(controls.close)
            controls.open()
            if self.spool.controls():
                uploader = self._make_uploader(controls, transport, SendPlan)
                ends.callback(transport.close)
                ends.callback(uploader.stop, limits.STOP_RESERVE_S)
                uploader.start()
                uploader.flush(limits.REQUESTS_TIMEOUT_S)
                if waiting := len(self.spool.controls()):
                    _log.info("mcilib: %d requests to the receiver wait for an answer", waiting)

    def _start_capture(self, controls: Controls, gate: Gate) -> None:
        self._recorder = Recorder(
            gate=gate,
            spool=self.spool,
            sources=self._sources,
            recipients=self._recipients,
            max_events=self._max_events,
            max_bytes=self._max_bytes,
            max_age_s=self._max_age_s,
            quanta_per_px=self._quanta_per_px,
            zstd_level=self._zstd_level,
            on_commit=self._committed,
            usual=self._base,
            on_adopted=self._write_plan,
            on_batch=controls.note_batch,
            audit_head=lambda: controls.participant.audit.head,
            on_pulse=self._pulse,
            on_due=self._consider,
            due_s=self._due_s,
            clock=self._clock,
        )
        self._recorder.start()
        self._governor.start(self._carry_out)
        controls.begin(self._capture, self._recorder, self._uploader)
        if controls.held is None and not controls.show("started"):
            raise IndicatorError(
                "The participant cannot be told that recording begins, so it does not",
                "Give an indicator that works, or a terminal on stderr.",
            )
        self._capture.start(self._recorder)
        names = ", ".join(source.name for source in self._sources)
        _log.info("mcilib: collecting %s for %s (%s)", names, gate.grant.operator, gate.grant.purpose)

    def _show(self, kind: str) -> bool:
        return self._controls is not None and self._controls.show(kind)

    def _pulse(self) -> None:
        self._governor.pulse()
        if self._controls is not None:
            self._controls.pulse()

    def _consider(self) -> None:
        self._governor.consider()
        if self._controls is not None:
            self._controls.consider()

    def _due_s(self) -> float | None:
        controls = self._controls
        waits = [self._governor.due_s(), controls.due_s() if controls is not None else None]
        return min((wait for wait in waits if wait is not None), default=None)

    def _disk(self) -> list[DiskStatistics]:
        return [self.spool.disk_statistics(), self._schedule_file.disk_statistics()]

    def _note(self, *, save: bool = False) -> None:
        uploader = self._uploader
        upload = uploader.totals() if uploader is not None else None
        self._ledger.note(cost=self._meter.read(), disk=self._disk(), upload=upload, save=save)

    def _committed(self) -> None:
        self._note(save=True)  # only here: a disk that hangs does not hold who asks for statistics
        uploader = self._uploader
        if uploader is not None:
            uploader.notify()
            if self._governor.plan.upload is Upload.NOW:
                uploader.hasten()

    def _carry_out(self, plan: Plan, before: Plan) -> None:
        """Waits for nothing: called by whichever thread noticed that the plan has changed."""
        recorder, uploader = self._recorder, self._uploader
        self._capture.adopt(plan)
        if recorder is not None:
            recorder.adopt(plan)
        if uploader is not None and plan.sends_more_than(before):
            # It may have to wait for the disk. No more threads: what waits goes at the next interval.
            with contextlib.suppress(RuntimeError):
                at_once = plan.upload is Upload.NOW
                threading.Thread(
                    target=uploader.hasten if at_once else uploader.reconsider,
                    name="mcilib-plan",
                    daemon=True,
                ).start()

    def _write_plan(self) -> None:
        """For `mcilib status`. In the recorder's thread."""
        with contextlib.suppress(OSError):
            write_plan(self._state_dir / PLAN_FILE, self._governor.statistics())

    def override(self, by: Literal["host", "participant"], **levers: Any) -> None:
        """`by` (`participant` or `host`) sets levers of the plan (see `mcilib.policy.plan.Plan`), whatever the policies
        say: `override("host", upload=Upload.NONE)`. It holds until `take_back`, over restarts of this collector too.
        `ConfigError` for a lever or a value that is none."""
        if self._pid in (0, os.getpid()):  # what sources listen to is not a fork's child's
            self._governor.override(by, **levers)

    def take_back(self, by: Literal["host", "participant"], *levers: str) -> None:
        """Ends what `by` has overridden: these levers, or all."""
        if self._pid in (0, os.getpid()):
            self._governor.take_back(by, *levers)

    def stop(self) -> None:
        """Ends capture and commits what was captured; never uploads; at most 2 s. May be called twice.

        From any thread, from a signal handler too, also while `start` goes on. An interrupt (Ctrl-C) meanwhile
        is raised when all is done.
        """
        if self._pid not in (0, os.getpid()):
            return
        self._stop_asked = True
        starting_in = self._starting_in
        if starting_in is not None:
            self._capture.interrupt()  # `start` may be waiting for a source
            if starting_in == threading.get_ident():
                return  # `start` sees it and ends everything
        if self._life.acquire(timeout=limits.STOP_TIMEOUT_S):
            try:
                self._stop_all()
            finally:
                self._life.release()

    def _stop_all(self) -> None:
        if not self._running:
            return
        ends_s = time.monotonic() + limits.STOP_TIMEOUT_S - limits.STOP_RESERVE_S
        uploader, transport = self._uploader, self._transport

        def left_s(reserve_s: float) -> float:
            return max(0.0, ends_s - reserve_s - time.monotonic())

        controls = self._controls
        steps: list[Callable[[], object]] = [self._note, self._governor.stop]
        if controls is not None:
            steps.append(controls.stop)
        steps.append(self._capture.stop)
        if self._recorder is not None:
            steps.append(self._recorder.stop)
        if uploader is not None:
            steps.append(lambda: uploader.stop(left_s(_SAVE_S)))
        if transport is not None:
            steps.append(transport.close)
        if controls is not None:
            steps.append(lambda: controls.settle(left_s(_SAVE_S)))
        # A disk that hangs keeps a thread, and not the host.
        saves = [self._ledger.save, *([controls.participant.save_again] if controls is not None else [])]
        steps += [self._note, lambda: stop_together(saves, max(_SAVE_S, left_s(0.0)))]
        if controls is not None:
            steps.append(controls.close)
        carry_out([*steps, self.spool.close, self._stopped])

    def _stopped(self) -> None:
        self._running = False
        atexit.unregister(self.stop)

    def flush(self, timeout_s: float = limits.FLUSH_TIMEOUT_S) -> FlushResult:
        """Commits the open batch and uploads everything now; returns when it is delivered or after `timeout_s`."""
        if not self._here():
            return FlushResult(False, False, len(self.spool.waiting()), "the collector is not running")
        committed = self.commit()
        if self._uploader is None:
            return FlushResult(False, committed, len(self.spool.waiting()), "there is no transport")
        result = self._uploader.flush(timeout_s)
        return FlushResult(
            committed and result.delivered, committed, len(self.spool.waiting()), result.detail
        )

    def reconsider(self) -> None:
        """To be called when what kept batches here may have gone (the network is back, mains). If something did, the
        next upload comes at a random moment within one interval, if that is sooner."""
        if self._here() and self._uploader is not None:
            self._uploader.reconsider()

    @property
    def plan(self) -> Plan:
        """How generously it collects and sends now; `statistics().plan` says why."""
        return self._governor.plan

    @property
    def held(self) -> str | None:
        """Why nothing is captured just now, in words; None when it is, or when the collector does not run."""
        if not self._here() or self._controls is None:
            return None
        return self._controls.held or self._capture.held

    # --- what the participant decides ----------------------------------------------------------------------
    # Each returns when it is so: nothing that it forbids is captured any more. `ConfigError` for a value out of range,
    # `GrantError` when it does not run. `SpoolError`: it holds until the collector stops, and is not on the disk.

    def _decisions(self) -> Controls:
        if not self._here() or self._controls is None:
            raise GrantError(
                "The collector does not run", "Call start(), or use `mcilib` on its state folder."
            )
        return self._controls

    @property
    def decisions(self) -> ControlState:
        """All that the participant has decided: pause, exemptions with the operator's answers, hold, withdrawal."""
        return self._decisions().participant.state

    def pause(self, duration_s: float | None = None) -> Pause:
        """Nothing is captured for so long (default 15 minutes, at most `pause_cap_s`), time asleep included; then it
        goes on by itself. No hook runs meanwhile; the data tell how long nothing was collected, not why."""
        return self._decisions().pause(duration_s)

    def resume(self) -> None:
        """Ends a pause now."""
        self._decisions().resume()

    def request_exemption(
        self, scope: ExemptScope, reason_class: str, note: str = "", until_ns: int | None = None
    ) -> Exemption:
        """Asks the operator that `scope` is never captured, until `until_ns` (Unix time) or until it is withdrawn. It
        is not captured from now on, unless the operator denies it. `reason_class` is one of
        `mcilib.consent.exemption.REASON_CLASSES`; the note goes to the operator."""
        return self._decisions().request_exemption(scope, reason_class, note, until_ns)

    def withdraw_exemption(self, exemption_id: str) -> Exemption:
        """Takes a request back, or an exemption: what it covered is captured again."""
        return self._decisions().withdraw_exemption(exemption_id)

    def forget(self, last_s: float) -> Forgotten:
        """Deletes what was captured in the last `last_s` seconds, with the whole batches that it lies in: in memory, on
        this device, and, by a request that is sent until it is confirmed, at the receiver."""
        return self._decisions().forget(last_s)

    def hold(self, hold_s: float) -> None:
        """Batches rest at least so long on this device before they go (0 to 7 days; 0 ends it)."""
        self._decisions().hold(hold_s)

    def commit(self) -> bool:
        """What was captured so far is on disk, where it can be looked at; True when nothing is left in memory."""
        return self._here() and (self._recorder is None or self._recorder.commit())

    def withdraw(self) -> Forgotten:
        """Ends it. All data on this device is deleted, in memory first; the receiver is asked to delete all. Nothing
        but that request is sent any more. The grant is void; another one gets another pseudonym."""
        return self._decisions().withdraw()

    def regrant(self, grant: Grant | None = None) -> Forgotten:
        """Goes on under another grant of the same participant, or the one in the state folder. What it does not cover
        is off at once, and every whole batch with something of that is deleted. It answers `ask`."""
        decisions = self._decisions()
        try:
            return decisions.regrant(grant)
        finally:
            if decisions.gate is not None:
                self._grant = decisions.gate.grant  # of the next start too

    def ask(self, why: str) -> None:
        """Something is asked of the participant (a wider grant, a changed policy), `why` in words: nothing is captured
        until `regrant`, or `answered`, over restarts too."""
        self._decisions().ask(why)

    def answered(self) -> None:
        """The participant has answered, and the grant stays as it is."""
        self._decisions().answered()

    def control(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """One of `mcilib.consent.commands.COMMANDS` in JSON: what the control channel calls."""
        return carry_out_control(self, name, arguments)

    def control_resume(self) -> dict[str, Any]:
        """`resume`, and why still nothing is captured, if so, once the participant was told that it goes on."""
        self.resume()
        self._capture.await_resumed(limits.RESUMED_TIMEOUT_S)
        return {"held": self.held}

    def control_status(self) -> dict[str, Any]:
        """Why nothing is captured, if so, and `statistics` in JSON."""
        return {"held": self.held, "pid": os.getpid(), "statistics": self.statistics().as_dict()}

    def control_flush(self, timeout_s: float) -> dict[str, Any]:
        return asdict(self.flush(min(timeout_s, limits.FLUSH_TIMEOUT_S)))

    def statistics(self) -> Statistics:
        """A snapshot; counts of capture, upload and cost begin at the last `start`, those of the spool do not."""
        if self._pid not in (0, os.getpid()):  # a fork's child, in which locks may be held for ever
            nothing = CaptureStatistics(), self.spool.statistics(), UploadStatistics(), CostStatistics()
            return Statistics(False, *nothing)
        recorder, uploader = self._recorder, self._uploader
        if self._running:
            self._note()
        return Statistics(
            running=self._running,
            capture=recorder.statistics() if recorder is not None else CaptureStatistics(),
            spool=self.spool.statistics(),
            upload=uploader.statistics() if uploader is not None else UploadStatistics(),
            cost=self._meter.read() if self._running else CostStatistics(),
            plan=self._governor.statistics(),
            impact=self._ledger.statistics(),
        )

    def health(self) -> Health:
        """What is wrong now, in words, with what to do about it."""
        if not self._here():
            return Health((Problem("collector", "Not running", "Call start()."),))
        parts = [self._controls.health()] if self._controls is not None else []
        parts += [self._capture.health(), self._governor.health()]
        parts += [part.health() for part in (self._recorder, self._uploader) if part is not None]
        return Health.join(parts)

    def _capture_threads(self) -> list[threading.Thread]:
        """Those whose cost the levers of a CPU budget can lower: not the uploader's, which spends it all at once."""
        recorder = self._recorder
        return [*self._capture.threads(), *(recorder.threads() if recorder is not None else [])]

    def threads(self) -> list[threading.Thread]:
        """All threads of this collector, as they are now."""
        owners = [self._capture, self._governor, self._recorder, self._uploader, self._controls]
        return list(dict.fromkeys(thread for owner in owners for thread in getattr(owner, "threads", list)()))

    def _here(self) -> bool:
        return self._running and self._pid == os.getpid()

    def _checked_grant(self) -> Grant | None:
        """None: it was withdrawn, and the receiver has not confirmed yet that all is deleted."""
        grant = self._grant
        withdrawal = Participant.read_state(self._state_dir).withdrawal
        pending = withdrawal is not None and withdrawal.confirmed_ns is None
        if (
            withdrawal is not None
            and pending
            and (grant is None or grant.participant == withdrawal.participant)
        ):
            return None
        if grant is None:
            raise GrantError(
                "There is no grant", "Nothing is collected without one: `mcilib grant` or Grant.ask()."
            )
        check_policy(grant, self._policy)
        if grant.expired(self._clock.wall_ns()):
            raise GrantError(f"The grant expired at {grant.expires_at}", "Ask again with `mcilib grant`.")
        for source in self._sources:
            if not grant.covers(source.scope):
                raise GrantError(
                    f"The grant covers {', '.join(grant.scopes)}, not {source.scope!r} as source {source.name!r} needs",
                    "Ask for that scope, or leave the source out.",
                )
        return grant

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
