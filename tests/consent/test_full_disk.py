"""What is decided on a full disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from deciding import Place

from mcilib.consent.exemption import ExemptScope
from mcilib.participant import Participant
from mcilib.protocols import SealedBatch


def fill(disk: Path) -> None:
    fd = os.open(disk / "fill", os.O_CREAT | os.O_WRONLY)
    for size_bytes in (65_536, 4_096, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, b"x" * size_bytes)
    os.close(fd)


def test_an_exemption_makes_room_for_itself(small_disk: Callable[..., Path]) -> None:
    """Data goes for the request; then there is room to write down what was decided, too."""
    place = Place((disk := small_disk(options="size=2m")) / "state")
    try:
        for n in range(1, 21):
            place.spool.commit(partial(SealedBatch, f"{n:032x}", data=b"x" * 20_000))
        fill(disk)
        exemption = place.participant.request_exemption(ExemptScope(scopes=("keys",)), "personal")
        assert Participant.read_state(place.folder).exemptions == (exemption,)
        assert [record.record_id for record in place.spool.controls()] == [exemption.exemption_id]
        assert place.waiting
    finally:
        place.close()
