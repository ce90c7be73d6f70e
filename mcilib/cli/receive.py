"""`mcilib receive`: the reference receiver."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from mcilib.cli._output import log_to_stderr, say
from mcilib.cli._parser import add_options, read_token, settings_of

if TYPE_CHECKING:
    from mcilib.cli._parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "receive",
        help="receive batches into a folder or an object store",
        description="""\
Receives batches over HTTP into STORE: a folder, which is made when it is not there, or s3://BUCKET/PREFIX of
any S3-compatible server (address and credentials from AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY). A batch is durable before its sender gets the receipt; one that comes twice is stored
once. Requests to delete are carried out before they are confirmed; requests for exemptions wait for whoever
decides (`mcilib exemptions`). Ends with Ctrl-C or SIGTERM.

Plain HTTP is for loopback only: any other address is refused without a token and TLS.
Needs the extra: pip install 'mcilib[receiver]', and for an object store 'mcilib[receiver,s3]'""",
        epilog="""\
example:
  mcilib receive store/
  mcilib receive store/ --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem
  mcilib receive s3://bucket/batches --retention-days 365

exit codes: 0 ended as asked; 2 a flag is wrong, or the port is taken; 6 the store cannot be written""",
    )
    parser.add_argument(
        "store", metavar="STORE", help="folder of the received batches, or s3://BUCKET/PREFIX"
    )
    add_options(
        parser,
        "receiver.host",
        "receiver.port",
        "receiver.token_file",
        "receiver.operator_token_file",
        "receiver.tls_cert",
        "receiver.tls_key",
        "receiver.device_requests",
        "receiver.retention_days",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = settings_of(args).receiver
    token = read_token(settings.token_file) if settings.token_file is not None else None
    operator = settings.operator_token_file
    operator_token = read_token(operator) if operator is not None else None
    store = args.store if "://" in args.store else Path(args.store)
    log_to_stderr(debug=args.debug)
    from mcilib.cli._stop import StopSignal
    from mcilib.receiver import serve

    with StopSignal(("SIGINT", "SIGTERM")) as stop:

        def ready(url: str) -> None:
            print(f"Receiving at {url} into {store}. Stop with Ctrl-C.", flush=True)
            if stop.requested:  # before `serve` took these signals
                signal.raise_signal(signal.SIGTERM)

        serve(
            store,
            host=settings.host,
            port=settings.port,
            token=token,
            operator_token=operator_token,
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
            max_body_bytes=settings.max_body_bytes,
            device_requests=settings.device_requests,
            retention_days=settings.retention_days,
            on_ready=ready,
        )
        say("Stopped.")
    return 0
