"""A day of a laptop in some minutes: what happens to it, what the agent's plan makes of it, what the agent sends.

Not run by itself: see adaptation.py. The laptop is emulated below the agent (a battery of the kernel's, the real
upowerd, services of network and power profiles on a bus of their own); agent, input and receiver are real.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import agents_beside
import capture_cost
import working_day
from rig import Process, agent, grant, process_cpu_s, remark, settle, steady_display
from tunnel import Far, far_receiver

from mcilib import limits
from mcilib.governor import PLAN_FILE, read_plan
from mcilib.policy.state import Metered
from mcilib.reader import Reader
from mcilib.statistics import PlanChange
from mcilib.testing.laptop import EmulatedLaptop
from mcilib.testing.xvfb import VirtualDisplay

FOLLOWS_S = 1.0
"""A plan follows within this of the system's word: promised."""
WAIT_S = 10.0
"""For a plan, before it counts as not followed."""
MOVES_PER_S = 12
"""At least, in the mean of a phase."""
APART_S = 0.3
"""After a step that nothing follows, so that each is heard by itself."""
UPLOAD_S, BATCH_S = 5.0, 5.0
"""Between uploads, and of a batch on mains: a day is short here."""
SAMPLE_S = 1.0

ON_BATTERY: dict[str, Any] = {
    "read_interval_s": limits.BATTERY_READ_INTERVAL_S, "batch_age_s": limits.FRUGAL_BATCH_AGE_S,
}  # fmt: skip
LOW = {**ON_BATTERY, "cpu_effort": "low", "upload": "control"}
SAVER = {
    **LOW,
    "read_interval_s": limits.SAVER_READ_INTERVAL_S,
    "motion": "thinned",
    "tolerance_px": limits.SAVER_TOLERANCE_PX,
}
METERED, NO_NETWORK = {"upload": "control"}, {"upload": "none"}


@dataclass(frozen=True)
class Step:
    """Something that happens to the laptop, and the levers that are lowered from then on. None: the plan stays."""

    words: str
    act: Callable[[EmulatedLaptop], None]
    levers: Mapping[str, Any] | None


@dataclass(frozen=True)
class Phase:
    """Steps, one right after the other, and then some time."""

    name: str
    steps: tuple[Step, ...]


def _battery(percent: float, levers: Mapping[str, Any] | None = None) -> Step:
    return Step(f"battery {percent:g} %", lambda laptop: laptop.battery(percent / 100), levers)


def phases() -> tuple[Phase, ...]:
    """The day. Around 15 and 20 % the battery wavers, and nothing may follow that."""
    return (
        Phase("mains", ()),
        Phase(
            "battery", (Step("unplugged", lambda laptop: laptop.on_mains(False), ON_BATTERY), _battery(40))
        ),
        Phase("battery low", (_battery(15), _battery(14.5, LOW))),
        Phase("15 to 19 %", tuple(_battery(percent) for percent in (15.5, 14.5, 16, 19, 15, 19.5, 14))),
        Phase("16 to 21 %", (_battery(21, ON_BATTERY), *(_battery(p) for p in (19, 16, 20, 15, 21, 18)))),
        Phase("saver", (Step("saver on", lambda laptop: laptop.saver(True), SAVER),)),
        Phase(
            "charging",
            (
                Step("plugged in", lambda laptop: laptop.on_mains(True), SAVER),
                Step("saver off", lambda laptop: laptop.saver(False), {}),
            ),
        ),
        Phase("metered", (Step("metered", lambda laptop: laptop.metered(Metered.YES), METERED),)),
        Phase(
            "portal",
            (
                Step("portal", lambda laptop: laptop.portal(True), NO_NETWORK),
                Step("unmetered", lambda laptop: laptop.metered(Metered.NO), NO_NETWORK),
            ),
        ),
        Phase("offline", (Step("offline", lambda laptop: laptop.online(False), NO_NETWORK),)),
        Phase("back", (Step("online", lambda laptop: laptop.online(True), {}),)),
    )


# --- an agent on the laptop ---------------------------------------------------------------------------------


