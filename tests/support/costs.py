"""What threads have cost so far, as the library itself counts it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from waiting import until

from mcilib.resources.meter import CostMeter
from mcilib.statistics import CostStatistics


def thread_cost(threads: Iterable[threading.Thread]) -> CostStatistics:
    """Since each of `threads` began; those that have ended count nothing."""
    alive = [thread for thread in threads if thread.is_alive()]
    return CostMeter(lambda: alive).read()


def cost_at_rest(threads: Iterable[threading.Thread], quiet_s: float = 0.3) -> CostStatistics:
    """The same once none of them has woken for `quiet_s`; fails when that takes more than 10 s."""
    threads = list(threads)
    cost, since_s = thread_cost(threads), time.monotonic()

    def rest() -> bool:
        nonlocal cost, since_s
        now = thread_cost(threads)
        if now.wakeups != cost.wakeups:
            cost, since_s = now, time.monotonic()
        return time.monotonic() - since_s >= quiet_s

    until(rest, what="a rest")
    return cost
