"""A state folder with a grant, a spool, a clock that is moved by hand, and the participant who decides there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcilib.consent import Grant
from mcilib.delivery.spool import DirectorySpool
from mcilib.participant import Participant
from mcilib.protocols import SealedBatch
from mcilib.testing.fakes import ManualClock, example_grant

BOOT, NEXT_BOOT = "b0" * 8, "b1" * 8


class Place:
    """`open` and `close` as a process does that starts and ends, `next_boot` as a machine."""

    def __init__(self, folder: Path, *, found: Grant | None = None) -> None:
        """`found`: the folder is there, with this grant in it, or it was."""
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder, self.clock, self.boot = folder, ManualClock(), BOOT
        self.grant = found or example_grant("pointer", "keys", "titles")
        if found is None:
            self.grant.save(folder)
        self.changes: list[Any] = []
        """What `on_change` found in `state`."""
        self.on_change: Callable[[], object] = lambda: self.changes.append(self.participant.state)
        self.made = 0
        self.open()

    def open(self, **options: Any) -> Participant:
        self.spool = DirectorySpool(self.folder / "spool", clock=self.clock, boot=self.boot)
        self.spool.open()
        self.participant = Participant(
            self.folder,
            self.spool,
            clock=self.clock,
            boot=self.boot,
            on_change=lambda: self.on_change(),
            **options,
        )
        self.participant.open()
        return self.participant

    def close(self) -> None:
        self.participant.close()
        self.spool.close()

    def again(self, **options: Any) -> Participant:
        """Another process."""
        self.close()
        return self.open(**options)

    def next_boot(self) -> Participant:
        self.close()
        self.boot = NEXT_BOOT if self.boot == BOOT else BOOT
        now = self.clock
        self.clock = ManualClock(5_000_000_000, now.wall_ns())  # time since the boot begins anew
        return self.open()

    def batch(self, *scopes: str, lasts_s: float = 60.0, journaled: bool = True) -> str:
        """A batch of these scopes, committed at the end of its time; its id."""
        self.made += 1
        batch_id = f"{self.made:032x}"
        began = self.participant.now()
        self.clock.advance(lasts_s)
        names = scopes or ("pointer",)

        def seal(sequence: int) -> SealedBatch:
            if journaled:
                self.participant.journal.record(
                    batch_id, sequence, began, self.participant.now(), names, self.grant
                )
            return SealedBatch(batch_id, sequence, b"batch")

        self.spool.commit(seal)
        return batch_id

    @property
    def waiting(self) -> list[str]:
        return list(self.spool.waiting())
