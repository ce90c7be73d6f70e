"""One attempt into a bucket of any S3-compatible object store. Needs the extra (`pip install 'mcilib[s3]'`).

    <prefix>/batches/<batch id>.mcib      the bytes as they were sealed
    <prefix>/control/<record id>.json     what the operator is asked to do

Keys are ids alone and are created only where nothing is yet (`If-None-Match: *`), so a resend is a duplicate and
never a second object. Acknowledged is durable: that is the store's promise.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mcilib import __version__, limits
from mcilib.delivery._answers import is_loopback
from mcilib.delivery.control import is_id
from mcilib.delivery.retry import outcome_of_status
from mcilib.errors import ConfigError, DeliveryError
from mcilib.protocols import ControlRecord, Outcome, Receipt, ReceiptStatus, Reply, SealedBatch

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Credential, S3Store

AT_ONCE = 8
"""Requests under way together: one takes some 30 ms, and weeks of batches may wait."""

SEND_TIMEOUTS = 2
"""Times `timeout_s` after which a send begins no further object, which takes two requests at most."""

_PROBE = "writable"
"""The key of an empty object, put to see whether one may."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")

_BY_CODE: Mapping[str, Outcome] = MappingProxyType(
    dict.fromkeys(
        ("BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"), Outcome.RETRY
    )
)
"""Answers 400 that are not about us: something broke on the way."""

