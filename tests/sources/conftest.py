"""Each test of the sources is one of both backends, where it does not choose itself."""

from __future__ import annotations

import pytest

from mcilib.sources import _input


@pytest.fixture(params=["xrecord", "pynput"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `auto` takes."""
    chosen: str = request.param
    monkeypatch.setattr(_input, "AUTO_ON_X11", chosen)
    return chosen
