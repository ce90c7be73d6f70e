"""The governor: holds policies to what the machine can spare, and tells the plan whenever it changes."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from mcilib import limits
from mcilib.clock import Clock, ClockAnchor
from mcilib.errors import ConfigError
from mcilib.files import read_file, write_private
from mcilib.policy.decision import decide, heeds_cpu, troubles
from mcilib.policy.decision import due_s as due_in_s
from mcilib.policy.override import Override, apply_overrides
from mcilib.policy.plan import Plan
from mcilib.policy.policy import Latches, Moment, Policy
from mcilib.policy.state import ResourceState
from mcilib.protocols import Resources
from mcilib.statistics import Health, PlanChange, PlanStatistics, Problem

_log = logging.getLogger("mcilib")

_FILE_MAX_BYTES = 256 * 1024
PLAN_FILE = "plan.json"
"""Its name in the state folder."""


class Governor:
    """Decides the plan: the meet of `base` and all `policies`, then what host and participant have asked for.

    Where nothing has to leave the machine (not `needs_network`) it does not matter whether that is online.

    It has no thread. It decides when `resources` tell of a change, while there is input (`pulse`), before each request
    of an upload (`consider`), and when time alone changes an answer (`due_s` says when). `on_plan` of `start` is
    called after each change, one call at a time, in the thread that noticed: it must not wait for that
    thread. Policies that fail are told by `health`. Any thread.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        resources: Resources,
        *,
        base: Plan,
        clock: Clock,
        cpu_ns: Callable[[], int | None] = lambda: None,
        away: Callable[[], bool] = lambda: False,
        needs_network: bool = True,
    ) -> None:
        self._policies, self._resources, self._base = tuple(policies), resources, base
        self._clock, self._cpu_ns, self._away, self._needs_network = clock, cpu_ns, away, needs_network
        self._overrides: tuple[Override, ...] = ()
        self._lock = (
            threading.RLock()
        )  # guards what follows, and makes one call of `on_plan` follow the other
        self._plan = base
        self._latches: Latches = None
        self._state = ResourceState()
        self._on_plan: Callable[[Plan, Plan], None] | None = None
        self._changes = 0
        self._history: deque[PlanChange] = deque(maxlen=limits.PLAN_HISTORY)
        self._measuring = _Measuring()
        self._due_ns: int | None = None  # (monotonic) when time alone may change the plan
        self._decided_at = ClockAnchor(clock.monotonic_ns(), clock.wall_ns())
        self._failure: Exception | None = None  # of resources that break their promise
        self._is_over = False  # what is known is not looked up any more

    # --- life ----------------------------------------------------------------------------------------------

    def start(self, on_plan: Callable[[Plan, Plan], None]) -> None:
        """`on_plan` is given the plan and the one before it, for the first time before this returns."""
        with self._lock:
            self._latches = None
            self._measuring = _Measuring()
            self._on_plan, self._is_over = None, False
        if self._policies:  # else nobody asks
            self._resources.start(self._changed)
        with self._lock:
            self._on_plan, self._changes = on_plan, 0
            self._history.clear()
            self._decide(first=True)

    def stop(self) -> None:
        """At most 0.5 s. What was known last holds for what is still asked: nobody tells of the machine any more."""
        self._on_plan, self._is_over = None, True
        self._resources.stop()

    def threads(self) -> list[threading.Thread]:
        try:
            return list(getattr(self._resources, "threads", list)())
        except Exception:  # somebody else's
            return []

    # --- deciding ------------------------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        return self._plan

    def consider(self) -> Plan:
        """Looks at the machine again and decides; the plan now in force. Never raises."""
        self._refresh()
        with self._lock:
            self._decide()
            return self._plan

    def _refresh(self) -> None:
        try:
            self._resources.refresh()
            self._failure = None
        except Exception as error:  # somebody else's
            self._failure = error

    def _known(self) -> ResourceState:
        """What is known of the machine; what was, after the end and where that cannot be told."""
        try:
            state = self._resources.state
            if not isinstance(state, ResourceState):
                raise TypeError
            return self._state if self._is_over else state
        except Exception as error:  # somebody else's
            self._failure = error
            return self._state

    def _changed(self) -> None:
        with self._lock:
            self._decide()

    def pulse(self) -> None:
        """There is input: measures what that costs. To be called every second or so (`limits.PULSE_SAMPLE_S`);
        decides only where a policy heeds what was measured, or is due."""
        now_ns, cpu_ns = self._clock.monotonic_ns(), self._cpu_ns()
        if not self._lock.acquire(blocking=False):  # somebody decides, and a source waits for nobody
            return
        try:
            ratio = self._measuring.sample(now_ns, cpu_ns)
            if ratio is not None:
                self._state = replace(self._state, cpu_ratio=ratio)
            if self._is_due(now_ns) or (
                ratio is not None and heeds_cpu(self._policies, ratio, self._latches)
            ):
                self._decide(ratio)
        finally:
            self._lock.release()
        if ratio is not None:
            self._refresh()

    def _is_due(self, now_ns: int) -> bool:
        """Also when the machine has slept, where monotonic time stands still, or the wall clock was stepped."""
        if self._due_ns is None:
            return False
        return now_ns >= self._due_ns or abs(self._decided_at.drift_ns(self._clock)) > limits.WALL_STEP_NS

    def due_s(self) -> float | None:
        """In how many seconds time alone may change the plan, at most `limits.PLAN_DUE_CAP_S`."""
        due_ns = self._due_ns
        return None if due_ns is None else max(0, due_ns - self._clock.monotonic_ns()) / 1e9

    def override(self, by: Literal["host", "participant"], **levers: Any) -> None:
        """`by` sets levers, whatever policies say, until `take_back`. `ConfigError` for one that is none."""
        try:
            new = tuple(Override(by, lever, value) for lever, value in levers.items())
        except ValueError as error:
            raise ConfigError(
                f"The plan cannot be overridden: {error}", "See mcilib.policy.plan.Plan."
            ) from None
        with self._lock:
            self._overrides = (*self._kept(by, tuple(levers)), *new)
            self._decide()

    def take_back(self, by: Literal["host", "participant"], *levers: str) -> None:
        """Ends overrides by `by`: of these levers, or all."""
        with self._lock:
            self._overrides = self._kept(by, levers)
            self._decide()

    def _kept(self, by: str, levers: Sequence[str]) -> tuple[Override, ...]:
        return tuple(o for o in self._overrides if o.by != by or (levers and o.lever not in levers))

    def _moment(self) -> Moment:
        return Moment(self._clock.monotonic_ns(), self._clock.wall_ns())

    def _decide(self, cpu_ratio: float | None = None, *, first: bool = False) -> None:
        moment = self._moment()
        state = self._known()
        online = state.online if self._needs_network else None
        state = replace(state, online=online, session_away=self._away(), cpu_ratio=cpu_ratio)
        self._state = state if cpu_ratio is not None else replace(state, cpu_ratio=self._state.cpu_ratio)
        plan, self._latches = decide(self._policies, state, self._latches, moment, self._base)
        plan, before = apply_overrides(plan, self._overrides), self._plan
        due_s = due_in_s(self._policies, moment)
        self._due_ns = None
        if due_s is not None:
            self._due_ns = moment.monotonic_ns + round(min(due_s, limits.PLAN_DUE_CAP_S) * 1e9)
        self._decided_at = ClockAnchor(moment.monotonic_ns, moment.wall_ns)
        if plan == before and not first:
            return
        self._plan, on_plan = plan, self._on_plan
        if not first:
            self._changes += 1
            _log.info("mcilib: plan: %s", "; ".join(plan.reasons) or "everything as configured")
        self._history.append(PlanChange(moment.wall_ns, plan.levers(self._base), plan.reasons))
        if on_plan is not None:
            on_plan(plan, before)

    # --- telling -------------------------------------------------------------------------------------------

    def statistics(self) -> PlanStatistics:
        """The plan as it is, why, and what came before it."""
        with self._lock:
            return PlanStatistics(
                levers=self._plan.levers(self._base),
                reasons=self._plan.reasons,
                changes=self._changes,
                history=tuple(self._history),
                resources=self._state.as_dict(),
            )

    def health(self) -> Health:
        step = "Mend it; until then only control records are sent."
        failed = Health(tuple(Problem("policy", trouble, step) for trouble in troubles(self._latches)))
        return Health.join([failed, self._health_of_resources()])

    def _health_of_resources(self) -> Health:
        try:
            health, failure = self._resources.health(), self._failure
        except Exception as error:  # somebody else's
            health, failure = Health(), error
        if failure is None:
            return health
        message = f"What the machine can spare cannot be told ({type(failure).__name__})"
        return Health.join([health, Health((Problem("resources", message, "Mend what tells it."),))])


