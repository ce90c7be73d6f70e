"""Requests for exemptions, and what the operator has decided: part of every store here.

Layout, in a folder and in an object store alike::

    exemptions/<exemption id>-<participant>.request      JSON: what is asked for, by whom
    exemptions/<exemption id>-<participant>.decision     JSON: approved or denied, when, with which words
    exemptions/<exemption id>-<participant>.withdrawn    JSON: when the participant took it back

Each appears by an exclusive creation, whole and durable. So of two operators, or two receivers, one decides; and the
state follows from which names are there: taken back, else as decided, else pending. The three are written as batches
are (`store`), so a deletion of the participant finds all of them, and what comes later is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Protocol, runtime_checkable

from mcilib.consent.exemption import Exemption, ExemptionState, ExemptScope
from mcilib.errors import ConfigError
from mcilib.protocols import Receipt, ReceiptStatus
from mcilib.receiver.place import Place, tombs_of

AT_ONCE = 64
"""So many are read together: a bucket answers several at a time."""

_NAME = re.compile(r"([0-9a-f]{32}-[0-9a-f]{32})\.(request|decision|withdrawn)")
_DECISIONS = (ExemptionState.APPROVED, ExemptionState.DENIED)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an exemption, as a store knows it. Ids are 32 hex digits."""

    participant: str
    device: str
    received_ns: int
    """Unix time, by the receiver's clock."""
    exemption: Exemption
    """Its state is what was decided, or that it was taken back; that time has ended it, `at` tells."""
    withdrawn_ns: int | None = None

    def at(self, wall_ns: int) -> Asked:
        """As it is at that time."""
        return replace(self, exemption=self.exemption.at(wall_ns))

    def to_json(self) -> dict[str, Any]:
        """As the operator sees it."""
        more = {"received_ns": self.received_ns, "withdrawn_ns": self.withdrawn_ns}
        return {"participant": self.participant, "device": self.device, **self.exemption.to_json(), **more}


@dataclass(frozen=True, slots=True)
class Decided:
    """What `decide` came to."""

    asked: Asked | None
    """How it stands now; None: there is no request with this id."""
    refused: str = ""
    """Why it was not decided, in words; empty: it is as was asked."""


@runtime_checkable
class ExemptionStore(Protocol):
    """Keeps requests for exemptions and decisions; a `BatchStore` that has these methods too.

    Promise: what is returned is durable and the same through every receiver on the store, whatever crashes. A request
    is stored once, decided once, and not decided after it was taken back. When a deletion of all of a participant has
    ended, nothing of their requests is there, nor comes back. Any thread; raise `StoreError`.
    """

    def ask(self, asked: Asked, /) -> Receipt:
        """Stores the request unless it is there. The receipt has the decision, as at `asked.received_ns`."""

    def take_back(self, participant: str, exemption_id: str, at_ns: int, /) -> bool:
        """Of a request that may be there already, come later or never. False when there is nothing left to do."""

    def asked(self, after: str = "", /) -> Iterator[Asked]:
        """All requests whose ids come after this one, in the order of ids. One that is damaged is left out until its
        device asks again."""

    def decide(self, exemption_id: str, decision: ExemptionState, note: str, at_ns: int, /) -> Decided:
        """`APPROVED` or `DENIED`. To decide the same again is harmless. Raises `ConfigError` for a note that cannot
        be told."""


