"""What an attempt came to, and when the next one is due. Pure: time and randomness are arguments.

`OUTCOME_TABLE` is the one table of outcomes. `docs/reference/delivery.md` shows it, and a test holds the two
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from random import Random
from types import MappingProxyType

from mcilib import limits
from mcilib.protocols import Outcome


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    answer: str
    """What came back, for people."""
    outcome: Outcome
    batches: str
    """What becomes of the batches that were sent."""
    next_attempt: str
    counter: str = "none"
    """Of the spool: what it adds to."""
    statuses: tuple[int, ...] = ()
    hundreds: tuple[int, ...] = ()
    """Statuses by their first digit, where no row names them."""
    errors: tuple[str, ...] = ()
    """Errors by the name of their class or of a base class."""


_BACK_OFF = "`U(0, min(4 h, max(30 s, 0.75 * interval_s) * 2^n))` after the n-th failed upload in a row"

OUTCOME_TABLE = (
    Rule(
        "2xx with receipts", Outcome.DELIVERED,
        "`stored`, `duplicate`: removed; `rejected`: to `bad/`, or removed when the reason is `deleted`; "
        "without a receipt: kept, as RETRY",
        "after `interval_s`", "`delivered_batches`; `lost.rejected`, `lost.purged`", hundreds=(2,),
    ),
    Rule(
        "2xx without receipts, 3xx", Outcome.NOT_OUR_SERVER, "kept (a portal, a proxy's page)", _BACK_OFF,
        hundreds=(3,),
    ),
    Rule(
        "400, 413, 415, 422", Outcome.BAD_BATCH,
        "sent in halves until the bad one is alone: that one to `bad/`; from the third in a row on "
        "they are kept, as REFUSED, until one is taken. With a `Retry-After`: kept, as RETRY",
        "after `interval_s`", "`lost.rejected`", statuses=(400, 413, 415, 422),
    ),
    Rule(
        "401, 403, 404, 405, 407, a bad certificate of either side (nginx: 400)", Outcome.REFUSED,
        "kept; the host is told once", "`U(2 h, 4 h)`; after a restart within `interval_s`",
        statuses=(401, 403, 404, 405, 407), errors=("SSLCertVerificationError", "CertificateError"),
    ),
    Rule("410", Outcome.GONE, "kept", "never; after a restart a day later", statuses=(410,)),
    Rule("408, 409, 425, 429, 5xx", Outcome.RETRY, "kept", _BACK_OFF, statuses=(408, 409, 425, 429), hundreds=(5,)),
    Rule("any other status", Outcome.RETRY, "kept: nobody said that they are bad", _BACK_OFF),
    Rule("no connection, reset, time-out, no HTTP", Outcome.RETRY, "kept", _BACK_OFF),
)  # fmt: skip

_BY_STATUS: Mapping[int, Outcome] = MappingProxyType(
    {status: rule.outcome for rule in OUTCOME_TABLE for status in rule.statuses}
)
_BY_HUNDRED: Mapping[int, Outcome] = MappingProxyType(
    {hundred: rule.outcome for rule in OUTCOME_TABLE for hundred in rule.hundreds}
)
_BY_ERROR: Mapping[str, Outcome] = MappingProxyType(
    {error: rule.outcome for rule in OUTCOME_TABLE for error in rule.errors}
)

_SECOND_NS = 1_000_000_000
_HOUR_S = 3_600.0


def outcome_of_status(status: int) -> Outcome:
    """The outcome of an HTTP status. For 2xx it is DELIVERED only if the answer has receipts (`http`)."""
    return _BY_STATUS.get(status) or _BY_HUNDRED.get(status // 100, Outcome.RETRY)


def outcome_of_error(error: BaseException) -> Outcome:
    """The outcome of an error of the operating system or of TLS, before any wrapping by a library."""
    for cls in type(error).__mro__:
        if cls.__name__ in _BY_ERROR:
            return _BY_ERROR[cls.__name__]
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


def backoff_s(failures: int, interval_s: float, random: Random) -> float:
    """U(0, min(4 h, max(30 s, 0.75 * interval_s) * 2^failures)): full jitter, so that a fleet comes back spread out.

    `failures` counts failed uploads in a row, 1 after the first. Full jitter: "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015; why it begins with the interval: docs/decisions/0015-delivery.md.
    """
    doublings = min(max(failures, 0), 32)
    first_s = max(limits.BACKOFF_FIRST_S, limits.BACKOFF_INTERVAL_RATIO * interval_s)
    return random.uniform(0.0, min(limits.BACKOFF_CAP_S, first_s * 2**doublings))


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the next upload is due, and what an endpoint has said so far. Times are monotonic nanoseconds; each
    transition gives a new value.

    Whatever may happen to a whole fleet in one second (an outage ends, an office starts work, a server names
    the hour) is followed by a moment that each device draws for itself.
    """

    next_attempt_ns: int | None = 0
    """None: never (the programme has ended)."""
    not_before_ns: int = 0
    """The server's word: holds for a flush too."""
    failures: int = 0
    """Uploads in a row that delivered nothing."""
    outcome: Outcome | None = None
    """Of the last upload."""
    rejects_in_a_row: int = 0
    """Batches in a row that were refused as bad."""

    @classmethod
    def first(cls, now_ns: int, *, interval_s: float, random: Random) -> Schedule:
        """At the first start: at a random moment within one interval."""
        return cls(next_attempt_ns=now_ns + _ns(random.uniform(0.0, interval_s)))

    def after(
        self,
        outcome: Outcome,
        now_ns: int,
        *,
        interval_s: float,
        random: Random,
        retry_after_s: float = 0.0,
        progress: bool = False,
    ) -> Schedule:
        """The schedule after an upload came to `outcome`; `retry_after_s` is a minimum, whatever it was.

        `progress`: something was delivered before that, so that failures count anew.
        """
        not_before_ns = now_ns + _ns(retry_after_s)
        failures = 1 if progress else self.failures + 1
        next_ns: int | None
        if outcome is Outcome.GONE:
            failures, next_ns = self.failures, None
        else:
            if outcome in (Outcome.DELIVERED, Outcome.BAD_BATCH):  # the bad ones are out of the way
                failures, wait_s = 0, interval_s
            elif outcome is Outcome.REFUSED:
                wait_s = random.uniform(limits.BACKOFF_CAP_S / 2, limits.BACKOFF_CAP_S)
            else:
                wait_s = backoff_s(failures, interval_s, random)
            if retry_after_s > 0:  # it may tell the same to all: they come spread over as long again
                asked_s = retry_after_s + random.uniform(0.0, min(interval_s, retry_after_s))
                wait_s = max(wait_s, asked_s)
            next_ns = now_ns + _ns(wait_s)
        return replace(
            self, next_attempt_ns=next_ns, not_before_ns=not_before_ns, failures=failures, outcome=outcome
        )

    def held(self, now_ns: int, *, interval_s: float) -> Schedule:
        """Nothing may be sent now (consent, plan): asked again after one interval; no failure."""
        return replace(self, next_attempt_ns=max(now_ns + _ns(interval_s), self.not_before_ns))

    def woken(self, now_ns: int, interval_s: float, random: Random) -> Schedule:
        """Something waits again. An upload that was due meanwhile comes at a random moment within one
        interval, since a whole office may wake at once; one that is not due yet stays where it is."""
        if self.next_attempt_ns is None or self.next_attempt_ns > now_ns:
            return self
        return self._within(now_ns, interval_s, random)

    def hastened(self, now_ns: int, interval_s: float, random: Random) -> Schedule:
        """What stood in the way has gone (network, mains): at a random moment within one interval, if that is
        sooner."""
        soon = self._within(now_ns, interval_s, random)
        if self.next_attempt_ns is None or soon.next_attempt_ns is None:
            return self
        return replace(self, next_attempt_ns=min(self.next_attempt_ns, soon.next_attempt_ns))

    def _within(self, now_ns: int, interval_s: float, random: Random) -> Schedule:
        soon_ns = max(now_ns, self.not_before_ns) + _ns(random.uniform(0.0, interval_s))
        return replace(self, next_attempt_ns=soon_ns)

    def wait_s(self, now_ns: int) -> float | None:
        """Seconds until the next attempt, 0 when it is due, None for never."""
        if self.next_attempt_ns is None:
            return None
        return max(0, self.next_attempt_ns - now_ns) / _SECOND_NS


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests of the last hour: how many more may be made now, and how large. Each change is a new value."""

    requests: tuple[tuple[int, int], ...] = ()
    """(monotonic ns, bytes), oldest first."""

    def noted(self, now_ns: int, size_bytes: int) -> Traffic:
        since_ns = now_ns - _ns(max(_HOUR_S, limits.REQUEST_WINDOW_S))
        return Traffic((*(r for r in self.requests if r[0] > since_ns), (now_ns, size_bytes)))

    def wait_s(self, now_ns: int) -> float:
        """Until one more request keeps within 15 in 60 s."""
        if len(self.requests) < limits.REQUESTS_PER_WINDOW:
            return 0.0
        at_ns, _ = self.requests[-limits.REQUESTS_PER_WINDOW]
        return max(0, at_ns + _ns(limits.REQUEST_WINDOW_S) - now_ns) / _SECOND_NS

    def bytes_last_hour(self, now_ns: int) -> int:
        return sum(size for at_ns, size in self.requests if at_ns > now_ns - _ns(_HOUR_S))


class RetryBudget:
    """How many attempts after the first are left: 3 at once, and one more for each ten requests.

    In an outage each device then adds a tenth to the load and not the double of it. One thread at a time.
    """

    def __init__(self) -> None:
        self._left = float(limits.RETRY_BUDGET_BURST)

    def request(self) -> None:
        """A first attempt is made."""
        self._left = min(limits.RETRY_BUDGET_BURST, self._left + limits.RETRY_BUDGET_RATIO)

    def take(self) -> bool:
        """Whether one more attempt may be made; it is then counted."""
        if self._left < 1 - 1e-9:
            return False
        self._left -= 1
        return True


def _ns(seconds: float) -> int:
    return int(min(seconds, 1e9) * _SECOND_NS)
