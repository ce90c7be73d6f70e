"""The way to the receiver, from settings: the transport, and what to do when it leads nowhere."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, BinaryIO, Self
from urllib.parse import urlsplit

from mcilib.cli._parser import read_token, required
from mcilib.config import OPTIONS, Settings
from mcilib.errors import ConfigError, DeliveryError
from mcilib.protocols import Outcome, Transport

if TYPE_CHECKING:
    from mcilib.delivery.http import EndpointCheck

#: Outcomes that waiting does not mend.
HOPELESS = (Outcome.REFUSED, Outcome.NOT_OUR_SERVER, Outcome.BAD_BATCH, Outcome.GONE)


#: Options that a folder has no use for, nor, but for `ca_file`, an object store.
_FOR_RECEIVERS = {
    "token_file": "takes no token",
    "ca_file": "needs no certificates",
    "client_cert": "takes no client certificate",
    "client_key": "takes no client certificate",
    "proxy": "takes no proxy from here",
}


def make_transport(settings: Settings) -> Transport:
    """By the endpoint: `https://` a receiver, `file:///` a folder, `s3://` an object store.

    Opens no connection. Raises `ConfigError` (token, obstore), `DeliveryError` (address, certificates, keys).
    """
    from mcilib.delivery.http import HttpTransport

    upload = settings.upload
    endpoint: str = required(settings, "upload.endpoint")
    token_file = upload.token_file
    scheme = endpoint.partition(":")[0]
    if scheme in ("file", "s3"):
        for key, words in _FOR_RECEIVERS.items():
            if getattr(upload, key) is not None and (scheme, key) != ("s3", "ca_file"):
                flag = OPTIONS[f"upload.{key}"].flag
                raise ConfigError(f"A {scheme}: endpoint {words}", f"Leave out {flag}.")
        return _folder(endpoint) if scheme == "file" else _bucket(settings, endpoint)
    if token_file is not None:
        read_token(token_file)  # a bad file is told now, not at the first upload
    return HttpTransport(
        endpoint,
        token=None if token_file is None else lambda: read_token(token_file),
        ca_file=upload.ca_file,
        client_cert=upload.client_cert,
        client_key=upload.client_key,
        proxy=upload.proxy,
        timeout_s=upload.timeout_s,
    )


def _folder(endpoint: str) -> Transport:
    from urllib.request import url2pathname  # which imports half of the network

    from mcilib.delivery.folder import FolderTransport

    url = urlsplit(endpoint)
    if url.netloc not in ("", "localhost") or not endpoint.startswith("file://") or url.query or url.fragment:
        raise DeliveryError(
            f"The endpoint {endpoint!r} is not a folder of this machine", "Give file:///media/stick/mcilib."
        )
    return FolderTransport(url2pathname(url.path))


def _bucket(settings: Settings, endpoint: str) -> Transport:
    """Address and keys are in the environment, under the names that AWS's own tools read."""
    from mcilib.delivery.objectstore import ObjectStoreTransport, S3Credentials

    def given(*names: str) -> str | None:
        return next((value for name in names if (value := os.environ.get(name))), None)

    key_id, secret = given("AWS_ACCESS_KEY_ID"), given("AWS_SECRET_ACCESS_KEY")
    if key_id is None or secret is None:
        raise DeliveryError(
            "There are no keys for the object store",
            "Put them into the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    return ObjectStoreTransport(
        endpoint,
        credentials=S3Credentials(key_id, secret, given("AWS_SESSION_TOKEN")),
        endpoint=given("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        region=given("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        ca_file=settings.upload.ca_file,
        timeout_s=settings.upload.timeout_s,
    )


def ask_endpoint(transport: Transport) -> EndpointCheck:
    """Who is there, what time it is, and whether it takes uploads from here.

    A receiver tells its health to everyone. Whether it accepts our token (or the lack of one) shows with an
    upload of no batches, which it refuses as bad only after it has accepted the token. A folder or an object
    store tells with an upload of no batches whether it can be written.
    """
    from mcilib.delivery.http import EndpointCheck, HttpTransport

    if not isinstance(transport, HttpTransport):
        reply = transport.send([])
        return EndpointCheck(reply.outcome, reply.detail)
    found = transport.check()
    if found.outcome is Outcome.DELIVERED:
        reply = transport.send([])
        if reply.outcome in (Outcome.REFUSED, Outcome.GONE):
            return replace(found, outcome=reply.outcome, detail=reply.detail)
    return found


class Asking:
    """`ask_endpoint` by a process of its own, while entered: asking takes 8 MiB (TLS, HTTP) that an agent needs again
    only when it uploads. Where processes do not fork (Windows) it is done here. To be entered with one thread alive."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._pid = 0
        self._pipe: BinaryIO | None = None

    def __enter__(self) -> Self:
        if hasattr(os, "fork"):
            reading, writing = os.pipe()
            sys.stdout.flush()
            self._pid = os.fork()
            if self._pid == 0:
                self._ask(writing)
            os.close(writing)
            self._pipe = open(reading, "rb")
        return self

    def answer(self) -> EndpointCheck | None:
        """What the endpoint said. Waits; None when the process was ended before. Any thread."""
        if self._pipe is None:
            return ask_endpoint(self._transport)
        with self._pipe:
            said = self._pipe.read()
        if not said:
            return None
        from mcilib.delivery.http import EndpointCheck

        fields = json.loads(said)
        return EndpointCheck(**{**fields, "outcome": Outcome(fields["outcome"])})

    def __exit__(self, *_: object) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _ask(self, writing: int) -> None:
        """In the child. Ends it."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            answer = ask_endpoint(self._transport)
            with open(writing, "w", encoding="utf-8") as pipe:
                json.dump({**asdict(answer), "outcome": answer.outcome.value}, pipe)
        finally:
            os._exit(0)


def remedy(outcome: Outcome) -> str:
    """What a person can do about an endpoint that cannot be used."""
    return {
        Outcome.RETRY: "Check that the receiver runs and that the network lets you reach it.",
        Outcome.NOT_OUR_SERVER: "Something else answers there: check --endpoint, or log in to the network.",
        Outcome.REFUSED: "Check --endpoint, --token-file (or keys) and --ca-file with whoever runs the receiver.",
        Outcome.GONE: "The programme has ended; ask whoever runs it.",
    }.get(outcome, "Ask whoever runs the receiver.")
