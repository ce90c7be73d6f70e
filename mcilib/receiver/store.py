"""What a store of received batches promises, and how each keeps it; where the bytes lie is for its subclasses.

Layout, in a folder and in an object store alike::

    batches/<date of receipt>/<device>/<sequence, 16 digits>-<batch id>.mcib     the bytes as they came
    ids/<first two digits>/<batch id>                                            one line: the path above
    participants/<date of receipt>/<participant>/<device>                        empty: who is in that day
    deleted/<hash of participant>/<hash of batch id, or `all`>                   empty: must never come back
    exemptions/...                                                               requests (see `exemptions`)

Every name appears by an exclusive creation, whole and durable, in this order: an id is claimed in `ids/`, its
participant is noted for the day, its bytes appear. So two uploads at once, two receivers on one store and a
crash at any point end with one copy: whoever comes later reads the claim and completes or compares at the path
it names.

A deletion first writes its tombstones while no upload of that participant is under way (how, is for the
subclass), so that each upload is either seen by the search that follows, or sees the tombstone. Tombstones are
SHA-256 of random ids: nobody gets from them to an id. Claims go before bytes, since names of bytes tell their
id: a deletion that was cut off goes on where it was.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from mcilib.errors import BatchFormatError
from mcilib.format.batch import read_header
from mcilib.protocols import Receipt, ReceiptStatus
from mcilib.receiver.exemptions import KeyedExemptions
from mcilib.receiver.place import hash_of, tombs_of

SEQUENCE_DIGITS = 16

STEP_FILES = 200
"""A deletion pauses after so many, so that a receiver can end in the midst of one: 50 ms on an ordinary disk."""

_ID = re.compile(r"[0-9a-f]{32}")
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NAME = re.compile(r"\d{16}-([0-9a-f]{32})\.mcib", re.ASCII)
_CLAIM = re.compile(rf"batches/{_DAY.pattern}/[0-9a-f]{{32}}/{_NAME.pattern}\n?", re.ASCII)


class BatchHeader(Protocol):
    """What a store needs to know of a batch; `mcilib.format.batch.Header` is one."""

    @property
    def batch_id(self) -> str: ...

    @property
    def participant(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def sequence(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a participant wants gone. All ids are 32 hex digits."""

    participant: str
    device: str
    """Looked through even where the store has no note of the participant."""
    batches: tuple[str, ...] | None = None
    """None: everything of that participant, from all devices."""


Steps = Generator[None, None, int]
"""Work in steps of well under a second: it is done when the generator has ended, which may be dropped earlier
and begun again. Returns how many things were removed or newly forbidden."""


class BatchStore(Protocol):
    """Keeps received batches.

    Promise: a receipt of `stored` or `duplicate` says that the batch survives a power cut; exactly one copy of
    its id is kept however many uploads, threads and receivers race. When a deletion has ended, neither bytes nor
    ids of what it names are in the store, and never will be: an upload that comes later, or raced it, is
    `rejected`. All methods may be called from any thread and raise `StoreError` when the store cannot be
    written now: senders keep what they have and try again.
    """

    def put(self, batches: Sequence[tuple[BatchHeader, bytes]], /) -> list[Receipt]:
        """Stores all of them in one pass, each as a whole or not at all; receipts in the same order."""

    def delete(self, deletion: Deletion, /) -> Steps:
        """Forbids and removes. What belongs to other participants stays, whatever ids are named."""

    def expire(self, before: date, /) -> Steps:
        """Removes the days of receipt before this one, with their ids; counts batches."""


