"""What threads have cost so far, as the library itself counts it."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from mcilib.resources.meter import CostMeter
from mcilib.statistics import CostStatistics


def thread_cost(threads: Iterable[threading.Thread]) -> CostStatistics:
    """Since each of `threads` began; those that have ended count nothing."""
    alive = [thread for thread in threads if thread.is_alive()]
    return CostMeter(lambda: alive).read()