_WORDS: Mapping[int, str] = MappingProxyType(
    {
        401: "does not accept the credentials",
        403: "does not allow these credentials to write",
        404: "does not exist",
        501: "cannot create without overwriting (If-None-Match)",
    }
)
_UNREACHABLE = "cannot be reached"
_BY_KIND: Mapping[str, str] = MappingProxyType(
    {
        "Connect": _UNREACHABLE,
        "Timeout": "did not answer in time",
        **dict.fromkeys(("Interrupted", "Request", "Unknown"), "broke off before it had answered"),
    }
)
"""How obstore (reqwest) calls what went wrong without an answer."""
_STATUS = re.compile(r"status code: (\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_KIND = re.compile(r"\bkind: (\w+)")


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """What requests are signed with."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    """Of temporary credentials."""


class ObjectStoreTransport:
    """Implements `mcilib.protocols.Transport`. Used by one thread at a time; opens nothing before the first send.

    `url` is `s3://BUCKET` or `s3://BUCKET/PREFIX`; `endpoint` is the address of the store (https, or http on
    loopback), AWS's for `region` if it is None. `credentials` may be a callable: asked before each send, so that
    they may change while this runs. They need the right to put objects; with the right to get them too, an id
    that is there with other bytes is told from a resend. Nothing is read from the environment but proxies.
    `ca_file` (PEM) is trusted beside the system's certificates. `timeout_s` (seconds, above 0) bounds each
    request; a send takes at most four times as long, what it has not begun by then has no receipt.

    The constructor raises `ConfigError` (obstore is missing, a timeout of 0) and `DeliveryError` (address, file of
    certificates); afterwards nothing is raised. With no batches at all `send` tries whether the bucket can be
    written, with an empty object `writable`.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: S3Credentials | Callable[[], S3Credentials],
        endpoint: str | None = None,
        region: str = "us-east-1",
        ca_file: str | os.PathLike[str] | None = None,
        timeout_s: float = limits.REQUEST_TIMEOUT_S,
    ) -> None:
        if not timeout_s > 0:
            raise ConfigError(f"timeout_s is {timeout_s}", "Give a number of seconds above 0.")
        self._bucket, self._prefix = _parse(url)
        self._address = _checked(endpoint or f"https://s3.{region}.amazonaws.com")
        self._region, self._credentials, self._timeout_s = region, credentials, timeout_s
        self._authority = None if ca_file is None else _certificates(ca_file)
        self._opened: tuple[S3Credentials, S3Store] | None = None
        try:
            import obstore  # noqa: F401  (told now, not at the first upload)
        except ModuleNotFoundError:
            raise ConfigError("obstore is not installed", "Run: pip install 'mcilib[s3]'") from None

    @property
    def endpoint(self) -> str:
        """As an address: `s3://bucket/prefix`."""
        return f"s3://{self._bucket}" + (f"/{self._prefix}" if self._prefix else "")

    @property
    def is_local(self) -> bool:
        """Whether the store is on this machine."""
        return is_loopback(urlsplit(self._address).hostname or "")

    def __repr__(self) -> str:
        return f"ObjectStoreTransport({self.endpoint!r})"

    def send(self, batches: Sequence[SealedBatch], /) -> Reply:
        """An object for each batch. Receipts: `stored`, `duplicate`, `rejected` (other bytes are there, or it is
        too large); none for what was not reached, which is at most `timeout_s` after the first failure."""
        if not batches:
            return replace(self._put([(_PROBE, _PROBE, b"")]), receipts={})
        return self._put([(b.batch_id, f"batches/{b.batch_id}.mcib", b.data) for b in batches])

    def send_control(self, records: Sequence[ControlRecord], /) -> Reply:
        """As `send`, by record id: a receipt says that the record lies there for the operator."""
        return self._put([(r.record_id, f"control/{r.record_id}.json", r.data) for r in records])

    def close(self) -> None:
        """Ends the connections. May be called twice; a later send opens new ones."""
        self._opened = None

    # --- objects --------------------------------------------------------------------------------------------

    def _put(self, items: Sequence[tuple[str, str, bytes]]) -> Reply:
        """Of (id, key, bytes), several at a time, until one fails in a way that the others would too."""
        try:
            bucket = self._open()
        except Exception as error:  # the host's own code, or settings that obstore does not take
            return Reply(Outcome.REFUSED, detail=f"the credentials cannot be used ({type(error).__name__})")
        sending = _Sending(bucket, iter(items), time.monotonic() + SEND_TIMEOUTS * self._timeout_s)
        # Ordinary threads, since those of a pool are waited for at the interpreter's end.
        helpers = [threading.Thread(target=sending.work, daemon=True) for _ in items[1:AT_ONCE]]
        for helper in helpers:
            helper.start()
        sending.work()
        for helper in helpers:
            helper.join()
        outcome, detail = Outcome.DELIVERED, f"written to {self._where}"
        if sending.trouble is not None:
            outcome, words = sending.trouble
            detail = f"{self._where} {words}"
        if sending.receipts:
            # What was done before the trouble is settled; the rest meets it at the next attempt.
            outcome = Outcome.DELIVERED
        return Reply(outcome, sending.receipts, detail=detail, bytes_sent=sending.bytes_sent)

    @property
    def _where(self) -> str:
        return f"the bucket {self._bucket} at {urlsplit(self._address).netloc}"

    def _open(self) -> S3Store:
        credentials = self._credentials() if callable(self._credentials) else self._credentials
        if self._opened is None or self._opened[0] != credentials:
            self._opened = (credentials, self._store(credentials))
        return self._opened[1]

    def _store(self, credentials: S3Credentials) -> S3Store:
        from obstore.store import S3Store

        signed_with: S3Credential = {
            "access_key_id": credentials.access_key_id,
            "secret_access_key": credentials.secret_access_key,
            "token": credentials.session_token,
            "expires_at": None,
        }
        client: ClientConfig = {
            "allow_http": self._address.startswith("http:"),
            "timeout": timedelta(seconds=self._timeout_s),
            "connect_timeout": timedelta(seconds=self._timeout_s),
            "user_agent": f"mcilib/{__version__}",
        }
        if self._authority is not None:
            client["root_certificate"] = self._authority
        return S3Store(
            self._bucket,
            prefix=self._prefix or None,
            config={  # obstore takes from the environment what is not said here
                "endpoint": self._address,
                "aws_endpoint_url_s3": self._address,
                "region": self._region,
                "conditional_put": "etag",
                "skip_signature": False,
                "virtual_hosted_style_request": False,
            },
            credential_provider=lambda: signed_with,
            client_options=client,
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=self._timeout_s)},
        )


class _Contended(Exception):
    """There is an object, and there is none: try again."""