class KeyedExemptions(Place):
    """An `ExemptionStore` on a place that keeps bytes under keys."""

    def ask(self, asked: Asked, /) -> Receipt:
        """See `ExemptionStore`."""
        exemption_id = asked.exemption.exemption_id
        key, status = f"{exemption_id}-{asked.participant}", ReceiptStatus.DUPLICATE
        refused = Receipt(exemption_id, ReceiptStatus.REJECTED, "deleted")
        with self._guarded():
            if self._gone(asked.participant):
                return refused
            there = self._stand(key)
            if there is None:
                with self._uploading({asked.participant}, [exemption_id]):
                    if self._gone(asked.participant):
                        return refused
                    if self._make(key, "request", _request(asked), lambda now: now is not None):
                        status = ReceiptStatus.STORED
                there = self._stand(key) or asked
            # Whoever made them may be another process that has not come this far.
            self._sync([_file(key, "request")])
        if _as_asked(there.exemption) != _as_asked(asked.exemption):
            reason = "this id was received before with another request"
            return Receipt(exemption_id, ReceiptStatus.REJECTED, reason)
        now = there.exemption
        if now.state is ExemptionState.PENDING:
            return Receipt(exemption_id, status, decision=now.at(asked.received_ns).state.value)
        decided = (now.decided_ns, now.answer) if now.state in _DECISIONS else (None, "")
        return Receipt(exemption_id, status, "", now.state.value, *decided)

    def take_back(self, participant: str, exemption_id: str, at_ns: int, /) -> bool:
        """See `ExemptionStore`."""
        with self._guarded(), self._uploading({participant}, [exemption_id]):
            if self._gone(participant):
                return False
            content = {"withdrawn_ns": at_ns}
            return self._make(f"{exemption_id}-{participant}", "withdrawn", content, lambda now: True)

    def asked(self, after: str = "", /) -> Iterator[Asked]:
        """See `ExemptionStore`. Takes time in proportion to what is taken from it, and one look at the names."""
        with self._guarded():
            there: dict[str, list[str]] = {}
            for key, what in self._exemption_names():
                if key[:32] > after:
                    there.setdefault(key, []).append(what)
            keys = sorted(key for key, whats in there.items() if "request" in whats)
        for at in range(0, len(keys), AT_ONCE):
            some = keys[at : at + AT_ONCE]
            with self._guarded():
                found = self._stands({key: there[key] for key in some})
            yield from (asked for key in some if (asked := found[key]) is not None)

    def exemption_ids(self) -> list[str]:
        """Of all requests, sorted; reads names only."""
        with self._guarded():
            return sorted({key[:32] for key, what in self._exemption_names() if what == "request"})

    def decide(self, exemption_id: str, decision: ExemptionState, note: str, at_ns: int, /) -> Decided:
        """See `ExemptionStore`."""
        if decision not in _DECISIONS:
            raise ConfigError(f"{decision.value!r} is no decision", "Approve or deny it.")
        _check_note(note)
        with self._guarded():
            keys = [k for k, what in self._exemption_names() if what == "request" and k[:32] == exemption_id]
            if len(keys) > 1:  # no device that keeps to the protocol makes an id twice
                return Decided(self._stand(keys[0]), "several participants have requests with this id")
            if not keys:
                return Decided(None)
            [key] = keys
            participant = key[33:]
            with self._uploading({participant}, [exemption_id]):
                there = None if self._gone(participant) else self._stand(key)
                if there is None:
                    return Decided(None)
                wanted = replace(there.exemption, state=decision, decided_ns=at_ns, answer=note)
                state = there.exemption.at(at_ns).state
                if there.exemption.state is ExemptionState.PENDING and state is ExemptionState.EXPIRED:
                    return Decided(there, "it has ended before anybody decided it")
                if state is ExemptionState.PENDING:
                    content = {"decision": decision.value, "decided_ns": at_ns, "note": note}
                    self._make(key, "decision", content, _is_decided)
                    there = self._stand(key) or there
                self._sync([_file(key, "decision")])
        return Decided(there, _differs(there.exemption, wanted))

    # --- for the store --------------------------------------------------------------------------------------

    def _forget_exemptions(self, participant: str) -> Iterator[int]:
        """All that this participant asked for; how many files each step has removed."""
        names = [_file(key, what) for key, what in self._exemption_names() if key[33:] == participant]
        for at in range(0, len(names), AT_ONCE):
            some = names[at : at + AT_ONCE]
            self._remove(some)
            yield len(some)

    def _expire_exemptions(self, before: date) -> Iterator[None]:
        """Those that are in force no more, since before that day; and what is of no request and older."""
        before_ns = int(datetime(before.year, before.month, before.day, tzinfo=UTC).timestamp()) * 10**9
        for asked in self.asked():
            now = asked.exemption
            denied_ns = now.decided_ns if now.state is ExemptionState.DENIED else None
            ends = [ns for ns in (asked.withdrawn_ns, denied_ns, now.until_ns) if ns is not None]
            if ends and min(ends) < before_ns:
                key = f"{now.exemption_id}-{asked.participant}"
                self._remove([_file(key, what) for what in _WHATS])
            yield
        # Taken back without a request, or a removal that a crash has cut off.
        names = list(self._exemption_names())
        requested = {key for key, what in names if what == "request"}
        alone = [name for name in names if name[0] not in requested]
        for at in range(0, len(alone), AT_ONCE):
            some = alone[at : at + AT_ONCE]
            texts = self._read([_file(*name) for name in some])
            times = zip(some, (_written_ns(_object(text)) for text in texts), strict=True)
            self._remove([_file(*name) for name, time_ns in times if time_ns < before_ns])
            yield

    # --- files ----------------------------------------------------------------------------------------------

    def _gone(self, participant: str) -> bool:
        return "all" in self._names(tombs_of(participant))

    def _exemption_names(self) -> Iterator[tuple[str, str]]:
        for name in self._names("exemptions"):
            if match := _NAME.fullmatch(name):
                yield match[1], match[2]

    def _stand(self, key: str) -> Asked | None:
        return self._stands({key: ["request", "decision", "withdrawn"]})[key]

    def _stands(self, there: dict[str, list[str]]) -> dict[str, Asked | None]:
        names = [(key, what) for key, whats in there.items() for what in whats]
        texts = dict(zip(names, self._read([_file(*name) for name in names]), strict=True))
        found = {name: _object(text) for name, text in texts.items()}
        return {key: _asked(key, *(found.get((key, what)) for what in _WHATS)) for key in there}

    def _make(
        self, key: str, what: str, content: dict[str, Any], sound: Callable[[Asked | None], bool]
    ) -> bool:
        """False when it is there already and `sound`; what somebody has damaged is written anew."""
        data = json.dumps(content, indent=1, ensure_ascii=False).encode()
        exemption_id, _, participant = key.partition("-")
        with self._stage([(f"{participant}-{exemption_id}", data)]) as staged:
            [new] = staged.name([0], [_file(key, what)])
        if new or sound(self._stand(key)):
            return new
        self._overwrite(_file(key, what), data)
        return True


