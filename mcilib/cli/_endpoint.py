"""The way to the receiver, from settings: the transport, and what to do when it leads nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mcilib.cli._parser import read_token, required
from mcilib.config import Settings
from mcilib.protocols import Outcome

if TYPE_CHECKING:
    from mcilib.delivery.http import EndpointCheck, HttpTransport

#: Outcomes that waiting does not mend.
HOPELESS = (Outcome.REFUSED, Outcome.NOT_OUR_SERVER, Outcome.BAD_BATCH, Outcome.GONE)


def make_transport(settings: Settings) -> HttpTransport:
    """Opens no connection. Raises `ConfigError` (token), `DeliveryError` (address, certificates)."""
    from mcilib.delivery.http import HttpTransport

    upload = settings.upload
    endpoint: str = required(settings, "upload.endpoint")
    token_file = upload.token_file
    if token_file is not None:
        read_token(token_file)  # a bad file is told now, not at the first upload
    return HttpTransport(
        endpoint,
        token=None if token_file is None else lambda: read_token(token_file),
        ca_file=upload.ca_file,
        timeout_s=upload.timeout_s,
    )


def ask_endpoint(transport: HttpTransport) -> EndpointCheck:
    """Who is there, what time it is, and whether it takes uploads from here.

    A receiver tells its health to everyone. Whether it accepts our token (or the lack of one) shows with an
    upload of no batches, which it refuses as bad only after it has accepted the token.
    """
    found = transport.check()
    if found.outcome is Outcome.DELIVERED:
        reply = transport.send([])
        if reply.outcome in (Outcome.REFUSED, Outcome.GONE):
            return replace(found, outcome=reply.outcome, detail=reply.detail)
    return found


def remedy(outcome: Outcome) -> str:
    """What a person can do about an endpoint that cannot be used."""
    return {
        Outcome.RETRY: "Check that the receiver runs and that the network lets you reach it.",
        Outcome.NOT_OUR_SERVER: "Something else answers there: check --endpoint, or log in to the network.",
        Outcome.REFUSED: "Check --endpoint, --token-file and --ca-file with whoever runs the receiver.",
        Outcome.GONE: "The programme has ended; ask whoever runs it.",
    }.get(outcome, "Ask whoever runs the receiver.")
