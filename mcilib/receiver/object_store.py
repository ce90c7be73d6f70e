"""A store in a bucket of any S3-compatible server (or whatever else obstore reaches), which many receivers share.

Keys are those of `store`, below a prefix. Needs the extra (`pip install 'mcilib[s3]'`) and a server that
refuses a second object under a key (`If-None-Match: *`) and lists what it has acknowledged.

There are no locks there. An upload first leaves a note of what it is about to do::

    pending/<participant>/<random>      batch ids, one a line

and removes it when it has succeeded; what failed may still arrive. A deletion writes its tombstones and then
waits until no note is left: an upload that notes itself later sees the tombstones. A note older than `LEASE_S`
is of an upload that failed or died; none gives a receipt after half of that.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from mcilib.errors import ConfigError, StoreError
from mcilib.receiver.store import KeyedStore, Steps

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

REQUESTS_AT_ONCE = 16
"""To the object store, for one upload: answers take some 1 to 50 ms."""

REQUEST_TIMEOUT, RETRY_TIMEOUT = timedelta(seconds=10), timedelta(seconds=20)
"""For one request to the object store, and for all its repetitions. Far below `LEASE_S`."""

LEASE_S = 300.0
"""How long an upload may be under way; so long a deletion waits for one whose receiver has died."""

PENDING_WAIT_S = 0.1
"""Between two looks whether uploads have ended."""

_ARGUMENT = TypeVar("_ARGUMENT")
_RESULT = TypeVar("_RESULT")


class ObjectStore(KeyedStore):
    """A `BatchStore` in a bucket: `url` is `s3://BUCKET/PREFIX`, or a store made with obstore.

    With a URL, endpoint, region and credentials come from the environment as AWS's own tools read it
    (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`; plain HTTP needs
    `AWS_ALLOW_HTTP=true`). `today` gives the date of receipt (use UTC). Raises `ConfigError` (the URL, obstore
    is missing) and `StoreError` (the bucket cannot be written, or takes a second object under a key). Any thread.
    """

    def __init__(self, url: str | Bucket, *, today: Callable[[], date], lease_s: float = LEASE_S) -> None:
        super().__init__(today)
        try:
            import obstore
            from obstore.exceptions import AlreadyExistsError, BaseError
        except ModuleNotFoundError as error:
            raise ConfigError(
                "An object store needs obstore, which is not installed", "Run: pip install 'mcilib[s3]'"
            ) from error
        self._obstore: Any = obstore
        self._exists, self._errors = AlreadyExistsError, BaseError
        self._lease_s = lease_s
        self._bucket = _open(url) if isinstance(url, str) else url
        self._where = url if isinstance(url, str) else type(url).__name__
        with self._guarded():
            key = f"probe/{uuid.uuid4().hex}"
            new = [self._create((key, b"probe\n")) for _ in range(2)]
            if new != [True, False]:
                raise StoreError(
                    f"The object store {self._where} takes a second object under one key",
                    "Use one that knows conditional writes (If-None-Match): without them nothing is kept once.",
                )
            self._remove([key])

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (self._errors, OSError) as error:
            line = str(error).partition("\n")[0][:200]
            raise StoreError(
                f"The object store {self._where} cannot be used: {type(error).__name__}: {line}",
                "Check that it runs, its address and its credentials; senders keep their batches and try again.",
            ) from error

    # --- what is there ---

    def _read(self, keys: Sequence[str]) -> list[bytes | None]:
        return self._each(self._get, keys)

    def _get(self, key: str) -> bytes | None:
        try:
            return bytes(self._obstore.get(self._bucket, key).bytes())
        except FileNotFoundError:
            return None

    def _names(self, folder: str) -> list[str]:
        found = self._obstore.list_with_delimiter(self._bucket, f"{folder}/")
        keys = [*found["common_prefixes"], *(each["path"] for each in found["objects"])]
        # Servers with folders list one that is empty as an object in itself.
        return sorted(key.rpartition("/")[2] for key in keys if key != folder)

    # --- what comes ---

    def _stage(self, contents: Sequence[tuple[str, bytes]]) -> AbstractContextManager[_Objects]:
        return nullcontext(_Objects(self, [content for _, content in contents]))

    def _create(self, what: tuple[str, bytes]) -> bool:
        """Acknowledged is durable. A repetition after an answer that was lost finds its own object: the caller
        compares."""
        key, content = what
        try:
            self._obstore.put(self._bucket, key, content, mode="create", use_multipart=False)
        except self._exists:
            return False
        return True

    def _overwrite(self, key: str, content: bytes) -> None:
        self._obstore.put(self._bucket, key, content, use_multipart=False)

    def _sync(self, keys: Sequence[str]) -> None:
        pass  # what can be seen has been acknowledged

    # --- what goes ---

    def _remove(self, keys: Sequence[str]) -> None:
        if keys:
            with suppress(FileNotFoundError):
                self._obstore.delete(self._bucket, list(keys))

    def _prune(self, folders: Sequence[str]) -> None:
        empty = [folder for folder in folders if not self._names(folder)]
        self._remove(empty)
        parents = {folder.rpartition("/")[0] for folder in empty}
        if further := sorted(parent for parent in parents if "/" in parent):
            self._prune(further)

    # --- who may ---

    @contextmanager
    def _uploading(self, participants: set[str], batch_ids: Sequence[str]) -> Iterator[None]:
        started_s = time.monotonic()
        notes = [f"pending/{participant}/{uuid.uuid4().hex}" for participant in sorted(participants)]
        text = "".join(f"{batch_id}\n" for batch_id in batch_ids).encode()
        self._each(self._create, [(note, text) for note in notes])
        yield
        if time.monotonic() - started_s > self._lease_s / 2:
            raise StoreError(
                f"The object store {self._where} took too long", "Senders keep their batches and try again."
            )
        self._remove(notes)

    def _forbid(self, participant: str, keys: Sequence[str]) -> Iterator[None]:
        self._each(self._create, [(key, b"") for key in keys])
        yield
        mark = f"probe/{uuid.uuid4().hex}"
        while pending := self._pending(participant):
            self._overwrite(mark, b"")  # its date is now, by the clock that dates the notes
            now = self._obstore.head(self._bucket, mark)["last_modified"]
            self._remove([mark])
            if all((now - written).total_seconds() > self._lease_s for _, written in pending):
                break
            time.sleep(PENDING_WAIT_S)
            yield

    def _pending(self, participant: str) -> list[tuple[str, datetime]]:
        pages = self._obstore.list(self._bucket, f"pending/{participant}/")
        return [(each["path"], each["last_modified"]) for page in pages for each in page]

    def _residue(self, participant: str) -> list[tuple[str, list[str]]]:
        keys = [key for key, _ in self._pending(participant)]
        contents = zip(keys, self._read(keys), strict=True)
        return [(key, text.decode("ascii").split()) for key, text in contents if text is not None]

    def expire(self, before: date, /) -> Steps:
        """See `BatchStore`. Takes time in proportion to what goes, and one look at what is under way."""
        done = yield from super().expire(before)
        with self._guarded():
            for participant in self._names("pending"):
                for key, written in self._pending(participant):
                    if written.date() < before:
                        self._remove([key])
                self._prune([f"pending/{participant}"])
                yield
        return done

    def _each(self, work: Callable[[_ARGUMENT], _RESULT], items: Sequence[_ARGUMENT]) -> list[_RESULT]:
        if len(items) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            return list(pool.map(work, items))


class _Objects:
    """Contents in memory: an object appears whole or not at all."""

    def __init__(self, store: ObjectStore, contents: list[bytes]) -> None:
        self._store, self._contents = store, contents

    def name(self, which: Sequence[int], keys: Sequence[str], /) -> list[bool]:
        return self._store._each(
            self._store._create, [(key, self._contents[at]) for at, key in zip(which, keys, strict=True)]
        )


def _open(url: str) -> Bucket:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    try:
        if not url.startswith("s3://"):
            raise ValueError("it does not begin with s3://")
        return from_url(
            url,
            # obstore itself forgets the variable when it is given options.
            client_options={"timeout": REQUEST_TIMEOUT, "allow_http": plain},
            retry_config={"max_retries": 5, "retry_timeout": RETRY_TIMEOUT},
        )
    except (BaseError, ValueError) as error:
        line = str(error).partition("\n")[0][:200]
        raise ConfigError(
            f"The object store {url!r} cannot be opened ({line})",
            "Give s3://BUCKET/PREFIX, and endpoint and credentials in the environment (AWS_ENDPOINT_URL, ...).",
        ) from error