@dataclass
class OnLaptop:
    """An agent that captures there."""

    laptop: EmulatedLaptop
    display: VirtualDisplay
    far: Far
    process: Process
    state: Path
    history: dict[int, PlanChange] = field(default_factory=dict)
    """All changes of the plan that were seen in its file, by time."""

    def look(self) -> tuple[Mapping[str, Any], int]:
        """The levers that are lowered now, and how often the plan has changed."""
        plan = read_plan(self.state / PLAN_FILE)
        if plan is None:
            return {}, 0
        self.history.update((change.wall_ns, change) for change in plan.history)
        return plan.levers, plan.changes

    def do(self, step: Step) -> dict[str, Any]:
        """Carries it out, and tells how long after its beginning the plan changed."""
        _, before = self.look()
        told_s = time.time()
        step.act(self.laptop)
        followed: dict[str, Any] = {"step": step.words, "told_s": told_s, "after_s": None, "wrong": None}
        if step.levers is None:
            time.sleep(APART_S)
            return followed
        until_s = told_s + WAIT_S
        while (now := self.look())[1] == before and time.time() < until_s:
            time.sleep(0.02)
        levers, changes = now
        if changes == before:
            followed["wrong"] = f"no other plan within {WAIT_S:g} s"
            return followed
        followed["after_s"] = max(0.0, max(self.history) / 1e9 - told_s)
        if dict(levers) != dict(step.levers):
            followed["wrong"] = f"the plan is {dict(levers)}, not {dict(step.levers)}"
        elif followed["after_s"] > FOLLOWS_S:
            followed["wrong"] = f"{followed['after_s']:.1f} s later"
        return followed


def started(laptop: EmulatedLaptop, display: VirtualDisplay, far: Far, state: Path, config: str) -> OnLaptop:
    """With the defaults but for `config` and what a far receiver needs."""
    grant(state)
    file = state.parent / "mcilib.toml"
    file.write_text(config)
    environ = {**display.environ(), **laptop.environment()}
    flags = ["--sources", ",".join(capture_cost.SOURCES), "--config", str(file), *far.flags]
    return OnLaptop(laptop, display, far, agent(state, far.endpoint, environ, *flags), state)


def accounted(one: OnLaptop, injected: Counter[str]) -> dict[str, Any]:
    """What became of what was injected: in the store, or in the spool."""
    place = agents_beside.Running(
        agents_beside.Agent(agents_beside.OURS, "mains"), one.display, one.state.parent.parent
    )
    found = agents_beside.stored(place, injected)
    keep = ("stored", "coalesced", "thinned", "dropped", "missing")
    return {"injected": dict(injected), **{name: found[name] for name in keep}}


# --- the day ------------------------------------------------------------------------------------------------

DAY_CONFIG = f"[upload]\ninterval_s = {UPLOAD_S}\n[batch]\nmax_age_s = {BATCH_S}\n"


def day(folder: Path, phase_s: float, seed: int) -> dict[str, Any]:
    """Somebody works all the while; figures once a second, and how each step was followed."""
    batches = folder / "batches"
    batches.mkdir(parents=True)
    script = phases()
    work = rest = worked(len(script), phase_s, seed)
    samples: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    with (
        EmulatedLaptop() as laptop,
        steady_display(working_day.WIDTH_PX, working_day.HEIGHT_PX) as display,
        far_receiver(batches) as far,
    ):
        one = started(laptop, display, far, batches / "state", DAY_CONFIG)
        with one.process as process:
            began_s = time.time()
            for number, phase in enumerate(script):
                remark(f"adaptation, a day: {phase.name} ({number + 1} of {len(script)}) ...")
                now, rest = rest.split(phase_s)
                hand = threading.Thread(target=working_day.replay, args=(now, [display], lambda _: None))
                hand.start()
                steps, phase_began_s = [one.do(step) for step in phase.steps], time.time()
                sent = far.proxy.carried()[0]
                ends_s = max(began_s + (number + 1) * phase_s, phase_began_s + min(phase_s, 2 * SAMPLE_S))
                while time.time() < ends_s:
                    samples.append(sample(one, began_s))
                    time.sleep(max(0.0, min(SAMPLE_S, ends_s - time.time())))
                hand.join()
                told.append({
                    "phase": phase.name, "begin_s": phase_began_s - began_s, "steps": steps,
                    "levers": dict(one.look()[0]), "sent_bytes": far.proxy.carried()[0] - sent,
                })  # fmt: skip
            working_day.replay(rest, [display], lambda _: None)
            samples.append(sample(one, began_s))
            settle(process.pid)
            wait_until_sent(one)
            _, changes = one.look()
            history = [
                {
                    "at_s": at_ns / 1e9 - began_s,
                    "levers": dict(change.levers),
                    "reasons": list(change.reasons),
                }
                for at_ns, change in sorted(one.history.items())
            ]
            samples.append(sample(one, began_s))
            process.finish()
        found = accounted(one, work.counts())
    expected = sum(step.levers is not None for phase in script for step in phase.steps)
    result = {
        "phase_s": phase_s, "phases": told, "samples": samples, "history": history,
        "changes": changes, "expected_changes": expected, "account": found,
        "in_store": len(Reader(far.store).batch_ids()),
    }  # fmt: skip
    return {**result, "wrong": wrong_day(result)}


