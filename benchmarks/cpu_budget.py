"""The CPU budget under a load that trebles and goes back: how soon it holds, how far it is passed, whether it wavers.

Not run by itself: see adaptation.py.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import agents_beside
import capture_cost
import working_day
from laptop_day import moving, unaccounted
from rig import Process, agent, grant, process_cpu_s, receiver, remark, settle, steady_display

from mcilib import limits
from mcilib.governor import PLAN_FILE, read_plan
from mcilib.testing.xvfb import VirtualDisplay

TIMES, BUDGET_TIMES = 3, 1.5
LENGTHS = {"base": 2, "three times": 4, "back": 9}
"""Of each load, in times of `--seconds`: the last is long enough for a step up."""
FREE_LENGTH = 0.8
SETTLED_S, OVERSHOOT_RATIO, TAKEN_BACK = 10.0, 0.5, 1
SETTLED_OVER_S, HIGHEST_OVER_S = 3.0, 5.0
HIGHEST_IN_S = 20.0
"""After the step: what comes later is not its doing."""
NO_UPLOAD_S = 7 * 86_400
"""Uploads are not what a budget is for, and would be seen in the CPU of the process."""
SAMPLE_S = 0.25


def run(folder: Path, base_hz: float, seconds: float, seed: int) -> dict[str, Any]:
    folder.mkdir(parents=True)
    rates = {"base": base_hz, "three times": base_hz * TIMES, "back": base_hz}
    with steady_display(working_day.WIDTH_PX, working_day.HEIGHT_PX) as display:
        remark("adaptation, budget: what the loads cost without one ...")
        with running(folder / "free", display, "policies = []") as (process, _):
            free = {}
            for load in ("base", "three times"):
                work = moving(rates[load], seconds * FREE_LENGTH, seed)
                before = process_cpu_s(process.pid), time.monotonic()
                working_day.replay(work, [display], lambda _: None)
                free[load] = (process_cpu_s(process.pid) - before[0]) / (time.monotonic() - before[1])
        free["back"] = free["base"]
        budget = round(max(limits.CPU_BUDGET_LOW_RATIO, BUDGET_TIMES * free["base"]), 5)
        config = f'policies = ["cpu"]\ncpu_budget = {budget}'
        injected = Counter(key_press=1, key_release=1)  # of `running`
        with running(folder / "held", display, config) as (process, sampler):
            begins, began_s = {}, time.time()
            for number, (load, length) in enumerate(LENGTHS.items()):
                remark(f"adaptation, budget: {load}, {length * seconds:g} s ...")
                work = moving(rates[load], length * seconds, seed + number)
                begins[load] = time.time() - began_s
                working_day.replay(work, [display], lambda _: None)
                injected += work.counts()
            end_s = time.time() - began_s
            settle(process.pid)
        place = agents_beside.Running(
            agents_beside.Agent(agents_beside.OURS, "mains"), display, folder / "held"
        )
        found = agents_beside.stored(place, injected)
    samples = [(at_s - began_s, cpu_s) for at_s, cpu_s in sampler.samples]
    ends = dict(zip(begins, [*list(begins.values())[1:], end_s], strict=True))
    history: list[dict[str, Any]] = [
        {"at_s": at_ns / 1e9 - began_s, "levers": levers} for at_ns, levers in sorted(sampler.history.items())
    ]
    costs = {load: mean(samples, begins[load], ends[load]) for load in begins}
    step = begins["three times"], ends["three times"]
    peak = highest(samples, step[0], min(step[1], step[0] + HIGHEST_IN_S))
    account = {"injected": dict(injected), **{name: found[name] for name in KEPT}}
    result: dict[str, Any] = {
        "rates_hz": rates, "free": free, "budget": budget, "costs": costs, "begins_s": begins, "end_s": end_s,
        "settled_s": settled(samples, *step, budget), "after": mean(samples, step[0] + SETTLED_S, step[1]) / budget,
        "highest": peak / budget,
        "taken_back": taken_back([change["levers"] for change in history]), "history": history,
        "samples": samples, "account": account,
    }  # fmt: skip
    # Moves are counted as well, unless they were not delivered at all.
    return {**result, "wrong": unaccounted(account)}


KEPT = ("stored", "coalesced", "thinned", "dropped", "missing")


class Sampler:
    """CPU of a process and its plans, from a thread of its own."""

    def __init__(self, process: Process, state: Path) -> None:
        self._process, self._state = process, state
        self.samples: list[tuple[float, float]] = []
        """Unix time, CPU seconds so far."""
        self.history: dict[int, dict[str, Any]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.samples.append((time.time(), process_cpu_s(self._process.pid)))
            plan = read_plan(self._state / PLAN_FILE)
            for change in plan.history if plan is not None else ():
                self.history[change.wall_ns] = dict(change.levers)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def running(folder: Path, display: VirtualDisplay, adapt: str) -> Iterator[tuple[Process, Sampler]]:
    """An agent with these lines in `[adapt]`, which has heard one key; at the end of `with` all is in its spool."""
    batches = folder / "batches"
    batches.mkdir(parents=True)
    state, config = batches / "state", folder / "mcilib.toml"
    grant(state)
    config.write_text(f"[upload]\ninterval_s = {NO_UPLOAD_S}\n[adapt]\n{adapt}\n")
    flags = ["--sources", ",".join(capture_cost.SOURCES), "--config", str(config)]
    with (
        receiver(batches / "store") as endpoint,
        agent(state, endpoint, display.environ(), *flags) as process,
    ):
        display.tap(display.keycode("Shift_L"))
        display.sync()
        settle(process.pid)
        sampler = Sampler(process, state)
        try:
            yield process, sampler
        finally:
            sampler.end()
            process.finish()


# --- from samples to figures --------------------------------------------------------------------------------

Samples = Sequence[tuple[float, float]]
"""Seconds, CPU seconds so far."""


def mean(samples: Samples, begin_s: float, end_s: float) -> float:
    """CPU as part of a core, between the samples at or after both; 0 without."""
    part = [one for one in samples if begin_s <= one[0] <= end_s]
    return (part[-1][1] - part[0][1]) / (part[-1][0] - part[0][0]) if len(part) > 1 else 0.0


def windows(samples: Samples, begin_s: float, end_s: float, seconds: float) -> Iterator[tuple[float, float]]:
    """When each window of so many seconds inside ends, and its mean."""
    for at_s, _ in samples:
        if begin_s <= at_s - seconds and at_s <= end_s:
            yield at_s, mean(samples, at_s - seconds - 1e-6, at_s)


def settled(samples: Samples, begin_s: float, end_s: float, budget: float) -> float | None:
    """Seconds until a mean is within the budget for the first time; None: never."""
    return next(
        (
            at_s - begin_s
            for at_s, value in windows(samples, begin_s, end_s, SETTLED_OVER_S)
            if value <= budget
        ),
        None,
    )


def highest(samples: Samples, begin_s: float, end_s: float) -> float:
    return max((value for _, value in windows(samples, begin_s, end_s, HIGHEST_OVER_S)), default=0.0)


def taken_back(levers: Sequence[Mapping[str, Any]]) -> int:
    """How often a step up was followed by a step down."""
    depths = [depth(one) for one in levers]
    ways = [after > before for before, after in pairwise(depths)]
    return sum(not up_then and down for up_then, down in pairwise(ways))


def depth(levers: Mapping[str, Any]) -> tuple[int, float, float]:
    order = ("full", "thinned", "endpoints", "none")
    return (
        order.index(levers.get("motion", "full")), levers.get("tolerance_px", 0.0), levers.get("read_interval_s", 0.0),
    )  # fmt: skip