class _Sending:
    """One send, shared by the threads that carry it out."""

    def __init__(self, bucket: S3Store, items: Iterator[tuple[str, str, bytes]], end_s: float) -> None:
        self.receipts: dict[str, Receipt] = {}
        self.trouble: tuple[Outcome, str] | None = None
        self.bytes_sent = 0
        self._bucket, self._items, self._end_s = bucket, items, end_s
        self._lock = threading.Lock()

    def work(self) -> None:
        while (item := self._next()) is not None:
            entry_id, key, data = item
            receipt, trouble, sent = None, None, True
            try:
                if is_id(entry_id) or key == _PROBE:
                    receipt = self._create(entry_id, key, data)
                else:
                    reason, sent = "its id is not 32 hex digits", False
                    receipt = Receipt(entry_id, ReceiptStatus.REJECTED, reason)
            except Exception as error:  # whatever obstore, the network or a strange server brings
                outcome, words = meaning_of(error)
                sent = words != _UNREACHABLE
                if outcome is Outcome.BAD_BATCH:
                    receipt = Receipt(entry_id, ReceiptStatus.REJECTED, words)
                else:
                    trouble = outcome, words
            with self._lock:
                self.bytes_sent += len(data) if sent else 0
                self.trouble = self.trouble or trouble
                if receipt is not None:
                    self.receipts[entry_id] = receipt

    def _next(self) -> tuple[str, str, bytes] | None:
        with self._lock:
            if self.trouble is not None:
                return None
            item = next(self._items, None)
            if item is not None and time.monotonic() > self._end_s:
                self.trouble = Outcome.RETRY, "did not take everything in time"
                return None
            return item

    def _create(self, entry_id: str, key: str, data: bytes) -> Receipt:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PermissionDeniedError

        try:
            obstore.put(self._bucket, key, data, mode="create", use_multipart=False)
            return Receipt(entry_id, ReceiptStatus.STORED)
        except AlreadyExistsError:
            pass
        try:
            same = obstore.get(self._bucket, key).bytes() == data
        except PermissionDeniedError:  # credentials that may only write: an id is random and comes once
            same = True
        except FileNotFoundError:  # removed just now, or not yet written by another sender
            raise _Contended from None
        if same:
            return Receipt(entry_id, ReceiptStatus.DUPLICATE)
        return Receipt(entry_id, ReceiptStatus.REJECTED, "this id lies there already with other bytes")


def meaning_of(error: BaseException) -> tuple[Outcome, str]:
    """The outcome of an error of obstore, and words that follow the name of the bucket.

    Only the status, S3's own code for it and the kind of failure are taken from its text: the rest may repeat
    keys and parts of a signature.
    """
    if isinstance(error, _Contended):
        return Outcome.RETRY, "was written to by somebody else just now"
    text = str(error)
    if status := _STATUS.search(text):
        code = _CODE.search(text)
        return _meaning_of_status(int(status[1]), code[1] if code else "")
    if "without LOCATION" in text:  # how AWS answers at the address of another region
        return Outcome.REFUSED, "is in another region"
    if "ETag Header missing" in text:
        return Outcome.NOT_OUR_SERVER, "answered like a web page, not like an object store"
    if "InvalidCertificate(" in text:
        return Outcome.REFUSED, "has a certificate that is not trusted"
    kind = _KIND.search(text)
    words = _BY_KIND.get(kind[1]) if kind else None
    return Outcome.RETRY, words or f"cannot be used ({type(error).__name__})"


def _meaning_of_status(status: int, code: str) -> tuple[Outcome, str]:
    number = f"({status} {code})" if code else f"({status})"
    outcome = outcome_of_status(status)
    if status == 413 or code == "EntityTooLarge":
        return Outcome.BAD_BATCH, f"it is too large {number}"
    if code in _BY_CODE:
        outcome = _BY_CODE[code]
    elif outcome is Outcome.BAD_BATCH or status == 501 or 300 <= status < 400:
        # S3 says 400 about credentials and settings, never about what is in an object.
        outcome = Outcome.REFUSED
    elif outcome is Outcome.GONE:
        outcome = Outcome.RETRY  # no store knows about the programme
    words = _WORDS.get(status, "refused the object" if status < 500 else "is busy or broken")
    return outcome, f"{words} {number}"


# --- what the constructor is given ----------------------------------------------------------------------------


def _parse(url: str) -> tuple[str, str]:
    """Bucket and prefix."""
    example = "Give an address like s3://bucket/prefix."
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket):
        raise DeliveryError("The endpoint names no bucket", example)
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise DeliveryError("The prefix in the endpoint is no plain path", example)
    return bucket, prefix


def _checked(address: str) -> str:
    try:
        url = urlsplit(address)
        plain = url.scheme in ("https", "http") and bool(url.hostname) and url.port != 0
    except ValueError:
        plain = False
    if not plain or not address.isascii() or not address.isprintable() or url.username or url.password:
        raise DeliveryError(
            "The address of the object store is not an https address", "Give one like https://s3.example.org."
        )
    if url.query or url.fragment:
        raise DeliveryError(
            "The address of the object store has a query or fragment", "Give one like https://s3.example.org."
        )
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise DeliveryError(
            f"The object store {address!r} is plain HTTP on another machine",
            "Use https: plain HTTP is for loopback only.",
        )
    return address.rstrip("/")


def _certificates(ca_file: str | os.PathLike[str]) -> bytes:
    from mcilib.delivery._connection import trusting  # imports ssl

    trusting(ca_file)  # raises for what holds none
    return Path(ca_file).read_bytes()