def worked(phases: int, phase_s: float, seed: int) -> working_day.Day:
    """Somebody at work, who in each phase moves the pointer some of the time, and types a word."""
    acts: list[working_day.Act] = []
    seeds = count(seed * 1_000)
    for number in range(phases):
        tries = (working_day.make(phase_s, seed=next(seeds), traces_in=None) for _ in count())
        part = next(day for day in tries if day.counts()["move"] >= MOVES_PER_S * phase_s)
        begin_ns = int(number * phase_s * 1e9)
        acts += [(t_ns + begin_ns, *act) for t_ns, *act in part.acts]  # type: ignore[misc]
        for at, letter in enumerate("the"):
            acts += [(begin_ns + (2 * at + up) * 80_000_000, "key", letter, not up) for up in (False, True)]
    return working_day.Day(working_day.clean(acts), f"generated, seed {seed}")


def sample(one: OnLaptop, began_s: float) -> dict[str, Any]:
    up, down = one.far.proxy.carried()
    return {
        "at_s": time.time() - began_s,
        "cpu_s": process_cpu_s(one.process.pid),
        "up": up,
        "down": down,
        "levers": dict(one.look()[0]),
    }


def waiting(one: OnLaptop) -> int:
    return sum(1 for _ in (one.state / "spool").rglob("*.mcib"))


def wait_until_sent(one: OnLaptop, timeout_s: float = 4 * UPLOAD_S) -> bool:
    """Nothing but the open batch is left."""
    until_s = time.time() + timeout_s
    while waiting(one) and time.time() < until_s:
        time.sleep(0.1)
    return not waiting(one)


def wrong_day(result: Mapping[str, Any]) -> list[str]:
    """Promises that were broken."""
    said = [
        f"{step['step']}: {step['wrong']}"
        for phase in result["phases"]
        for step in phase["steps"]
        if step["wrong"]
    ]
    if result["changes"] != result["expected_changes"]:
        said.append(f"the plan changed {result['changes']} times, and {result['expected_changes']} were due")
    held = ("control", "none")
    said += [
        f"{phase['phase']}: {phase['sent_bytes']} bytes were sent"
        for phase in result["phases"]
        if phase["levers"].get("upload") in held and phase["sent_bytes"]
    ]
    return said + unaccounted(result["account"])


def unaccounted(account: Mapping[str, Any]) -> list[str]:
    said = [f"missing: {account['missing']}"] if account["missing"] else []
    return said + ([f"dropped: {account['dropped']}"] if account["dropped"] else [])


# --- in the middle of an upload -----------------------------------------------------------------------------

SLOW_S, AFTER_REQUESTS = 0.5, 2
DRAIN_CONFIG = """\
[upload]
interval_s = 1
max_request_bytes = 16384
[batch]
max_events = 15
max_age_s = 1
[adapt]
policies = ["battery", "network", "saver", "thermal"]
"""
"""Batches so small cost a multiple: the CPU budget would answer that."""
RATE_HZ = 1000.0


def drain(folder: Path, events: int, quiet_s: float, seed: int) -> dict[str, Any]:
    """Many small batches wait; when some requests of the upload are made, the network becomes metered, and for
    `quiet_s` from then on nothing may be sent."""
    batches = folder / "batches"
    batches.mkdir(parents=True)
    with (
        EmulatedLaptop() as laptop,
        steady_display(working_day.WIDTH_PX, working_day.HEIGHT_PX) as display,
        far_receiver(batches) as far,
    ):
        laptop.metered(Metered.YES)
        one = started(laptop, display, far, batches / "state", DRAIN_CONFIG)
        with one.process as process:
            remark(f"adaptation, in the middle of an upload: {events} events, until then metered ...")
            work = moving(RATE_HZ, events / RATE_HZ, seed)
            working_day.replay(work, [display], lambda _: None)
            settle(process.pid)
            waited = waiting(one)
            far.proxy.answer_s = SLOW_S
            begun = one.do(Step("unmetered", lambda laptop: laptop.metered(Metered.NO), {}))
            until_s = time.time() + WAIT_S
            while len(far.proxy.requests()) < AFTER_REQUESTS and time.time() < until_s:
                time.sleep(0.005)
            requests_before = len(far.proxy.requests())
            stopped = one.do(Step("metered", lambda laptop: laptop.metered(Metered.YES), METERED))
            stopped_s = stopped["told_s"] + (stopped["after_s"] or 0.0)
            time.sleep(quiet_s)
            # One that began in the same instant was asked for before the plan was.
            late = far.proxy.requests(stopped_s + 0.05)
            still = waiting(one)
            far.proxy.answer_s = 0.0
            again = one.do(Step("unmetered", lambda laptop: laptop.metered(Metered.NO), {}))
            all_sent = wait_until_sent(one)
            requests = len(far.proxy.requests())
            process.finish()
        found = accounted(one, work.counts())
    result = {
        "waiting_batches": waited, "waiting_when_stopped": still, "requests_before": requests_before,
        "requests_after": len(late), "requests": requests, "all_sent": all_sent,
        "steps": [begun, stopped, again], "account": found,
    }  # fmt: skip
    return {**result, "wrong": wrong_drain(result)}


def wrong_drain(result: Mapping[str, Any]) -> list[str]:
    said = [f"{step['step']}: {step['wrong']}" for step in result["steps"] if step["wrong"]]
    if result["requests_before"] < AFTER_REQUESTS:
        said.append("no upload of several requests began")
    elif not 0 < result["waiting_when_stopped"] < result["waiting_batches"]:
        said.append("the upload was not stopped in the middle")
    if result["requests_after"]:
        said.append(f"{result['requests_after']} requests with data began after the plan had changed")
    if not result["all_sent"]:
        said.append("the rest was not sent afterwards")
    return said + unaccounted(result["account"])


# --- a hand that does not rest ------------------------------------------------------------------------------


def moving(rate_hz: float, seconds: float, seed: int, *, presses: bool = True) -> working_day.Day:
    """Reaches for one thing after the other, with `presses` a click and four key taps a second."""
    import random

    import traces

    draw = random.Random(seed)
    period_ns = int(1e9 / rate_hz)
    acts: list[working_day.Act] = []
    hand = working_day.WIDTH_PX / 2, working_day.HEIGHT_PX / 2
    t_ns, ends_ns, spot = 0, int(seconds * 1e9), working_day.START
    while t_ns < ends_ns:
        for x, y in traces.reach(draw, hand, 1 / rate_hz):
            hand, spot = (x, y), _elsewhere(spot, (round(x), round(y)))
            acts.append((t_ns, "move", *spot))
            t_ns += period_ns
    if presses:
        for n in range(int(seconds * 4)):
            at_ns = n * 250_000_000
            acts += [
                (at_ns, "key", "etaoin"[n % 6], True),
                (at_ns + 60_000_000, "key", "etaoin"[n % 6], False),
            ]
            if n % 4 == 1:
                acts += [(at_ns + 125_000_000, "button", 1, True), (at_ns + 200_000_000, "button", 1, False)]
    kept = [act for act in acts if act[0] < ends_ns]
    return working_day.Day(working_day.clean(kept), f"moving at {rate_hz:g} Hz, seed {seed}")


def _elsewhere(before: Sequence[int], place: tuple[int, int]) -> tuple[int, int]:
    """A pixel on where the hand is where it was: each report of a device at a constant rate is an event."""
    x = min(max(place[0], 1), working_day.WIDTH_PX - 2)
    y = min(max(place[1], 0), working_day.HEIGHT_PX - 1)
    return (x + 1 if (x, y) == tuple(before) else x), y
