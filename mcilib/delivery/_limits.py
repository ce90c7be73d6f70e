"""Which batches have to go: decided from what is there, carried out elsewhere. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from mcilib import limits
from mcilib.delivery._state import Entry
from mcilib.errors import ConfigError

Going: TypeAlias = list[tuple[Entry, str]]
"""Batches, each with the cause for which it leaves."""

_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """See `DirectorySpool`."""

    max_bytes: int
    max_files: int
    max_age_s: float
    min_free_bytes: int

    def __post_init__(self) -> None:
        for name, value in (("max_bytes", self.max_bytes), ("max_files", self.max_files)):
            if value < 1:
                raise ConfigError(f"{name} is {value}", "A spool must hold something: 1 or more.")
        if not 0 < self.max_age_s < math.inf:
            raise ConfigError(f"max_age_s is {self.max_age_s}", "Give a number of seconds, more than 0.")
        if self.min_free_bytes < 0:
            raise ConfigError(
                f"min_free_bytes is {self.min_free_bytes}", "Give a number of bytes, 0 or more."
            )

    def beyond(self, waiting: Collection[Entry], size_bytes: int, short_bytes: int, now_ns: int) -> Going:
        """The oldest, so many as it takes; never the newest.

        `waiting` has `size_bytes` together, and the disk lacks `short_bytes` of its least free space: for these no
        more than a tenth goes.
        """
        count, going = len(waiting), Going()
        tenth = _tenth(waiting)
        for old in waiting:
            if count == 1:
                break
            if now_ns - old.dated_ns > self.max_age_s * 1e9:
                cause = "expired"
            elif (
                count > self.max_files
                or size_bytes > self.max_bytes
                or (short_bytes > 0 and len(going) < tenth)
            ):
                cause = "evicted"
            else:
                break
            going.append((old, cause))
            count, size_bytes = count - 1, size_bytes - old.size_bytes
            short_bytes -= _on_disk(old.size_bytes)
        return going


def to_make_room(waiting: Collection[Entry], size_bytes: int) -> Going:
    """On a full disk: the oldest tenth, and as many more as `size_bytes` take, if all together are enough."""
    enough, freed, going = _on_disk(size_bytes), 0, Going()
    if sum(_on_disk(entry.size_bytes) for entry in waiting) < enough:
        enough = 0
    for entry in waiting:
        if len(going) >= _tenth(waiting) and freed >= enough:
            break
        going.append((entry, "evicted"))
        freed += _on_disk(entry.size_bytes)
    return going


def _tenth(waiting: Collection[Entry]) -> int:
    return math.ceil(len(waiting) * limits.SPOOL_FULL_EVICT_RATIO)


def _on_disk(size_bytes: int) -> int:
    return -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES
