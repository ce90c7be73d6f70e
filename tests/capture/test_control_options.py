"""Options of a collector that are about the participant's decisions reach what obeys them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcilib.channel.client import ask
from mcilib.collector import Collector
from mcilib.errors import ConfigError, GrantError, IndicatorError, NoAgent
from mcilib.indicator import Notice
from mcilib.testing.fakes import FakeResources, FakeSession, FakeSource, example_grant


class Indicator:
    """Remembers what it was given to show, and says whether it was seen."""

    def __init__(self, seen: bool = True) -> None:
        self.seen, self.notices = seen, list[Notice]()

    def show(self, notice: Notice, /) -> bool:
        self.notices.append(notice)
        return self.seen


def collector(state: Path, **options: Any) -> Collector:
    options = {"indicator": Indicator(), **options}
    return Collector(
        sources=[FakeSource()], grant=example_grant(), state_dir=state / "state", resources=FakeResources(),
        session=FakeSession(), **options,
    )  # fmt: skip


def test_indicator(tmp_path: Path) -> None:
    """The host's own, in place of a notification or a line."""
    indicator = Indicator()
    with collector(tmp_path, indicator=indicator):
        (notice,) = indicator.notices
    assert (notice.kind, notice.operator, notice.state_dir) == (
        "started",
        "Example Lab",
        str(tmp_path / "state"),
    )


def test_nothing_starts_without_being_seen(tmp_path: Path) -> None:
    blind = collector(tmp_path, indicator=Indicator(seen=False))
    with pytest.raises(IndicatorError):
        blind.start()
    assert not any(thread.is_alive() for thread in blind.threads())


def test_on_control(tmp_path: Path) -> None:
    told: list[tuple[str, bool]] = []
    with collector(
        tmp_path, on_control=lambda change: told.append((change.what, change.held is None))
    ) as one:
        one.pause(60)
        one.resume()
        one.hold(5)
    assert told == [("pause", False), ("resume", True), ("hold", True)]


def test_pause_cap_s(tmp_path: Path) -> None:
    """An operator may allow longer pauses than half an hour, and no shorter ones."""
    with collector(tmp_path, pause_cap_s=7_200) as one:
        assert one.pause(7_200).duration_ns == 7_200 * 10**9
        with pytest.raises(ConfigError):
            one.pause(7_201)
    with pytest.raises(ConfigError):
        collector(tmp_path, pause_cap_s=1_799)


def test_policy(tmp_path: Path) -> None:
    with pytest.raises(GrantError, match="policy has changed"):
        collector(tmp_path, policy="Another text.").start()
    with collector(tmp_path, policy=example_grant().policy):
        pass


def test_channel(tmp_path: Path) -> None:
    """Without one only the host itself decides."""
    with collector(tmp_path):
        assert ask(tmp_path / "state", "status", {}, timeout_s=5)["held"] is None
    with collector(tmp_path, channel=False), pytest.raises(NoAgent):
        ask(tmp_path / "state", "status", {}, timeout_s=5)


def test_language(tmp_path: Path) -> None:
    """What the participant is told, by the indicator and by `held`."""
    indicator = Indicator()
    with collector(tmp_path, indicator=indicator, language="de") as one:
        one.pause(60)
        assert indicator.notices[0].language == "de"
        assert "pausiert" in (one.held or "").lower() or "Pause" in (one.held or "")
