"""What an address, an answer or an error of the network means. Pure; nothing from outside is trusted."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from mcilib.consent.exemption import plain
from mcilib.delivery.control import APPROVED, DENIED, PENDING, UNDECIDABLE
from mcilib.errors import DeliveryError
from mcilib.protocols import Outcome, Receipt, ReceiptStatus

_DECISIONS = (PENDING, APPROVED, DENIED, *UNDECIDABLE)

NOT_OURS = "{} answered like a web page, not like an mcilib receiver"

_REFUSALS = {
    401: "does not accept the token (401)",
    403: "does not allow this device to send (403)",
    404: "has no mcilib receiver at this address (404)",
    405: "has no mcilib receiver at this address (405)",
    407: "is behind a proxy that asks for credentials (407)",
    410: "says that the programme has ended (410)",
    413: "says that the request is too large (413)",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked address."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Raises `DeliveryError`, whose message never repeats user information."""
        example = "Give an address like https://collect.example.org."
        if not text.isascii() or not text.isprintable() or " " in text:
            raise DeliveryError("The endpoint has characters that an address cannot have", example)
        try:
            url = urlsplit(text)
            host, port = url.hostname, url.port
            (host or "").encode("idna")  # as the look-up will: refuses labels that are empty or too long
        except ValueError:
            raise DeliveryError("The endpoint is not an address", example) from None
        if url.username is not None or url.password is not None:
            raise DeliveryError("The endpoint has a user name or password in it", "Use a token instead.")
        if url.scheme not in ("https", "http") or not host:
            raise DeliveryError(f"The endpoint {text!r} is not an https address", example)
        if url.query or url.fragment:
            raise DeliveryError(f"The endpoint {text!r} has a query or fragment", example)
        if url.scheme == "http" and not is_loopback(host):
            raise DeliveryError(
                f"The endpoint {text!r} is plain HTTP to another machine",
                "Use https: plain HTTP is for loopback only.",
            )
        secure = url.scheme == "https"
        return cls(secure, host, port or (443 if secure else 80), url.path.rstrip("/"))

    @property
    def place(self) -> str:
        """`host:port`, for people."""
        return place_of(self.host, self.port)

    @property
    def url(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.place}{self.path}"


def place_of(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address; nothing is looked up."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def receipts_of(body: bytes | None, sent: Sequence[str], member: str = "batch") -> dict[str, Receipt] | None:
    """The receipts for what was sent, in that order; None when the answer is not one of ours. `member` is where a
    receipt has the id: `batch` or `record`.

    A receipt that is malformed, that names another batch or that contradicts another one does not count. One
    with an empty id is for a frame whose header the receiver cannot read: its place says which, if there is
    one receipt per batch, and it can only reject.
    """
    answer = _json_object(body)
    entries = answer.get("receipts")
    if not isinstance(entries, list):
        return None
    receipts: dict[str, Receipt] = {}
    contradicted = set()
    for place, entry in enumerate(entries):
        receipt = _receipt_of(entry, member)
        if receipt is None:
            continue
        if not receipt.batch_id and len(entries) == len(sent) and receipt.status is ReceiptStatus.REJECTED:
            receipt = replace(receipt, batch_id=sent[place])
        if receipt.batch_id not in sent:
            continue
        other = receipts.setdefault(receipt.batch_id, receipt)
        if (other.status, other.decision) != (receipt.status, receipt.decision):
            contradicted.add(receipt.batch_id)
    return {batch_id: receipt for batch_id, receipt in receipts.items() if batch_id not in contradicted}


def _receipt_of(entry: object, member: str) -> Receipt | None:
    if not isinstance(entry, dict):
        return None
    batch_id, status, reason = entry.get(member), entry.get("status"), entry.get("reason", "")
    if not isinstance(batch_id, str) or not isinstance(reason, str):
        return None
    try:
        receipt = Receipt(batch_id, ReceiptStatus(status), _printable(reason))
    except ValueError:
        return None
    return _decided(receipt, entry) if member == "record" and "decision" in entry else receipt


def _decided(receipt: Receipt, entry: dict[str, Any]) -> Receipt:
    """With the decision, if it is one; a word that is not known here (yet) decides nothing."""
    decision, decided_ns, answer = (entry.get(name) for name in ("decision", "decided_ns", "answer"))
    if decision not in (APPROVED, DENIED):
        return replace(receipt, decision=decision if decision in _DECISIONS else PENDING)
    return replace(
        receipt,
        decision=decision,
        decided_ns=decided_ns if type(decided_ns) is int and 0 <= decided_ns < 2**63 else None,
        answer=plain(answer) if isinstance(answer, str) else "",
    )


def health_of(body: bytes | None) -> tuple[str, int | None] | None:
    """(version, time in ns) out of a receiver's answer to a health request; None when it is not one."""
    answer = _json_object(body)
    if answer.get("service") != "mcilib-receiver":
        return None
    time_ns = answer.get("time_ns")
    return _printable(str(answer.get("version", ""))), time_ns if type(time_ns) is int else None


def _json_object(body: bytes | None) -> dict[str, Any]:
    """Empty when the body is anything else."""
    try:
        answer = json.loads(body or b"")
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _printable(text: str) -> str:
    return "".join(c for c in text[:200] if c.isprintable())


def outcome_words(status: int, outcome: Outcome, place: str) -> str:
    """One line for an answer with this status; the server's own words are not repeated."""
    if outcome is Outcome.DELIVERED:
        return f"{place} answered {status}"
    if outcome is Outcome.NOT_OUR_SERVER:
        return NOT_OURS.format(place) + (f" ({status})" if status >= 300 else "")
    if status in _REFUSALS:
        return f"{place} {_REFUSALS[status]}"
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return f"{place} answered {status}{phrase}"


def root_of(error: BaseException) -> BaseException:
    """The error of the system or of TLS that a library wrapped."""
    for _ in range(10):
        inner = error.__cause__ or next((a for a in error.args if isinstance(a, BaseException)), None)
        if inner is None:
            break
        error = inner
    return error


def words_of(error: BaseException, place: str, timeout_s: float) -> str:
    """One line for an error without an answer."""
    name = type(error).__name__
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused by {place}"
    if isinstance(error, socket.gaierror):
        return f"the name of {place} cannot be found"
    if isinstance(error, TimeoutError):
        return f"{place} did not answer within {timeout_s:g} s"
    if name == "SSLCertVerificationError":
        why = getattr(error, "verify_message", "") or "it cannot be verified"
        return f"the certificate of {place} is not trusted ({_printable(why).rstrip('.')})"
    if name.startswith("SSL"):
        why = (getattr(error, "reason", None) or name).replace("_", " ").lower()
        return f"no secure connection to {place} ({_printable(why)})"
    if isinstance(error, ConnectionError) or name in ("IncompleteRead", "RemoteDisconnected"):
        return f"{place} closed the connection before it had answered"
    if isinstance(error, OSError) and error.strerror:
        return f"{place} cannot be reached ({error.strerror})"
    return f"{place} did not answer in HTTP ({name})"
