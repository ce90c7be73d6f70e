"""What an attempt came to, and when the next one is due. Pure: time and randomness are arguments.

The outcome table::

    status or error                        outcome          what becomes of the batches
    -------------------------------------  ---------------  -------------------------------------------------
    2xx with receipts                      DELIVERED        what a receipt names leaves the device
    2xx without receipts, 3xx              NOT_OUR_SERVER   kept; back off (portal, proxy page)
    400 413 415 422                        BAD_BATCH        sent alone, then kept in bad/ and counted
    401 403 404 405 407, bad certificate   REFUSED          kept; told once; tried again at the cap
    408 409 425 429, 5xx                   RETRY            kept; back off, Retry-After is a minimum
    410                                    GONE             kept; nothing is sent any more
    other 4xx, and anything else           RETRY            kept: nobody said that the batches are bad
    no connection, reset, timeout          RETRY            kept; back off
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from random import Random
from types import MappingProxyType

from mcilib import limits
from mcilib.protocols import Outcome

#: Statuses with an outcome of their own; the others go by their hundred, see `outcome_of_status`.
STATUS_OUTCOMES: Mapping[int, Outcome] = MappingProxyType(
    dict.fromkeys((400, 413, 415, 422), Outcome.BAD_BATCH)
    | dict.fromkeys((401, 403, 404, 405, 407), Outcome.REFUSED)
    | {410: Outcome.GONE}
)
_HUNDRED_OUTCOMES = {2: Outcome.DELIVERED, 3: Outcome.NOT_OUR_SERVER}

#: Errors by the name of their class (or of a base class), the nearest first; all others are RETRY.
ERROR_OUTCOMES: Mapping[str, Outcome] = MappingProxyType(
    {"SSLCertVerificationError": Outcome.REFUSED, "CertificateError": Outcome.REFUSED}
)

_SECOND_NS = 1_000_000_000


def outcome_of_status(status: int) -> Outcome:
    """The outcome of an HTTP status. For 2xx it is DELIVERED only if the answer has receipts (`http`)."""
    return STATUS_OUTCOMES.get(status) or _HUNDRED_OUTCOMES.get(status // 100, Outcome.RETRY)


def outcome_of_error(error: BaseException) -> Outcome:
    """The outcome of an error of the operating system or of TLS, before any wrapping by a library."""
    for cls in type(error).__mro__:
        if cls.__name__ in ERROR_OUTCOMES:
            return ERROR_OUTCOMES[cls.__name__]
    return Outcome.RETRY


def retry_after_s(retry_after: str | None, date: str | None, wall_s: float) -> float:
    """Seconds that a server asks to wait, within 0 and 24 h; 0 when it does not say or is not understood.

    Both forms of RFC 9110: seconds, or a date, which is compared with the response's own `Date`, so that a
    wrong clock on this device changes nothing. `wall_s` (Unix time) stands in for a missing `Date`.
    """
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        # More than ten digits are more than three centuries, and may be more than int() accepts.
        asked_s = float(int(text)) if len(text) <= 10 else limits.RETRY_AFTER_CAP_S
    else:
        until_s, now_s = _http_date_s(text), _http_date_s(date or "")
        if until_s is None:
            return 0.0
        asked_s = until_s - (wall_s if now_s is None else now_s)
    return min(max(asked_s, 0.0), limits.RETRY_AFTER_CAP_S)


def _http_date_s(text: str) -> float | None:
    from email.utils import parsedate_to_datetime  # not needed until a server sends one

    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def backoff_s(failures: int, random: Random) -> float:
    """U(0, min(4 h, 30 s * 2^failures)): full jitter, so that a fleet comes back spread out.

    `failures` counts failed uploads in a row, 1 after the first. Full jitter: "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015.
    """
    doublings = min(max(failures, 0), 32)
    return random.uniform(0.0, min(limits.BACKOFF_CAP_S, limits.BACKOFF_FIRST_S * 2**doublings))


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the next upload is due. Times are monotonic nanoseconds; each transition gives a new value."""

    next_attempt_ns: int | None = 0
    """None: never (the programme has ended)."""
    not_before_ns: int = 0
    """The server's word: holds for a flush too."""
    failures: int = 0
    """Uploads in a row that did not deliver."""

    @classmethod
    def first(cls, now_ns: int, *, waiting: bool, interval_s: float, random: Random) -> Schedule:
        """At start: what an earlier run left goes out soon, at a random moment; else after one interval."""
        return (
            cls(next_attempt_ns=now_ns).woken(now_ns, interval_s, random)
            if waiting
            else cls(next_attempt_ns=now_ns + _ns(interval_s))
        )

    def after(
        self, outcome: Outcome, now_ns: int, *, interval_s: float, random: Random, retry_after_s: float = 0.0
    ) -> Schedule:
        """The schedule after an upload came to `outcome`; `retry_after_s` is a minimum, whatever it was."""
        not_before_ns = now_ns + _ns(retry_after_s)
        if outcome is Outcome.GONE:
            return Schedule(None, not_before_ns, self.failures)
        if outcome in (Outcome.DELIVERED, Outcome.BAD_BATCH):  # the bad ones are out of the way
            failures, wait_s = 0, interval_s
        elif outcome is Outcome.REFUSED:
            failures, wait_s = self.failures + 1, limits.BACKOFF_CAP_S
        else:
            failures = self.failures + 1
            wait_s = backoff_s(failures, random)
        return Schedule(max(now_ns + _ns(wait_s), not_before_ns), not_before_ns, failures)

    def held(self, now_ns: int, *, interval_s: float) -> Schedule:
        """Nothing may be sent now (consent, plan): asked again after one interval; no failure."""
        return replace(self, next_attempt_ns=max(now_ns + _ns(interval_s), self.not_before_ns))

    def woken(self, now_ns: int, interval_s: float, random: Random) -> Schedule:
        """Something waits again. An upload that was due meanwhile comes at a random moment soon, since a
        whole office may wake at once; one that is not due yet stays where it is."""
        if self.next_attempt_ns is None or self.next_attempt_ns > now_ns:
            return self
        soon_s = random.uniform(0.0, min(limits.UPLOAD_START_JITTER_S, interval_s))
        return replace(self, next_attempt_ns=max(now_ns + _ns(soon_s), self.not_before_ns))

    def wait_s(self, now_ns: int) -> float | None:
        """Seconds until the next attempt, 0 when it is due, None for never."""
        if self.next_attempt_ns is None:
            return None
        return max(0, self.next_attempt_ns - now_ns) / _SECOND_NS


def _ns(seconds: float) -> int:
    return int(min(seconds, 1e9) * _SECOND_NS)
