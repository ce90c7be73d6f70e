"""What was captured goes: from this device, and from the receiver by a request. In an order that a crash cannot harm.

Whole batches, since a sealed one cannot be cut. What is to go is on the disk first, as an intention, then it goes from
here, then the request is in the spool, where nothing evicts it: whatever a crash cuts off is finished at the next open.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from mcilib import limits
from mcilib.consent.decisions import Decisions, Steps, refused
from mcilib.consent.grant import GRANT_FILE, Grant
from mcilib.consent.journal import BatchJournal, Journaled
from mcilib.consent.state import ControlState, Withdrawal, pseudonym_hash
from mcilib.delivery import control
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import GrantError
from mcilib.files import remove
from mcilib.protocols import ControlRecord
from mcilib.statistics import Forgotten


class Erasure:
    """Of one state folder, whose spool is open. Any thread; one deletion at a time. Raises `SpoolError` at the end when
    a step failed; the others are taken all the same."""

    def __init__(
        self, folder: Path, spool: DirectorySpool, journal: BatchJournal, decisions: Decisions
    ) -> None:
        self._folder, self._spool, self._journal, self._decisions = folder, spool, journal, decisions
        self.grant: Grant | None = None
        """Under whose pseudonym the receiver is asked."""
        self.lock = threading.RLock()

    # --- some batches --------------------------------------------------------------------------------------

    def delete(self, which: Callable[[Collection[str]], list[str]]) -> tuple[Forgotten, Steps]:
        """Those that `which` finds; `which` is given those that wait here, and all of them go when it fails."""
        steps, present = Steps(), self._spool.waiting()
        found = steps.take(lambda: which(present))
        batch_ids = list(present) if found is None else found
        parts = steps.take(lambda: self._by_whom(batch_ids, self._journal.known()))
        if parts is None:  # nobody knows whose they are
            parts = self._by_whom(batch_ids, {})
        for part, who in parts:
            steps.take(partial(self._journal.intend, part, **who))
        batches = steps.take(lambda: self._spool.purge(batch_ids)) if batch_ids else 0
        for part, who in parts:
            steps.take(partial(self._ask_to_delete, part, who))
        return Forgotten(batches=batches or 0, asked=len(parts)), steps

    def _by_whom(
        self, batch_ids: list[str], known: Mapping[str, Journaled]
    ) -> list[tuple[list[str], dict[str, str]]]:
        """As many as fit into one request each, under the pseudonym that the receiver has them under."""
        by_whom = dict[tuple[str, ...], list[str]]()
        for batch_id in batch_ids:
            one = known.get(batch_id)
            who = (one.participant, one.device) if one is not None else tuple(self._who().values())
            by_whom.setdefault(who, []).append(batch_id)
        most = limits.DELETE_IDS_MAX
        return [
            (ids[i : i + most], dict(zip(("participant", "device"), who, strict=False)))
            for who, ids in by_whom.items()
            for i in range(0, len(ids), most)
        ]

    def finish(self) -> int:
        """What a crash has cut off, and requests that are lost; how many batches went now."""
        batches = 0
        for batch_ids, who in self._journal.unfinished(self.waiting()):
            batches += self._spool.purge(batch_ids)
            self._ask_to_delete(batch_ids, who or self._who())
        return batches

    def waiting(self) -> frozenset[str]:
        """Ids of the control records that are in the spool, undamaged. Raises `SpoolError`."""
        return frozenset(record.record_id for record in self._spool.controls())

    def _who(self) -> dict[str, str]:
        return (
            {} if self.grant is None else {"participant": self.grant.participant, "device": self.grant.device}
        )

    def _ask_to_delete(self, batch_ids: list[str], who: dict[str, str]) -> None:
        if not who:
            raise GrantError(
                "There is no grant to ask the receiver under", "What was here is deleted; `mcilib grant`."
            )
        ask = control.delete_request(who["participant"], who["device"], batch_ids)
        self._journal.asked(batch_ids, self._spool.commit_control(ask).record_id)

    # --- all of it -----------------------------------------------------------------------------------------

    def everything(self, withdrawal: Withdrawal) -> int:
        """All of this participant, after the marker is on the disk; how many batches went. May be done again."""
        steps = Steps()
        steps.take(self._spool.controls)  # a damaged one is set aside, and goes with what lies there
        batches = steps.take(self._spool.purge) or 0
        steps.take(lambda: self._ask_to_delete_all(withdrawal))
        steps.take(lambda: self._remove_grant(withdrawal.participant))
        steps.take(lambda: self._journal.clear(withdrawal.participant))
        steps.take(self._decisions.save)
        steps.end()
        return batches

    def _ask_to_delete_all(self, withdrawal: Withdrawal) -> None:
        asked = self._asked_for_all(withdrawal.participant, withdrawal.device)
        for record in self._spool.controls():
            # In the participant's words, and there is nothing left to exempt.
            if control.kind_of(record) != control.DELETE:
                self._spool.settle_control(record.record_id)
        known = replace(withdrawal, record_id=asked)
        self._decisions.become(lambda state: replace(state, withdrawal=known))

    def _asked_for_all(self, participant: str, device: str) -> str:
        """The id of the control record that waits with that request, or of a new one."""
        for record in self._spool.controls():
            if _deletes_all(record, participant):
                return record.record_id
        return self._spool.commit_control(control.delete_request(participant, device)).record_id

    def _remove_grant(self, participant: str) -> None:
        """Unless it is another participant's. One that cannot be read is void, and may name this one."""
        path = self._folder / GRANT_FILE
        try:
            if Grant.load(self._folder).participant != participant:
                return
        except GrantError:
            pass
        try:
            remove(path)
        except OSError as error:
            raise refused("The grant", path, error) from None

    def forget_pseudonym(self) -> None:
        """There is a grant with another one: of the one that was withdrawn the request alone is left, made again when
        it is lost."""
        withdrawal, grant = self._decisions.state.withdrawal, self.grant
        if withdrawal is None or not withdrawal.record_id:
            return
        if withdrawal.former:
            asked = replace(withdrawal, record_id=self._asked_for_all(withdrawal.former, withdrawal.device))
            self._decisions.become(lambda state: replace(state, withdrawal=asked))
        elif grant is not None and withdrawal.participant not in ("", grant.participant):
            self._decisions.become(lambda state: pseudonym_forgotten(state, withdrawal))


def pseudonym_forgotten(state: ControlState, withdrawal: Withdrawal) -> ControlState:
    """Of the pseudonym that was withdrawn its hash is left, and of the device, which is in each batch too, nothing: but
    for what the request needs until it is confirmed."""
    if withdrawal.confirmed_ns is not None:
        left = replace(withdrawal, participant="", former="", device="")
    else:
        left = replace(withdrawal, participant="", former=withdrawal.participant)
    return replace(state, withdrawal=left, withdrawn=hashes(state))


def hashes(state: ControlState) -> tuple[str, ...]:
    """Of all pseudonyms that were withdrawn, also of the one that is still known."""
    last = state.pending_withdrawal
    return tuple(dict.fromkeys([*state.withdrawn, *([pseudonym_hash(last)] if last else [])]))


def _deletes_all(record: ControlRecord, participant: str) -> bool:
    content = control.parse(record.data)
    return (
        content["kind"] == control.DELETE
        and content["participant"] == participant
        and "batches" not in content
    )