_WHATS = ("request", "decision", "withdrawn")


def _file(key: str, what: str) -> str:
    return f"exemptions/{key}.{what}"


def _check_note(note: str) -> None:
    """As it has to be when it comes to the device. Raises `ConfigError`."""
    Exemption("0" * 32, ExemptScope(everything=True), "other", note, requested_ns=0)


def _is_decided(asked: Asked | None) -> bool:
    return asked is not None and asked.exemption.state is not ExemptionState.PENDING


def _object(text: bytes | None) -> dict[str, Any] | None:
    """None where nothing is; empty when it is damaged."""
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _request(asked: Asked) -> dict[str, Any]:
    wanted = _as_asked(asked.exemption).to_json()
    return {
        "participant": asked.participant,
        "device": asked.device,
        "received_ns": asked.received_ns,
        "exemption": wanted,
    }


def _as_asked(exemption: Exemption) -> Exemption:
    return replace(exemption, state=ExemptionState.PENDING, decided_ns=None, answer="")


def _asked(
    key: str,
    request: dict[str, Any] | None,
    decision: dict[str, Any] | None,
    withdrawn: dict[str, Any] | None,
) -> Asked | None:
    """None when there is no request that can be read."""
    if not request:
        return None
    try:
        exemption = Exemption.from_json(request["exemption"])
        asked = Asked(key[33:], str(request["device"]), int(request["received_ns"]), exemption)
    except (KeyError, TypeError, ValueError, ConfigError):
        return None
    if decision:
        try:
            state, decided_ns = ExemptionState(decision["decision"]), int(decision["decided_ns"])
            decided = replace(exemption, state=state, decided_ns=decided_ns, answer=str(decision["note"]))
            asked = replace(asked, exemption=decided)
        except (KeyError, TypeError, ValueError, ConfigError):
            pass  # nobody can read what was decided: it is to be decided again
    if withdrawn is not None:
        at_ns = withdrawn.get("withdrawn_ns")
        asked = replace(
            asked,
            exemption=replace(asked.exemption, state=ExemptionState.WITHDRAWN),
            withdrawn_ns=at_ns if type(at_ns) is int else asked.received_ns,
        )
    return asked


def _written_ns(content: dict[str, Any] | None) -> int:
    """When it was decided or taken back; 0 when nobody can read that any more."""
    times = [
        time_ns
        for name in ("decided_ns", "withdrawn_ns")
        if type(time_ns := (content or {}).get(name)) is int
    ]
    return max(times, default=0)


def _differs(now: Exemption, wanted: Exemption) -> str:
    """Why it is not as wanted, in words."""
    if now.state is ExemptionState.WITHDRAWN:
        return "the participant has taken it back"
    if now.state is not wanted.state or wanted.answer not in ("", now.answer):
        on = datetime.fromtimestamp((now.decided_ns or 0) // 10**9, UTC).isoformat()
        return f"it was {now.state.value} already, on {on}; a request is decided once"
    return ""
