"""Time to spare: how long the library waits for its own threads, a display or a bus is cut short, and a machine that is
busy, or stands still for a second, would have it give up in tests that are about something else.

A `conftest.py` imports the fixture for its folder. `@pytest.mark.as_shipped` keeps the limits for tests that are about
them, and for those in which something hangs until the library gives up.
"""

from __future__ import annotations

import pytest

from mcilib import Recorder, limits
from mcilib.capture import stop_together
from mcilib.testing import conformance

SPARE_S = 30.0

_NAMES = (
    "SOURCE_START_TIMEOUT_S",
    "SOURCE_STOP_TIMEOUT_S",
    "SOURCE_DRAIN_S",
    "BUS_CONNECT_S",
    "BUS_STOP_TIMEOUT_S",
    "STOP_TIMEOUT_S",
    "CHANNEL_PROVE_S",
    "CHANNEL_STOP_TIMEOUT_S",
)


@pytest.fixture(autouse=True)
def time_to_spare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("as_shipped") is None:
        for name in _NAMES:
            monkeypatch.setattr(limits, name, SPARE_S)
        for name in ("_PATIENCE_S", "_SESSION_START_S", "_TOLD_S"):
            monkeypatch.setattr(conformance, name, SPARE_S)
        for stop in (Recorder.stop, stop_together):
            monkeypatch.setattr(stop, "__defaults__", (SPARE_S,))
