"""What uploading costs: bytes for an office day, and wake-ups and CPU of an agent that reaches nobody.

Bytes: eight hours of pointer and keys become batches as the defaults close them (60 s), sealed to two keys, and are
uploaded once an hour, each time over a new connection with TLS and a bearer token, to `mcilib receive`. Without a TRACE
the day is synthetic and the same each time; TRACE.csv.gz ... are recordings (t_ns,kind,...), taken as sessions of one
day, one after the other.

    payload    what TCP carries in both directions (TLS handshakes, headers, bodies, receipts), counted by a relay
    interface  what the network interface counts in both directions: with the headers of TCP, IP and Ethernet, ACKs
               and the opening and closing of connections; in a network namespace of its own whose loopback has an
               MTU of 1,500 bytes and no segmentation offload. Left out where no namespace can be made

Each as a multiple of the bytes of the batches.

Offline: the real uploader's thread, 60 batches waiting, a port that refuses. Its waits are shortened so that many of
its scheduled rounds fit into seconds; the cost of one is then multiplied by how many requests the real schedule makes
in an hour (virtual clock, mean of many agents). What it costs while it waits is looked at, too: nothing should wake it.
Linux only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import merge
from pathlib import Path
from random import Random
from typing import Any

import fleet
import traces
from rig import (
    arguments,
    cost,
    free_port,
    in_own_network,
    interface_bytes,
    machine,
    receiver,
    remark,
    show,
    table,
)
from wire_size import BOOT, Trace, batches, grant, recipients

from mcilib import limits
from mcilib.delivery.http import HttpTransport
from mcilib.delivery.schedule import ScheduleFile
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.events import Event
from mcilib.protocols import SealedBatch

HOUR_S = limits.UPLOAD_INTERVAL_S
HOURS, QUICK_HOURS = 8, 1
TOKEN = "0123456789abcdef" * 4
PAYLOAD_MAX_RATIO = 1.15
"""What is asked for."""
ROUNDS, QUICK_ROUNDS = 200, 20
WAIT_S, QUICK_WAIT_S = 60.0, 1.0
OFFLINE_AGENTS = 2_000


# --- an office day --------------------------------------------------------------------------------------------


def synthetic_day(hours: int) -> list[Event]:
    """A hand that reaches for something every few seconds, and 20 minutes of typing in each hour."""
    keys: list[Event] = []
    for hour in range(hours):
        keys += [_later(e, hour * HOUR_S + 1200) for e in traces.typing(1200, seed=100 + hour)]
    pointer = traces.pointer(hours * HOUR_S, traces.OFFICE, seed=1, rest_s=4)
    return list(merge(pointer, keys, key=lambda event: event.t_ns))


def one_after_the_other(sessions: Iterable[Sequence[Event]]) -> list[Event]:
    """A second apart."""
    events: list[Event] = []
    for session in sessions:
        ended_s = events[-1].t_ns / 1e9 + 1 if events else 0.0
        events += [_later(event, ended_s - session[0].t_ns / 1e9) for event in session]
    return events


def _later(event: Event, seconds: float) -> Event:
    return replace(event, t_ns=event.t_ns + int(seconds * 1e9))


def sealed(events: Sequence[Event]) -> list[list[SealedBatch]]:
    """The batches of each hour, sealed."""
    began_ns = events[0].t_ns
    hours: list[list[SealedBatch]] = []
    for number, filled in enumerate(
        batches(Trace("day", events), limits.BATCH_MAX_EVENTS, limits.BATCH_MAX_AGE_S), 1
    ):
        hour = int((filled.events[0].t_ns - began_ns) / 1e9 // HOUR_S)
        while len(hours) <= hour:
            hours.append([])
        clocks = {"pointer": "x11", "keyboard": "x11"}
        hours[hour].append(
            filled.batch.seal(
                sequence=number, grant=grant(), boot=BOOT, clocks=clocks, recipients=recipients()
            )
        )
    return hours


class Relay:
    """Passes TCP on to `port` and counts what it carries."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.sent_bytes = self.received_bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):  # the other end has closed it
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [client, server]
                for way in ((client, server, "sent_bytes"), (server, client, "received_bytes")):
                    thread = threading.Thread(target=self._carry, args=way, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _carry(self, source: socket.socket, to: socket.socket, counter: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                setattr(self, counter, getattr(self, counter) + len(data))
                to.sendall(data)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def tls_receiver(folder: Path) -> Iterator[tuple[str, Path]]:
    """`mcilib receive` with TLS and a token: its address, and the file of the authority."""
    import trustme

    authority, ca_file = trustme.CA(), folder / "ca.pem"
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(ca_file)
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    flags = ("--tls-cert", str(folder / "server.pem"), "--token-file", str(folder / "token"))
    with receiver(folder / "store", 0, *flags) as url:
        yield url, ca_file


def upload(hours: Sequence[Sequence[SealedBatch]], folder: Path, endpoint: str, ca_file: Path) -> int:
    """The day through spool, uploader and transport; gives the number of requests."""
    transport = HttpTransport(endpoint, token=TOKEN, ca_file=ca_file)
    with DirectorySpool(folder / "spool", min_free_bytes=0) as spool:
        uploader = Uploader(spool, transport)
        for hour in hours:
            for batch in hour:
                spool.commit(lambda _, batch=batch: batch)  # type: ignore[misc]
            if not uploader.flush(60).delivered:
                raise SystemExit(f"uploader.py: not delivered: {uploader.health()}")
            transport.close()  # an hour later neither side has kept the connection
        return uploader.statistics().requests


def payload(hours: Sequence[Sequence[SealedBatch]]) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as name, tls_receiver(Path(name)) as (url, ca_file):
        with Relay(int(url.rpartition(":")[2])) as relay:
            requests = upload(hours, Path(name), f"https://127.0.0.1:{relay.port}", ca_file)
        return {"requests": requests, "up": relay.sent_bytes, "down": relay.received_bytes}


def on_interface(hours: Sequence[Sequence[SealedBatch]]) -> int:
    """In a namespace of its own, where nothing else is sent."""
    with tempfile.TemporaryDirectory() as name, tls_receiver(Path(name)) as (url, ca_file):
        before = interface_bytes("lo")
        upload(hours, Path(name), url, ca_file)
        time.sleep(0.2)  # the last ACKs
        return interface_bytes("lo") - before


def day(events: Sequence[Event], source: str) -> dict[str, Any]:
    remark("sealing ...")
    hours = sealed(events)
    batch_bytes = sum(len(batch.data) for hour in hours for batch in hour)
    remark(f"uploading {sum(map(len, hours))} batches ...")
    carried = payload(hours)
    remark("the same in a network namespace ...")
    interface = in_own_network(lambda: on_interface(hours))
    ratio = (carried["up"] + carried["down"]) / batch_bytes
    return {
        "source": source,
        "events": len(events),
        "uploads": sum(1 for hour in hours if hour),
        "batches": sum(map(len, hours)),
        "batch_bytes": batch_bytes,
        "requests": carried["requests"],
        "payload_up_bytes": carried["up"],
        "payload_down_bytes": carried["down"],
        "payload_ratio": round(ratio, 3),
        "interface_bytes": interface,
        "interface_ratio": round(interface / batch_bytes, 3) if interface is not None else None,
        "met": ratio <= PAYLOAD_MAX_RATIO,
    }


# --- offline --------------------------------------------------------------------------------------------------


class Hurried(Random):
    """Draws the same short wait each time."""

    wait_s = 0.02

    def uniform(self, a: float, b: float) -> float:
        return min(b, self.wait_s)


class Latest(Random):
    """Draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


@contextlib.contextmanager
def running(random: Random) -> Iterator[tuple[Uploader, int]]:
    """The real uploader with 60 batches and nobody there; its thread."""
    from mcilib.testing.fakes import example_batch

    endpoint = f"http://127.0.0.1:{free_port()}"
    with (
        tempfile.TemporaryDirectory() as name,
        DirectorySpool(Path(name, "spool"), min_free_bytes=0) as spool,
    ):
        for _ in range(60):
            spool.commit(example_batch)
        uploader = Uploader(
            spool,
            HttpTransport(endpoint),
            schedule_file=ScheduleFile(spool.path / "schedule.json"),
            endpoint=endpoint,
            random=random,
        )
        uploader.start()
        thread = uploader.threads()[0].native_id
        assert thread is not None
        try:
            yield uploader, thread
        finally:
            uploader.stop()


def offline(rounds: int, wait_s: float) -> dict[str, Any]:
    remark(f"{rounds} rounds of an uploader that reaches nobody ...")
    limits.REQUESTS_PER_WINDOW = 1_000_000  # else this would take 4 s each: no more than 15 in a minute
    with running(Hurried()) as (uploader, thread):
        while (
            uploader.statistics().requests < 10
        ):  # what is imported at the first, and the retry budget spent
            time.sleep(0.01)
        before, first = cost(os.getpid(), thread), uploader.statistics().requests
        while uploader.statistics().requests < first + rounds:
            time.sleep(0.05)
        made, spent = uploader.statistics().requests - first, cost(os.getpid(), thread) - before
    remark(f"{wait_s:.0f} s of waiting ...")
    with running(Latest()) as (_, thread):
        time.sleep(0.5)
        before = cost(os.getpid(), thread)
        time.sleep(wait_s)
        waiting = cost(os.getpid(), thread) - before
    requests = per_hour(24)
    wakeups, cpu_ms = spent.wakeups / made, spent.cpu_s * 1e3 / made
    later = sum(requests[1:]) / len(requests[1:])
    return {
        "requests_measured": made,
        "wakeups_per_request": round(wakeups, 2),
        "cpu_ms_per_request": round(cpu_ms, 3),
        "waiting_s": wait_s,
        "wakeups_waiting": waiting.wakeups,
        "cpu_ms_waiting": round(waiting.cpu_s * 1e3, 3),
        "requests_per_hour": requests,
        "first_hour": {"wakeups": round(wakeups * requests[0], 1), "cpu_ms": round(cpu_ms * requests[0], 2)},
        "later_hours": {"wakeups": round(wakeups * later, 1), "cpu_ms": round(cpu_ms * later, 2)},
    }


def per_hour(hours: int) -> list[float]:
    """Requests of an agent in each hour after its first upload has failed, by the real schedule."""
    draw, counts = Random(1), [0] * hours
    fleet.Mcilib.quick = fleet.quick_attempts()
    for _ in range(OFFLINE_AGENTS):
        agent, now_ns = fleet.Mcilib(draw), 0
        while now_ns < hours * fleet.HOUR:
            counts[now_ns // fleet.HOUR] += 1
            _, now_ns = agent.step(now_ns, False)
    return [round(count / OFFLINE_AGENTS, 2) for count in counts]


def text(result: dict[str, Any]) -> str:
    one, away = result["day"], result["offline"]
    interface = one["interface_bytes"]
    payload_bytes = one["payload_up_bytes"] + one["payload_down_bytes"]
    rows = [
        ["batches", f"{one['batch_bytes']:,}", "1"],
        ["TCP payload, both ways", f"{payload_bytes:,}", f"{one['payload_ratio']:.3f}"],
        ["- up", f"{one['payload_up_bytes']:,}", ""],
        ["- down", f"{one['payload_down_bytes']:,}", ""],
        [
            "on the interface",
            *(["-", "-"] if interface is None else [f"{interface:,}", f"{one['interface_ratio']:.3f}"]),
        ],
    ]
    costs = [
        ["requests", f"{away['requests_per_hour'][0]:.1f}", f"{sum(away['requests_per_hour'][1:]) / 23:.2f}"],
        *[
            [words, f"{away['first_hour'][key]:.1f}", f"{away['later_hours'][key]:.2f}"]
            for words, key in (("wake-ups", "wakeups"), ("CPU, ms", "cpu_ms"))
        ],
    ]
    return "\n\n".join(
        (
            table(["bytes", one["source"], "of the batches"], rows),
            f"{one['events']:,} events, {one['batches']} batches, {one['uploads']} uploads, {one['requests']} requests."
            f" Asked for: payload at most {PAYLOAD_MAX_RATIO}: {'yes' if one['met'] else 'NO'}",
            table(["uploader's thread, offline, per hour", "first hour", "hours 2 to 24"], costs),
            f"Per request, over {away['requests_measured']}: {away['wakeups_per_request']} wake-ups, "
            f"{away['cpu_ms_per_request']} ms. Waiting for {away['waiting_s']:.0f} s: "
            f"{away['wakeups_waiting']} wake-ups, {away['cpu_ms_waiting']} ms.",
        )
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("traces", nargs="*", type=Path, metavar="TRACE", help="recorded traces of one day")
    args = parser.parse_args()
    if args.traces:
        remark("reading ...")
        events, source = one_after_the_other(map(traces.read, args.traces)), "recorded"
    else:
        hours = QUICK_HOURS if args.quick else HOURS
        remark(f"a day of {hours} hours ...")
        events, source = synthetic_day(hours), f"synthetic, {hours} h"
    result = {
        "machine": machine(),
        "day": day(events, source),
        "offline": offline(*(QUICK_ROUNDS, QUICK_WAIT_S) if args.quick else (ROUNDS, WAIT_S)),
    }
    show(result, text(result), as_json=args.json)


if __name__ == "__main__":
    main()
