"""The files of a spool and the counters that explain them, kept in step. For the owner, one thread at a time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mcilib.clock import Clock
from mcilib.delivery._age import AgeClock
from mcilib.delivery._files import FULL, spool_error
from mcilib.delivery._folder import SpoolFolder
from mcilib.delivery._limits import Going, to_make_room
from mcilib.delivery._state import KEPT_FOR_A_LOOK, Entry, Found, SpoolState, listed, load_state, reconcile
from mcilib.errors import SpoolError
from mcilib.files import without_home
from mcilib.statistics import SpoolStatistics

_log = logging.getLogger("mcilib")

_LEAVING_MAX = 32
"""Names of files on their way out that `state.json` carries before their unlinks are fsynced."""
_STATE_EVERY_NS = 3_600_000_000_000
"""While batches only come, the state is written this often: what the spool's clock may lose to a power cut."""


class Ledger:
    """What an owned folder holds. Made when it is opened: finishes what a crash interrupted.

    Raises `OSError` then, and `SpoolError` afterwards.
    """

    def __init__(self, folder: SpoolFolder, clock: Clock, boot: str) -> None:
        self.folder = folder
        folder.clear_tmp()
        before, damaged = load_state(folder.path)
        if damaged:
            folder.set_state_aside()
            _log.warning(
                "%s was damaged (kept beside it): its counters start again from the files",
                without_home(folder.path),
            )
        anchor = before.age if before is not None else None
        self.age = AgeClock(anchor, clock, boot)
        self._written_ns = anchor.age_ns if anchor is not None else 0  # when the state was
        found = Found.there(folder.path)
        self.state, waiting = reconcile(before, found)  # may know more commits than the disk, nothing else
        self._sweep(found.ready)
        waiting = [replace(entry, dated_ns=self.age.believed_ns(entry.dated_ns)) for entry in waiting]
        self.waiting = {entry.entry_id: entry for entry in waiting}  # oldest first
        self.waiting_bytes = sum(entry.size_bytes for entry in waiting)
        self.controls = {entry.entry_id: entry for entry in found.control}
        self.made_room = False  # a full disk has cost its part; until something has moved it costs no more
        folder.prune_bad(self.age)
        if self.state != before or self.state.leaving or anchor is None or anchor.boot != boot:
            self._forget_leaving()
            try:
                self._write(self.state)
            except OSError as error:
                if error.errno not in FULL or (before is None and not waiting):
                    raise  # else the files say the same again at the next open, and delivery makes room
        folder.keep_reserve()

    def statistics(self) -> SpoolStatistics:
        return self.state.statistics(self.waiting.values(), len(self.controls))

    def _write(self, state: SpoolState) -> None:
        self.folder.write_state(replace(state, age=self.age.anchor()).to_json())
        self.state, self._written_ns = state, self.age.now_ns()

    def write_in_time(self) -> None:
        """Once an hour. Never raises `OSError`."""
        if self.age.now_ns() - self._written_ns >= _STATE_EVERY_NS:
            self.write()

    def write(self) -> None:
        """Never raises `OSError`: the next write that succeeds carries the same and more."""
        with contextlib.suppress(OSError):
            self._write(self.state)

    # --- in -------------------------------------------------------------------------------------------------

    def store(self, folder: Path, entry: Entry, data: bytes, what: str) -> None:
        """The file. On a full disk the oldest batches make room, once until something is stored or settled."""
        try:
            try:
                self.folder.store(folder, entry, data)
            except OSError as error:
                if error.errno not in FULL or self.made_room or not self.waiting:
                    raise
                self.leave(to_make_room(self.waiting.values(), entry.size_bytes))
                self.folder.sync_ready()  # some file systems give the room back only then
                self.made_room = True
                self.folder.store(folder, entry, data)
        except OSError as error:
            raise spool_error(f"{what} cannot be stored", self.folder.path, error) from None
        self.made_room = False

    def add(self, entry: Entry) -> None:
        self.state = self.state.commit(entry)
        self.waiting[entry.entry_id] = entry
        self.waiting_bytes += entry.size_bytes

    def take_back(self, entry: Entry, state: SpoolState) -> None:
        """The last commit did not happen."""
        self.state = state
        self._pop(entry)
        with contextlib.suppress(OSError):
            self.folder.remove(entry.name)

    # --- out ------------------------------------------------------------------------------------------------

    def leave(self, going: Going, *, first_if_full: Going | None = None) -> None:
        """Counts these batches, each by its cause, durably, and only then removes them.

        On a disk so full that the count cannot be written, those in `first_if_full` go all the same, and it is
        tried again.
        """
        if not going:
            return
        try:
            self._write(self._without(going))
        except OSError as error:
            if not first_if_full or error.errno not in FULL:
                raise _not_recorded(self.folder.path, error) from None
            self._uncounted(first_if_full)
            going = [one for one in going if one not in first_if_full]
            try:
                self._write(self._without(going))
            except OSError as again:
                if going or again.errno not in FULL:  # else the next write that succeeds carries it
                    raise _not_recorded(self.folder.path, again) from None
        self._remove(going)
        self.folder.keep_reserve()
        if len(self.state.leaving) > _LEAVING_MAX:
            with contextlib.suppress(OSError):
                self._forget_leaving()

    def purge(self, going: Going, bad_ids: Sequence[str] | None) -> None:
        """Removes batches whether they can be counted or not, and what `bad/` has of `bad_ids`, or all of that."""
        failed: list[OSError] = []
        try:
            if going:
                self._write(self._without(going))
            failed += self._remove(going)
        except OSError:
            failed += self._uncounted(going)
            self.write()
        try:
            failed += self._sweep(listed(self.folder.ready))
            self._forget_leaving()
            self.folder.purge_bad(bad_ids)
        except OSError as error:
            failed.append(error)
        self.folder.keep_reserve()
        self.made_room = False
        if failed:
            raise spool_error("batches cannot be removed", self.folder.path, failed[0])

    def _uncounted(self, going: Going) -> list[OSError]:
        """Removes batches that are counted in memory only."""
        self.state = self._without(going)
        return self._remove(going)

    def _without(self, going: Going) -> SpoolState:
        gone = {entry.entry_id for entry, _ in going}
        stay = (entry.sequence for entry in self.waiting.values() if entry.entry_id not in gone)
        return self.state.leave(going, settled_below=next(stay, self.state.next_sequence))

    def _remove(self, going: Going) -> list[OSError]:
        """The files of batches that are counted. One that will not go is tried again at the next open."""
        failed = []
        for entry, cause in going:
            self._pop(entry)
            try:
                self._take_out(entry.name, "bad" if cause in KEPT_FOR_A_LOOK else "gone")
            except OSError as error:
                failed.append(error)
        return failed

    def _sweep(self, ready: Iterable[Entry]) -> list[OSError]:
        """What did not go when it was counted."""
        failed = []
        for entry in ready:
            if self.state.left(entry):
                try:
                    self._take_out(entry.name, self.state.leaving.get(entry.name, "gone"))
                except OSError as error:
                    failed.append(error)
        return failed

    def _pop(self, entry: Entry) -> None:
        if self.waiting.pop(entry.entry_id, None) is not None:
            self.waiting_bytes -= entry.size_bytes

    def _take_out(self, name: str, to: str) -> None:
        if to == "bad":
            self.folder.set_aside(self.folder.ready, name, self.age)
        else:
            self.folder.remove(name)

    def _forget_leaving(self) -> None:
        """Makes what has left `ready/` stay away, so that those names need no more explaining."""
        self.folder.sync_ready()
        there = {name: to for name, to in self.state.leaving.items() if self.folder.is_ready(name)}
        self.state = replace(self.state, leaving=there)

    def set_control_aside(self, entry: Entry) -> None:
        """A damaged control record. Raises `SpoolError`, when the whole folder has vanished say."""
        try:
            self._write(self.state)
            self.folder.set_aside(self.folder.control, entry.name, self.age)
        except OSError as error:
            raise spool_error("a control record is damaged", self.folder.path, error) from None
        _log.error("mcilib: control record %s was damaged on this disk and is lost", entry.entry_id)
        del self.controls[entry.entry_id]


def _not_recorded(path: Path, error: OSError) -> SpoolError:
    return spool_error("a batch's fate cannot be recorded", path, error)
