"""How often one device may ask: a token bucket for each, in the memory of this process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection

DEVICES_MAX = 50_000
"""Devices remembered at once, 10 MB; the one that has been quiet longest is forgotten, and begins afresh."""


class DeviceRate:
    """At most `requests` of one device at once, and as many again in each `window_s`. Any thread."""

    def __init__(self, requests: int, window_s: float) -> None:
        if requests < 1 or window_s <= 0:
            raise ValueError("at least one request in a window longer than nothing")
        self._requests = requests
        self._each_s = window_s / requests
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = (
            OrderedDict()
        )  # what is left, and when that was

    def wait_s(self, devices: Collection[str], now_s: float) -> float:
        """0.0 and one request less for each of them; or how long until all of them may, and nothing taken.

        `now_s` is of a monotonic clock.
        """
        with self._lock:
            left = {device: self._left(device, now_s) for device in devices}
            lacking = 1 - min(left.values(), default=1.0)
            if lacking > 0:
                return lacking * self._each_s
            for device, count in left.items():
                self._buckets[device] = (count - 1, now_s)
                self._buckets.move_to_end(device)
            while len(self._buckets) > DEVICES_MAX:
                self._buckets.popitem(last=False)
            return 0.0

    def _left(self, device: str, now_s: float) -> float:
        count, then_s = self._buckets.get(device, (float(self._requests), now_s))
        return min(float(self._requests), count + (now_s - then_s) / self._each_s)
