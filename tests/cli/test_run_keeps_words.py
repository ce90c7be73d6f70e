"""What a participant has said, where `mcilib run` captures nothing: it drains, or the grant is void."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Run, refused
from left_batches import leave, requests, waiting

from mcilib.channel.client import ask
from mcilib.cli import _drain
from mcilib.cli._stop import StopSignal
from mcilib.config import Settings
from mcilib.consent import Grant
from mcilib.delivery.spool import DirectorySpool
from mcilib.testing.fakes import FakeTransport, example_grant


def test_hold_holds_what_a_drain_has_not_sent_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grant, state = example_grant(), tmp_path / "state"
    grant.save(state)
    for _ in range(3):
        leave(state)
    said = list[Any]()

    class Receiver(FakeTransport):
        def send(self, batches: Any, /) -> Any:
            if not said:
                said.append(ask(state, "hold", {"hold_s": 3_600.0}, timeout_s=5))
            return super().send(batches)

    receiver = Receiver()
    # The command makes its own; a fake one is slow in the right moment.
    monkeypatch.setattr(_drain, "make_transport", lambda settings: receiver)
    settings = Settings().override({"upload.max_request_bytes": 1})
    with StopSignal() as stop:
        reason = _drain.upload(settings, state, grant, stop, 10.0)
    assert said == [{"hold_s": 3_600.0}]
    assert len(receiver.received) == 1
    assert "held" in reason
    assert DirectorySpool.read_statistics(state / "spool").waiting_batches == 2


@pytest.mark.parametrize("why", ["expired", "policy"])
def test_what_was_asked_of_the_receiver_goes_though_the_grant_is_void(
    why: str, mcilib: Run, granted: Path, here: Path, receiver: Any
) -> None:
    store = receiver()
    leave(granted, age_s=60)
    run = ["run", "--state", granted, "--endpoint", store.url]
    assert mcilib(*run, "--drain").returncode == 0
    assert store.batches == 1
    assert mcilib("forget", "10m", "--yes", "--state", granted).returncode == 0
    leave(granted, age_s=1_000)  # which must stay
    if why == "expired":
        grant = Grant.load(granted)
        replace(grant, expires_at="2025-01-01T00:00:00+00:00").save(granted)
    else:
        (here / "lab.toml").write_text('[consent]\npolicy_file = "policy.txt"\n')
        (here / "policy.txt").write_text("The new policy.\n")
        run += ["--config", "lab.toml"]
    refused(mcilib(*run), 3, why)
    assert requests(granted) == []
    assert store.batches == 0
    assert len(waiting(granted)) == 1
