"""A complete agent: asks before it records, says what it records and where it goes, and stops when told to.

    python agent.py https://collect.example.org [--state DIR] [--token-file FILE]

Ctrl-C or SIGTERM end it within two seconds with everything captured on disk; what is not delivered by then
goes out after the next start. There is no way to start it unseen: without a grant it asks on the terminal, and
it ends when nobody answers.
"""

import argparse
import select
import signal
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path

from mcilib import Collector, Grant, GrantError, HttpTransport, KeyboardSource, McilibError, PointerSource


def main() -> int:
    args = arguments()
    try:
        grant = load_or_ask(args.state)
        collector = Collector(
            sources=[PointerSource(), KeyboardSource()],
            grant=grant,
            state_dir=args.state,
            transport=HttpTransport(args.endpoint, token=args.token_file),
            batch_max_age_s=args.commit_every,
            upload_interval_s=args.upload_every,
        )
        announce(grant, args)
        record(collector, args.say_every)
    except McilibError as error:  # nothing was recorded; the message says what to do
        print(f"agent: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # while it was asking
        return 130
    summary(collector)
    return 0


def load_or_ask(state: Path) -> Grant:
    """The grant recorded in `state`. Asks for one where there is none, or where it has expired."""
    earlier = None
    try:
        earlier = Grant.load(state)
        if not earlier.expired(time.time_ns()):
            return earlier
        print(f"The grant expired at {earlier.expires_at}.")
    except GrantError as error:
        print(error)
    grant = Grant.ask(
        operator="Example Lab",
        purpose="to train programs that use computers",
        scopes=["pointer", "keys"],
        expires_in=timedelta(days=30),
        earlier=earlier,
    )
    grant.save(state)
    return grant


def announce(grant: Grant, args: argparse.Namespace) -> None:
    print("\nThis program records what you do, under this grant:\n")
    print(grant.describe())
    print(f"\nWhere to:       {args.endpoint}, every {args.upload_every:g} s")
    print(f"Until then:     {args.state / 'spool'}")
    print("To stop:        Ctrl-C\n", flush=True)


def record(collector: Collector, say_every_s: float) -> None:
    """Records until Ctrl-C or SIGTERM, and says every so often what has become of it."""

    def end(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one must not interrupt the last commit
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    # A signal that comes just before a sleep is not seen until it is over; one that writes a byte here is.
    wake, woken = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    try:
        with wake, woken, collector:  # starts here; stops and commits whatever ends the block
            print("Recording.", flush=True)
            while True:
                select.select([woken], [], [], say_every_s)
                report(collector)
    except KeyboardInterrupt:
        return
    finally:
        signal.set_wakeup_fd(-1)


def report(collector: Collector) -> None:
    """One line for the person at the device, and one more for each thing that is wrong."""
    now = collector.statistics()
    events, waiting = sum(now.capture.captured.values()), now.spool.waiting_batches
    clock, delivered = time.strftime("%H:%M:%S"), now.upload.delivered_batches
    print(f"{clock} {events} events; batches: {delivered} delivered, {waiting} waiting", flush=True)
    for problem in collector.health().problems:
        print(f"         {problem.part}: {problem.message}. {problem.next_step}", flush=True)


def summary(collector: Collector) -> None:
    total = collector.statistics()
    kinds = ", ".join(f"{number} {kind}" for kind, number in total.capture.captured.items())
    print(f"\nStopped. Recorded: {kinds or 'nothing'}.")
    print(f"{total.upload.delivered_batches} batches delivered, {total.spool.waiting_batches} wait here.")


def arguments() -> argparse.Namespace:
    def token(path: str) -> str:
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None

    parser = argparse.ArgumentParser(description="Records pointer and keys, visibly, and delivers them.")
    parser.add_argument("endpoint", help="address of the receiver: https, or http on this machine")
    parser.add_argument(
        "--state", type=Path, default=Path("mcilib-state"), help="folder of grant and batches"
    )
    parser.add_argument(
        "--token-file", type=token, metavar="FILE", help="file with the token for the receiver"
    )
    parser.add_argument("--say-every", type=float, default=60, metavar="S", help="between lines here (60)")
    parser.add_argument("--commit-every", type=float, default=60, metavar="S", help="age of a batch (60)")
    parser.add_argument(
        "--upload-every", type=float, default=3600, metavar="S", help="between uploads (3600)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