class KeyedStore(KeyedExemptions):
    """A `BatchStore`, and an `ExemptionStore`, on a place that keeps bytes under keys; base of the stores here."""

    # --- uploads ---

    def put(self, batches: Sequence[tuple[BatchHeader, bytes]], /) -> list[Receipt]:
        """See `BatchStore`. Blocks until all is durable."""
        receipts: list[Receipt | None] = [_check(header) for header, _ in batches]
        while None in receipts:
            first: dict[str, int] = {}  # an id that comes again in the same request waits for its turn
            for at, (header, _) in enumerate(batches):
                if receipts[at] is None:
                    first.setdefault(header.batch_id, at)
            uploads = [_Upload(*batches[at]) for at in first.values()]
            with self._guarded():
                self._put(uploads)
            for at, upload in zip(first.values(), uploads, strict=True):
                receipts[at] = upload.receipt
        return [receipt for receipt in receipts if receipt is not None]

    def _put(self, uploads: list[_Upload]) -> None:
        uploads = self._not_deleted(uploads)
        participants = {upload.participant for upload in uploads}
        with self._uploading(participants, [upload.batch_id for upload in uploads]):
            uploads = self._not_deleted(uploads)  # again, since only now no tombstone can come unseen
            self._find_claims(uploads)
            self._compare([upload for upload in uploads if upload.place])
            fresh = [upload for upload in uploads if upload.receipt is None]
            if fresh:
                self._store(fresh)

    def _not_deleted(self, uploads: list[_Upload]) -> list[_Upload]:
        tombs = {p: set(self._names(tombs_of(p))) for p in {upload.participant for upload in uploads}}
        for upload in uploads:
            if tombs[upload.participant] & {"all", hash_of(upload.batch_id)}:
                upload.receipt = Receipt(upload.batch_id, ReceiptStatus.REJECTED, "deleted")
        return [upload for upload in uploads if upload.receipt is None]

    def _find_claims(self, uploads: list[_Upload]) -> None:
        """Sets `place` where an id was claimed; a claim that somebody has damaged is written anew."""
        for upload, text in zip(uploads, self._read([u.claim for u in uploads]), strict=True):
            if text is None:
                continue
            upload.place = _place_in(text, upload.batch_id) or ""
            if not upload.place:
                upload.place = self._search(upload) or self._place(upload)
                self._overwrite(upload.claim, f"{upload.place}\n".encode())

    def _search(self, upload: _Upload) -> str | None:
        for day in self._days():
            folder = f"batches/{day}/{upload.device}"
            for name in self._names(folder):
                if name.endswith(f"-{upload.batch_id}.mcib"):
                    return f"{folder}/{name}"
        return None

    def _compare(self, uploads: list[_Upload]) -> None:
        """Receipts for those whose bytes lie at their place."""
        found = []
        for upload, there in zip(uploads, self._read([u.place for u in uploads]), strict=True):
            if there is None:
                continue
            if there == upload.data:
                upload.receipt = Receipt(upload.batch_id, ReceiptStatus.DUPLICATE)
                found.append(upload)
            else:
                reason = "this id was received before with other bytes"
                upload.receipt = Receipt(upload.batch_id, ReceiptStatus.REJECTED, reason)
        # Whoever wrote them may be another process that has not come this far.
        self._sync([key for upload in found for key in (upload.claim, upload.place)])

    def _store(self, uploads: list[_Upload]) -> None:
        unclaimed = [upload for upload in uploads if not upload.place]
        self._sync(
            [upload.claim for upload in uploads if upload.place]
        )  # may be younger than its maker's sync
        for upload in unclaimed:
            upload.place = self._place(upload)
        contents = [(upload.tag, upload.data) for upload in uploads]
        contents += [(upload.tag, f"{upload.place}\n".encode()) for upload in unclaimed]
        with self._stage(contents) as staged:
            new = staged.name(range(len(uploads), len(contents)), [upload.claim for upload in unclaimed])
            self._find_claims([u for u, mine in zip(unclaimed, new, strict=True) if not mine])
            self._note({upload.note: upload for upload in uploads})
            new = staged.name(range(len(uploads)), [upload.place for upload in uploads])
        for upload, mine in zip(uploads, new, strict=True):
            if mine:
                upload.receipt = Receipt(upload.batch_id, ReceiptStatus.STORED)
        self._compare([upload for upload in uploads if upload.receipt is None])

    def _note(self, notes: dict[str, _Upload]) -> None:
        """Who has batches of which day from which device; a deletion looks nowhere else."""
        there = self._read(list(notes))
        missing = [key for key, content in zip(notes, there, strict=True) if content is None]
        self._sync([key for key in notes if key not in missing])
        if missing:
            with self._stage([(notes[key].tag, b"") for key in missing]) as staged:
                staged.name(range(len(missing)), missing)

    def _place(self, upload: _Upload) -> str:
        name = f"{upload.sequence:0{SEQUENCE_DIGITS}}-{upload.batch_id}.mcib"
        return f"batches/{self._today().isoformat()}/{upload.device}/{name}"

    def _days(self) -> list[str]:
        return [day for day in self._names("batches") if _DAY.fullmatch(day)]

    # --- what goes ---

    def delete(self, deletion: Deletion, /) -> Steps:
        """See `BatchStore`. Takes time in proportion to what the named devices have sent."""
        with self._guarded():
            wanted = None if deletion.batches is None else set(deletion.batches)
            tombs = tombs_of(deletion.participant)
            there = set(self._names(tombs))
            names = ["all"] if wanted is None else [hash_of(batch_id) for batch_id in sorted(wanted)]
            keys = [f"{tombs}/{name}" for name in names if name not in there]
            yield from self._forbid(deletion.participant, keys)
            self._sync([f"{tombs}/{name}" for name in names])
            done = len(keys)
            places = self._claimed(sorted(wanted or ()), deletion.participant)
            done += self._erase(places)
            yield
            for day in self._days():
                for device in {*self._names(f"participants/{day}/{deletion.participant}"), deletion.device}:
                    folder = f"batches/{day}/{device}"
                    candidates = [
                        f"{folder}/{name}"
                        for name in self._names(folder)
                        if (match := _NAME.fullmatch(name)) and (wanted is None or match[1] in wanted)
                    ]
                    for at in range(0, len(candidates), STEP_FILES):
                        done += self._erase(self._of(deletion.participant, candidates[at : at + STEP_FILES]))
                        yield
                    if wanted is None:
                        self._prune([folder])
                yield
            if wanted is None:
                for removed in self._forget_exemptions(deletion.participant):
                    done += removed
                    yield
                for day in self._names("participants"):
                    folder = f"participants/{day}/{deletion.participant}"
                    notes = [f"{folder}/{device}" for device in self._names(folder)]
                    self._remove(notes)
                    self._prune([folder])
                    done += len(notes)
                    yield
            for key, ids in self._residue(deletion.participant):
                gone = [batch_id for batch_id in ids if wanted is None or batch_id in wanted]
                if gone:
                    self._drop_residue(key, gone, [batch_id for batch_id in ids if batch_id not in gone])
                    done += 1
                yield
            if wanted is None:
                self._prune([f"pending/{deletion.participant}"])
            return done

    def _claimed(self, batch_ids: list[str], participant: str) -> list[str]:
        """Places of those that this participant may delete; claims for bytes that never came are removed."""
        texts = dict(zip(batch_ids, self._read([_claim(batch_id) for batch_id in batch_ids]), strict=True))
        named = {batch_id: _place_in(text, batch_id) for batch_id, text in texts.items() if text is not None}
        places = [place for place in named.values() if place is not None]
        there = dict(zip(places, self._read(places), strict=True))
        self._remove([_claim(i) for i, place in named.items() if place is None or there[place] is None])
        return [place for place, data in there.items() if _may_delete(data, participant)]

    def _of(self, participant: str, places: list[str]) -> list[str]:
        return [
            p for p, data in zip(places, self._read(places), strict=True) if _may_delete(data, participant)
        ]

    def _erase(self, places: Sequence[str]) -> int:
        """Claims first: the name of the bytes tells the id, should this be cut off."""
        if places:
            matches = [_NAME.fullmatch(place.rpartition("/")[2]) for place in places]
            self._remove([_claim(match[1]) for match in matches if match])
            self._remove(places)
        return len(places)

    def _drop_residue(self, key: str, batch_ids: Sequence[str], others: Sequence[str] = ()) -> None:
        """An upload that died may have claimed ids for bytes that never came. `others`: what it is still about."""
        for batch_id, text in zip(batch_ids, self._read([_claim(i) for i in batch_ids]), strict=True):
            place = None if text is None else _place_in(text, batch_id)
            if text is not None and (place is None or self._read([place]) == [None]):
                self._remove([_claim(batch_id)])
        if others:
            self._overwrite(key, "".join(f"{batch_id}\n" for batch_id in others).encode())
        else:
            self._remove([key])

    def expire(self, before: date, /) -> Steps:
        """See `BatchStore`. Takes time in proportion to what goes."""
        with self._guarded():
            done = 0
            for day in self._days():
                if day >= before.isoformat():
                    continue
                for device in self._names(f"batches/{day}"):
                    folder = f"batches/{day}/{device}"
                    places = [f"{folder}/{name}" for name in self._names(folder)]
                    for at in range(0, len(places), STEP_FILES):
                        done += self._erase(places[at : at + STEP_FILES])
                        yield
                    self._prune([folder])
            for day in self._names("participants"):
                if not _DAY.fullmatch(day) or day >= before.isoformat():
                    continue
                for participant in self._names(f"participants/{day}"):
                    folder = f"participants/{day}/{participant}"
                    self._remove([f"{folder}/{device}" for device in self._names(folder)])
                    self._prune([folder])
                    yield
            yield from self._expire_exemptions(before)
            return done


