"""Where a store keeps bytes: under keys, which are paths with `/`. What each place has to be able to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date
from hashlib import sha256
from typing import Protocol


class Staged(Protocol):
    """Contents that are ready to get their names."""

    def name(self, which: Sequence[int], keys: Sequence[str], /) -> list[bool]:
        """Each content appears under its key, durably; False where something is there already."""


class Place:
    """Base of the stores here: what a subclass does for its place."""

    def __init__(self, today: Callable[[], date]) -> None:
        self._today = today

    def _guarded(self) -> AbstractContextManager[None]:
        """Turns errors of the place into `StoreError`."""
        raise NotImplementedError

    def _read(self, keys: Sequence[str]) -> list[bytes | None]:
        """What is there; None for what is not."""
        raise NotImplementedError

    def _names(self, folder: str) -> list[str]:
        """Names right below a folder, files and folders, sorted; none when there is no such folder."""
        raise NotImplementedError

    def _stage(self, contents: Sequence[tuple[str, bytes]]) -> AbstractContextManager[Staged]:
        """Makes contents ready, so that a full disk is met before anything has a name. Each has a tag,
        `PARTICIPANT-ID`, under which `_residue` finds it after a crash. Whatever was not named is gone when the
        block ends."""
        raise NotImplementedError

    def _overwrite(self, key: str, content: bytes) -> None:
        """Durably."""
        raise NotImplementedError

    def _sync(self, keys: Sequence[str]) -> None:
        """Names that somebody else has made, perhaps just now, are durable when this returns."""
        raise NotImplementedError

    def _remove(self, keys: Sequence[str]) -> None:
        """Durably; and the folders that are empty then. Ignores what is not there."""
        raise NotImplementedError

    def _prune(self, folders: Sequence[str]) -> None:
        """Where the place has folders that `_remove` leaves: takes those that are empty, whose names are ids."""

    def _uploading(self, participants: set[str], ids: Sequence[str]) -> AbstractContextManager[None]:
        """An upload: `_forbid` of one of these participants takes effect before or after it, not within."""
        raise NotImplementedError

    def _forbid(self, participant: str, keys: Sequence[str]) -> Iterator[None]:
        """Makes the tombstones. When it ends, every upload that has not seen them has ended or is dead."""
        raise NotImplementedError

    def _residue(self, participant: str) -> list[tuple[str, list[str]]]:
        """Keys that uploads of this participant left when they died, one id a line, with those ids. Those of
        uploads under way may be among them: they are not about what has been forbidden."""
        raise NotImplementedError


def tombs_of(participant: str) -> str:
    """The folder of this participant's tombstones."""
    return f"deleted/{hash_of(participant)}"


def hash_of(id_: str) -> str:
    return sha256(id_.encode()).hexdigest()
