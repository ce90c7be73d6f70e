"""The reference model of a spool: a list with limits, and counters. What the real one must always equal."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field

CAUSES = ("evicted", "expired", "rejected", "damaged", "purged")


@dataclass
class Model:
    max_files: int
    max_bytes: int
    max_age_s: float = float("inf")
    now_s: float = 0.0
    """By the spool's own clock."""
    waiting: dict[str, bytes] = field(default_factory=dict)
    """Oldest first."""
    since_s: dict[str, float] = field(default_factory=dict)
    controls: dict[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def commit(self, batch_id: str, data: bytes) -> None:
        self.counts["committed"] += 1
        self.waiting[batch_id], self.since_s[batch_id] = data, self.now_s
        for old in [i for i in self.waiting if self.now_s - self.since_s[i] > self.max_age_s]:
            self.leave(old, "expired")
        while len(self.waiting) > self.max_files or self.waiting_bytes > self.max_bytes:
            self.leave(next(iter(self.waiting)), "evicted")

    def leave(self, batch_id: str, cause: str) -> None:
        """`cause`: delivered, or one of `CAUSES`. An unknown id is ignored."""
        if self.waiting.pop(batch_id, None) is not None:
            self.counts[cause] += 1

    def purge(self, batch_ids: list[str] | None = None) -> None:
        for batch_id in list(self.waiting) if batch_ids is None else batch_ids:
            self.leave(batch_id, "purged")

    def older_than(self, min_age_s: float) -> list[str]:
        return [i for i in self.waiting if self.now_s - self.since_s[i] >= min_age_s]

    @property
    def waiting_bytes(self) -> int:
        return sum(map(len, self.waiting.values()))

    def copy(self) -> Model:
        return copy.deepcopy(self)