class _Upload:
    """One batch on its way into the store."""

    def __init__(self, header: BatchHeader, data: bytes) -> None:
        self.batch_id, self.participant = header.batch_id, header.participant
        self.device, self.sequence, self.data = header.device, header.sequence, data
        self.place = ""
        """The key of the bytes, once the id is claimed."""
        self.receipt: Receipt | None = None

    @property
    def claim(self) -> str:
        return _claim(self.batch_id)

    @property
    def tag(self) -> str:
        return f"{self.participant}-{self.batch_id}"

    @property
    def note(self) -> str:
        day = self.place.split("/")[1]
        return f"participants/{day}/{self.participant}/{self.device}"


def _check(header: BatchHeader) -> Receipt | None:
    """Names from outside, before they become keys."""
    if not _ID.fullmatch(header.batch_id):
        return Receipt("", ReceiptStatus.REJECTED, "the batch id is not 32 hex digits")
    for what, value in (("device", header.device), ("participant", header.participant)):
        if not _ID.fullmatch(value):
            return Receipt(header.batch_id, ReceiptStatus.REJECTED, f"the {what} id is not 32 hex digits")
    if not 0 <= header.sequence < 10**SEQUENCE_DIGITS:
        return Receipt(header.batch_id, ReceiptStatus.REJECTED, "the sequence is out of range")
    return None


def _may_delete(data: bytes | None, participant: str) -> bool:
    """Whether stored bytes are of this participant. Damaged ones, which nobody can read, go with the device."""
    if data is None:
        return False
    try:
        return read_header(data).participant == participant
    except BatchFormatError:
        return True


def _claim(batch_id: str) -> str:
    return f"ids/{batch_id[:2]}/{batch_id}"


def _place_in(claim: bytes, batch_id: str) -> str | None:
    """The key that a claim names; None when the claim is damaged."""
    match = _CLAIM.fullmatch(claim.decode("ascii", "replace"))
    return match[0].rstrip("\n") if match is not None and match[1] == batch_id else None
