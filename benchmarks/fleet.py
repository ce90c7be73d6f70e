"""What a fleet does to its server: before, during and after an outage, and when an office gets its network back.

A virtual clock; the schedule is the real code (`mcilib.delivery.retry`), the others are written down from their
sources. Each agent uploads once an hour, at a moment of its own; each attempt counts as a request, also the
quick ones within one upload, which are made as the real `Uploader` of this process is found to make them.

Outage: for 2 h every connection is refused. Peak: most requests in any 10 s, as a multiple of what comes in 10 s
in the mean while all is well (chance alone makes 1.2 of it). Drained: how long after the end of the outage the given
part of the agents has delivered all that it had. Lost: parts of an hour's data that were given up, per agent.

Office: the network of 10,000 agents, a fleet of their own, is gone for 2 h and comes back to all of them within 10 s.
Only what reaches the server counts. `told`: the agent hears of the network (`Uploader.reconsider`).

    sentry-native   15 min * 2^n after the n-th failure of an envelope, no jitter, looked at every 15 min; after 6
                    attempts it is dropped, and at once after a 5xx (src/sentry_retry.c,
                    github.com/getsentry/sentry-native/pull/1520)
    Segment         at once, then 0.5 s * 2^n up to 60 s with 10 % jitter; after 10 of these the batch is dropped
                    (segment/analytics/consumer.py in github.com/segmentio/analytics-python)
    exponential     30 s * 2^n up to 4 h: without jitter, and with full jitter
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

from rig import arguments, machine, remark, show, table
from tenacity import wait_random_exponential

from mcilib import limits
from mcilib.delivery.retry import RetryBudget, Schedule
from mcilib.delivery.uploader import Uploader
from mcilib.protocols import Outcome
from mcilib.testing.fakes import FakeTransport, MemorySpool, example_batch

SECOND, MINUTE, HOUR = 10**9, 60 * 10**9, 3600 * 10**9
INTERVAL_S = limits.UPLOAD_INTERVAL_S
INTERVAL = int(INTERVAL_S * SECOND)
BEGIN, END, STOP = 1 * HOUR, 3 * HOUR, 9 * HOUR
"""Of the outage, and of the simulation."""
BACK_WITHIN = 10 * SECOND
"""In which the whole office hears of the network."""
BIN, WINDOW = SECOND // 10, 100
"""Requests are counted in tenths of a second, and in windows of so many of them."""
PEAK_MAX, OFFICE_PEAK_MAX, DRAINED_MAX_S = 2.5, 3.0, 4 * 3600.0
"""What is asked for."""


class Agent(Protocol):
    """One agent, at its requests."""

    @property
    def behind(self) -> int:
        """Uploads whose data waits."""

    @property
    def lost(self) -> int:
        """Uploads whose data was given up."""

    def step(self, now_ns: int, up: bool, /) -> tuple[int, int]:
        """What is due now: how many requests, and when the next step is due."""


def quick_attempts() -> bool:
    """Whether a scheduled upload whose first request fails tries again at once: asked of the real uploader."""
    spool, transport = MemorySpool(), FakeTransport([Outcome.RETRY] * limits.REQUEST_ATTEMPTS)
    spool.commit(lambda sequence: example_batch(sequence))
    uploader = Uploader(spool, transport, interval_s=0)
    uploader.start()
    until_s = time.monotonic() + 30
    while not uploader.statistics().requests and time.monotonic() < until_s:
        time.sleep(0.01)
    uploader.stop()
    return uploader.statistics().requests > 1


class Mcilib:
    """The real schedule and the real retry budget."""

    quick = True
    back_off_from_s = INTERVAL_S
    """The interval that the back-off begins with."""
    pause = wait_random_exponential(multiplier=limits.ATTEMPT_WAIT_FIRST_S, max=limits.ATTEMPT_WAIT_CAP_S)

    def __init__(self, draw: random.Random) -> None:
        self.behind = self.lost = self.attempts = 0
        self.draw, self.budget = draw, RetryBudget()
        self.schedule = Schedule.first(0, interval_s=INTERVAL_S, random=draw)

    def step(self, now_ns: int, up: bool, /) -> tuple[int, int]:
        if not self.attempts:
            self.budget.request()
        self.attempts += 1
        outcome = Outcome.DELIVERED if up else Outcome.RETRY
        self.behind = 0 if up else 1
        again = self.quick and not up and self.attempts < limits.REQUEST_ATTEMPTS
        if again and self.budget.take():
            wait_s = self.pause(SimpleNamespace(attempt_number=self.attempts))  # type: ignore[arg-type]
            return 1, now_ns + int(wait_s * SECOND)
        self.attempts = 0
        interval_s = INTERVAL_S if up else self.back_off_from_s
        self.schedule = self.schedule.after(outcome, now_ns, interval_s=interval_s, random=self.draw)
        return 1, self.schedule.next_attempt_ns or STOP

    def told(self, now_ns: int) -> int | None:
        """The network is back: as `Uploader.reconsider`. When the next step is due, None if as before."""
        if self.schedule.failures and not self.attempts:
            self.schedule = self.schedule.hastened(now_ns, INTERVAL_S, self.draw)
            return self.schedule.next_attempt_ns
        return None


class WithQuickAttempts(Mcilib):
    """As it would be if a scheduled upload tried again at once too."""

    quick = True


class FromHalfAMinute(Mcilib):
    """As it would be if the back-off began with 30 s."""

    back_off_from_s = 0.0


class Exponential:
    """30 s * 2^n up to 4 h; with `jitter` a random part of it."""

    jitter = False

    def __init__(self, draw: random.Random) -> None:
        self.behind = self.lost = self.failures = 0
        self.draw = draw

    def step(self, now_ns: int, up: bool, /) -> tuple[int, int]:
        self.behind = 0 if up else 1
        self.failures = 0 if up else self.failures + 1
        if up:
            return 1, now_ns + INTERVAL
        wait_ns = min(4 * HOUR, 30 * SECOND * 2 ** min(self.failures, 20))
        return 1, now_ns + (int(self.draw.uniform(0, wait_ns)) if self.jitter else wait_ns)


class FullJitter(Exponential):
    jitter = True


class Segment:
    """Ten retries within some three minutes, then the data is given up."""

    def __init__(self, draw: random.Random) -> None:
        self.behind = self.lost = self.retries = self.began_ns = 0
        self.draw = draw

    def step(self, now_ns: int, up: bool, /) -> tuple[int, int]:
        if not self.retries:
            self.began_ns = now_ns
        self.behind = 0 if up else 1
        if not up:
            self.retries += 1
            if self.retries <= 10:
                base_s = 0.5 * 2 ** (self.retries - 2)
                wait_s = min(base_s + self.draw.uniform(0, 0.1 * base_s), 60.0) if self.retries > 1 else 0.0
                return 1, now_ns + int(wait_s * SECOND)
            self.lost, self.behind = self.lost + 1, 0
        self.retries = 0
        return 1, self.began_ns + INTERVAL


class SentryNative:
    """Each upload is an envelope with a count of its own; a look at all of them every 15 min while any is left, which
    ends at the first that fails."""

    every = 15 * MINUTE
    attempts = 6

    def __init__(self, draw: random.Random) -> None:
        self.lost = 0
        self.due_ns: int | None = None
        self.look_ns = STOP
        self.kept: list[tuple[int, int]] = []  # (when it last failed, how often looked at)

    @property
    def behind(self) -> int:
        return len(self.kept)

    def step(self, now_ns: int, up: bool, /) -> tuple[int, int]:
        requests = 0
        if self.due_ns is None or now_ns >= self.due_ns:
            self.due_ns = now_ns + INTERVAL
            requests += 1
            if not up:
                self.kept.append((now_ns, 0))
                self.look_ns = min(self.look_ns, now_ns + self.every)
        if now_ns >= self.look_ns:
            for failed_ns, count in sorted(self.kept):
                if now_ns - failed_ns < self.every << count:
                    continue
                requests += 1
                self.kept.remove((failed_ns, count))
                if not up:
                    if count + 1 < self.attempts:
                        self.kept.append((now_ns, count + 1))
                    else:
                        self.lost += 1
                    break
            self.look_ns = now_ns + self.every if self.kept else STOP
        return requests, min(self.due_ns, self.look_ns)


SCHEDULES: dict[str, Callable[[random.Random], Agent]] = {
    "mcilib": Mcilib,
    "mcilib + quick attempts": WithQuickAttempts,
    "mcilib, back-off from 30 s": FromHalfAMinute,
    "sentry-native": SentryNative,
    "Segment": Segment,
    "exponential": Exponential,
    "exponential, full jitter": FullJitter,
}


class Day:
    """What arrived, by tenths of a second, and when each agent had caught up."""

    def __init__(self, agents: int) -> None:
        self.agents = agents
        self.bins = [0] * (STOP // BIN + 1)
        self.caught_up_ns: list[int | None] = [None] * agents
        self.lost = 0

    @property
    def steady(self) -> float:
        """Requests in 10 s while all is well."""
        return self.agents * WINDOW * BIN / INTERVAL

    def windows(self, from_ns: int, to_ns: int) -> list[int]:
        """Requests in each window that begins in this time, a tenth of a second apart."""
        first, last = from_ns // BIN, min(to_ns // BIN, len(self.bins) - WINDOW)
        now = sum(self.bins[first : first + WINDOW])
        found = [now]
        for start in range(first, last - 1):
            now += self.bins[start + WINDOW] - self.bins[start]
            found.append(now)
        return found

    def peak(self, from_ns: int, to_ns: int) -> float:
        return round(max(self.windows(from_ns, to_ns)) / self.steady, 2)

    def per_agent(self, from_ns: int, to_ns: int) -> float:
        return round(sum(self.bins[from_ns // BIN : to_ns // BIN]) / self.agents, 2)

    def drained_s(self, share: float) -> float | None:
        """After the end of the outage; None: not within the simulation."""
        times = sorted(ns for ns in self.caught_up_ns if ns is not None)
        count = -int(-share * self.agents // 1)
        return round((times[count - 1] - END) / SECOND, 1) if len(times) >= count else None

    def minutes(self) -> list[float]:
        """The peak of each minute."""
        return [self.peak(ns, ns + MINUTE) for ns in range(0, STOP - MINUTE, MINUTE)]


def simulate(
    make: Callable[[random.Random], Agent],
    agents: int,
    seed: int,
    *,
    office: bool = False,
    hear: Callable[[Agent, int], int | None] | None = None,
) -> Day:
    """`office`: what the agents try meanwhile does not reach the server. `hear`: what an agent does when the network
    is back, at a moment of the 10 s."""
    draw = random.Random(seed)
    random.seed(seed)  # tenacity draws from this one
    day = Day(agents)
    fleet: list[Agent] = [make(draw) for _ in range(agents)]
    due_ns = [
        agent.schedule.next_attempt_ns or 0 if isinstance(agent, Mcilib) else int(draw.uniform(0, INTERVAL))
        for agent in fleet
    ]
    # (when, agent); an entry that is not `due_ns` any more is out of date. Agents below 0 hear of the network.
    queue = [(when, number) for number, when in enumerate(due_ns)]
    if hear is not None:
        queue += [(END + int(draw.uniform(0, BACK_WITHIN)), ~number) for number in range(agents)]
    heapq.heapify(queue)
    while queue and queue[0][0] < STOP:
        now_ns, number = heapq.heappop(queue)
        if number < 0:
            number = ~number
            sooner_ns = hear(fleet[number], now_ns) if hear is not None else None
            if sooner_ns is not None and sooner_ns < due_ns[number]:
                due_ns[number] = sooner_ns
                heapq.heappush(queue, (sooner_ns, number))
            continue
        if now_ns != due_ns[number]:
            continue
        agent, up = fleet[number], not BEGIN <= now_ns < END
        requests, due_ns[number] = agent.step(now_ns, up)
        heapq.heappush(queue, (due_ns[number], number))
        if up or not office:
            day.bins[now_ns // BIN] += requests
        if now_ns >= END and not agent.behind and not agent.lost and day.caught_up_ns[number] is None:
            day.caught_up_ns[number] = now_ns
    day.lost = sum(agent.lost for agent in fleet)
    return day


def outage(name: str, agents: int, seed: int) -> dict[str, Any]:
    remark(f"outage, {agents:,} agents: {name} ...")
    day = simulate(SCHEDULES[name], agents, seed)
    return {
        "schedule": name,
        "peak_before": day.peak(0, BEGIN - 10 * SECOND),
        "peak_during": day.peak(BEGIN, END),
        "peak_after": day.peak(END, STOP),
        "peak": day.peak(0, STOP),
        "requests_per_agent_during": day.per_agent(BEGIN, END),
        "drained_50_s": day.drained_s(0.5),
        "drained_99_s": day.drained_s(0.99),
        "lost_per_agent": round(day.lost / agents, 2),
        "peak_by_minute": day.minutes(),
    }


def at_once(agent: Agent, now_ns: int) -> int | None:
    return now_ns if agent.behind else None


def as_mcilib(agent: Agent, now_ns: int) -> int | None:
    return agent.told(now_ns) if isinstance(agent, Mcilib) else None


OFFICE: dict[str, tuple[str, Callable[[Agent, int], int | None] | None]] = {
    "mcilib, told": ("mcilib", as_mcilib),
    "mcilib, not told": ("mcilib", None),
    "sentry-native": ("sentry-native", None),
    "Segment": ("Segment", None),
    "exponential": ("exponential", None),
    "exponential, told, at once": ("exponential", at_once),
}


def network_back(name: str, agents: int, seed: int) -> dict[str, Any]:
    remark(f"office, {agents:,} agents: {name} ...")
    schedule, hear = OFFICE[name]
    day = simulate(SCHEDULES[schedule], agents, seed, office=True, hear=hear)
    return {
        "schedule": name,
        "peak_before": day.peak(0, BEGIN - 10 * SECOND),
        "peak": day.peak(END, STOP),
        "drained_99_s": day.drained_s(0.99),
        "lost_per_agent": round(day.lost / agents, 2),
        "peak_by_minute": day.minutes(),
    }


def met(outages: Sequence[dict[str, Any]], offices: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """Ours against what is asked for."""
    ours = next(one for one in outages if one["schedule"] == "mcilib")
    drained_s = ours["drained_99_s"]
    return {
        "outage_peak": ours["peak"] <= PEAK_MAX,
        "outage_drained": drained_s is not None and drained_s <= DRAINED_MAX_S,
        "office_peak": all(
            one["peak"] <= OFFICE_PEAK_MAX for one in offices if one["schedule"].startswith("mcilib")
        ),
    }


def text(result: dict[str, Any]) -> str:
    def hours(seconds: float | None) -> str:
        return "never" if seconds is None else f"{seconds / 3600:.1f} h"

    rows = [
        [
            one["schedule"], f"{one['peak']:.2f}", f"{one['peak_during']:.2f}", f"{one['peak_after']:.2f}",
            f"{one['requests_per_agent_during']:.1f}", hours(one["drained_50_s"]), hours(one["drained_99_s"]),
            f"{one['lost_per_agent']:.2f}",
        ]
        for one in result["outage"]
    ]  # fmt: skip
    offices = [
        [one["schedule"], f"{one['peak']:.2f}", hours(one["drained_99_s"]), f"{one['lost_per_agent']:.2f}"]
        for one in result["office"]
    ]
    verdict = ", ".join(f"{what}: {'yes' if yes else 'NO'}" for what, yes in result["met"].items())
    return "\n\n".join(
        (
            table(
                [
                    "outage of 2 h", "peak", "during", "after", "requests per agent during", "50 % drained",
                    "99 % drained", "lost per agent",
                ],
                rows,
            ),
            table(["office", "peak once it is back", "99 % drained", "lost per agent"], offices),
            f"{result['agents']:,} and {result['office_agents']:,} agents; peaks in any 10 s, 1 is the steady load. "
            f"Asked for: {verdict}",
        )
    )  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--agents", type=int, help="in the outage (100,000; with --quick 5,000)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (1)")
    args = parser.parse_args()
    agents = args.agents or (5_000 if args.quick else 100_000)
    office_agents = 2_000 if args.quick else 10_000
    Mcilib.quick = quick_attempts()
    outages = [outage(name, agents, args.seed) for name in SCHEDULES]
    offices = [network_back(name, office_agents, args.seed) for name in OFFICE]
    result = {
        "machine": machine(),
        "agents": agents,
        "office_agents": office_agents,
        "seed": args.seed,
        "quick_attempts": Mcilib.quick,
        "outage": outages,
        "office": offices,
        "met": met(outages, offices),
    }
    show(result, text(result), as_json=args.json)


if __name__ == "__main__":
    main()