class _Measuring:
    """What input costs, sample by sample.

    What comes at once and seldom says nothing of the second after it: a full garbage collection of the host, which
    falls on the thread that makes the event that is one too many, a batch that is sealed. So the costliest sample
    does not count.
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        self._samples: list[tuple[int, int]] = []  # how long, how much CPU (ns)

    def sample(self, now_ns: int, cpu_ns: int | None) -> float | None:
        """CPU as part of a core, once there are two samples, of `limits.PULSE_S` seconds together; else None."""
        before, self._last = self._last, None if cpu_ns is None else (now_ns, cpu_ns)
        # A longer silence would hide what the input after it costs.
        if before is None or cpu_ns is None or not 0 < now_ns - before[0] <= limits.PULSE_WINDOW_S * 1e9:
            self._samples = []
            return None
        self._samples.append((now_ns - before[0], max(0, cpu_ns - before[1])))
        if len(self._samples) < 2 or sum(passed_ns for passed_ns, _ in self._samples) < limits.PULSE_S * 1e9:
            return None
        samples, self._samples = self._samples, []
        samples.remove(max(samples, key=lambda one: one[1] / one[0]))
        return sum(cpu for _, cpu in samples) / sum(passed_ns for passed_ns, _ in samples)


def write_plan(path: Path, plan: PlanStatistics) -> None:
    """For `mcilib status`, which runs in another process. Not flushed: it is of worth only while the agent runs. Raises
    OSError."""
    record = {"schema": 1, **asdict(plan)}
    write_private(path, json.dumps(record, default=str).encode(), durable=False)


def read_plan(path: Path) -> PlanStatistics | None:
    """What an agent has told last; None when there is nothing, or it is not of this version."""
    try:
        told = json.loads(read_file(path, _FILE_MAX_BYTES))
        if told.pop("schema") != 1:
            return None
        history = tuple(PlanChange(**_checked(change)) for change in told["history"])
        return PlanStatistics(**{**_checked(told), "history": history})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None


_KINDS: dict[str, type] = {
    "levers": dict, "resources": dict, "reasons": list, "history": list, "changes": int, "wall_ns": int,
}  # fmt: skip


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """With values of the right kinds; raises `TypeError`, `ValueError` or `KeyError`."""
    for name, value in record.items():
        if type(value) is not _KINDS[name] or (type(value) is int and not 0 <= value < 2**63):
            raise TypeError
    reasons = tuple(record["reasons"])
    if not all(isinstance(reason, str) for reason in reasons):
        raise TypeError
    return {**record, "reasons": reasons}
