"""How fast batches become durable, and how often the disk is asked to flush for that: spool and receiver.

Spool: one thread commits batches of 1.2 kB to a `DirectorySpool`, each durable when `commit` returns, then settles
them as an uploader does, 60 at a time, and one at a time. Beside it the least that can be done for the same: a file
written, fsynced, renamed, its folder fsynced. Flushes are counted by strace, over all threads of a process that does
only this, less what the same process does without a commit.

Receiver: `mcilib receive` alone on one core, senders on the others, 8 connections that are kept. One batch in a
request, and 60; the rate counts batches with a receipt, each of them durable. Beside it, in turns with it, a Starlette
application whose only handler reads nothing and answers an empty 200, on the same server (uvicorn, h11, asyncio). CPU
is that of the server's process. Where its core is not busy, the disk or, without one, the senders set the pace.

The disk decides much of this; how long one fsync takes there is measured first. TMPDIR chooses the disk. Linux only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from rig import MCILIB, PYTHON, Process, arguments, cost, machine, remark, show, shown, spread, table

from mcilib.delivery.spool import DirectorySpool
from mcilib.format.frame import pack_frame, pack_header, unpack_frame
from mcilib.protocols import Fate, SealedBatch
from mcilib.testing.fakes import example_batch

SIZE_BYTES = 1_200
"""What a minute of office work takes, sealed."""
COMMITS, QUICK_COMMITS = 2_000, 60
PER_UPLOAD = 60
ROUNDS, QUICK_ROUNDS = 3, 1
TRACED = 60
"""Commits of the process whose flushes are counted."""
REQUESTS, QUICK_REQUESTS = 2_000, 40
CONNECTIONS = 8
BARELY = "write, fsync, rename, fsync"
EMPTY = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def empty(request):
    return Response()

app = Starlette(routes=[Route("/v1/batches", empty, methods=["POST"])])
import socket
listener = socket.create_server(("127.0.0.1", 0))
print("Receiving at http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
config = uvicorn.Config(app, loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
                        log_level="critical", proxy_headers=False, server_header=False)
uvicorn.Server(config).run(sockets=[listener])
"""


def some_batches(count: int, seed: int) -> list[SealedBatch]:
    """Real frames of about the usual size, each with an id of its own; the payload is never opened."""
    draw, frame = Random(seed), unpack_frame(example_batch().data)
    made = []
    for sequence in range(1, count + 1):
        header = replace(frame.header, batch_id=f"{draw.getrandbits(128):032x}", sequence=sequence)
        head = pack_header(header)
        data = pack_frame(head, draw.randbytes(SIZE_BYTES - len(head)))
        made.append(SealedBatch(header.batch_id, sequence, data))
    return made


# --- spool ----------------------------------------------------------------------------------------------------


def commit_all(spool: DirectorySpool, made: Sequence[SealedBatch]) -> None:
    for batch in made:
        spool.commit(lambda _, batch=batch: batch)  # type: ignore[misc]


def settle_together(spool: DirectorySpool, made: Sequence[SealedBatch]) -> None:
    for first in range(0, len(made), PER_UPLOAD):
        spool.settle_all({batch.batch_id: Fate.DELIVERED for batch in made[first : first + PER_UPLOAD]})


def settle_each(spool: DirectorySpool, made: Sequence[SealedBatch]) -> None:
    for batch in made:
        spool.settle(batch.batch_id, Fate.DELIVERED)


def barely(folder: Path, made: Sequence[SealedBatch]) -> None:
    """Write, fsync, rename, fsync of the folder."""
    (folder / "ready").mkdir()
    folder_fd = os.open(folder / "ready", os.O_RDONLY)
    for batch in made:
        new = folder / "new"
        with open(new, "wb") as file:
            file.write(batch.data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, folder / "ready" / batch.batch_id)
        os.fsync(folder_fd)
    os.close(folder_fd)


def fsync_ms(folder: Path, times: int) -> dict[str, float]:
    """Of a file with a new block."""
    took = []
    with open(folder / "file", "wb") as file:
        for _ in range(times):
            file.write(bytes(4096))
            file.flush()
            began_s = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began_s) * 1e3)
    return {key: round(value, 2) for key, value in spread(took).items()}


def rate(count: int, work: Callable[[], object]) -> dict[str, float]:
    began_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    return {"per_s": round(count / took_s), "cpu_us": round(cpu_s / count * 1e6)}


def speeds(count: int, rounds: int) -> dict[str, Any]:
    """Of the spool, and of what is least, in turns."""
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        remark(f"spool, round {number + 1} of {rounds} ...")
        for what, figures in one_round(some_batches(count, number)).items():
            found.setdefault(what, []).append(figures)
    return {
        what: {key: spread([one[key] for one in rates]) for key in ("per_s", "cpu_us")}
        for what, rates in found.items()
    }


def one_round(made: Sequence[SealedBatch]) -> dict[str, dict[str, float]]:
    few, most = made[: len(made) // 4], made[len(made) // 4 :]
    with (
        tempfile.TemporaryDirectory() as name,
        DirectorySpool(Path(name, "spool"), min_free_bytes=0) as spool,
    ):
        return {
            BARELY: rate(len(made), lambda: barely(Path(name), made)),
            "commit": rate(len(made), lambda: commit_all(spool, made)),
            "settle, one at a time": rate(len(few), lambda: settle_each(spool, few)),
            f"settle, {PER_UPLOAD} at a time": rate(len(most), lambda: settle_together(spool, most)),
        }


WORKS: dict[str, Callable[[DirectorySpool, Sequence[SealedBatch]], None]] = {
    "commit": lambda spool, made: None,
    "settle, one at a time": settle_each,
    f"settle, {PER_UPLOAD} at a time": settle_together,
}


def child(what: str, count: int, folder: str) -> None:
    """What strace looks at."""
    made = some_batches(count, 0)
    with DirectorySpool(Path(folder, "spool"), min_free_bytes=0) as spool:
        commit_all(spool, made)
        WORKS[what](spool, made)


def traced(what: str, count: int) -> int | None:
    """Flushes of a process that commits `count` batches and settles them, or not."""
    if shutil.which("strace") is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        log = Path(name, "log")
        command = [
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=fsync,fdatasync,sync_file_range,syncfs",
            "-o",
            str(log),
        ]
        # With its folder on the path, which -P would take away.
        command += [sys.executable, __file__, "--child", what, str(count), name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            remark(f"flushes cannot be counted: {done.stderr.strip().splitlines()[-1:]}")
            return None
        return sum("sync" in line and "resumed" not in line for line in log.read_text().splitlines())


def flushes() -> dict[str, float | None]:
    """Per batch."""
    remark("counting flushes ...")
    nothing, commits = traced("commit", 0), traced("commit", TRACED)
    if nothing is None or commits is None:
        return dict.fromkeys(WORKS)
    found: dict[str, float | None] = {"commit": round((commits - nothing) / TRACED, 2)}
    for what in list(WORKS)[1:]:
        total = traced(what, TRACED)
        found[what] = None if total is None else round((total - commits) / TRACED, 2)
    return found


# --- receiver -------------------------------------------------------------------------------------------------


def request(body: bytes) -> bytes:
    head = (
        f"POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/vnd.mcilib.batches\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def send_all(port: int, requests: Sequence[bytes]) -> int:
    """One kept connection, one request after the other; gives how many batches have a receipt `stored`."""
    stored = 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for one in requests:
            connection.sendall(one)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += _more(connection)
            head, _, body = answer.partition(b"\r\n\r\n")
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise SystemExit(f"spool.py: the receiver answered {answer[:200]!r}")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            while len(body) < int(length.partition(b":")[2]):
                body += _more(connection)
            stored += body.count(b'"stored"')
    return stored


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise SystemExit("spool.py: the receiver closed a connection")
    return data


@contextmanager
def on_one_core() -> Iterator[Callable[[], None]]:
    """For a server that is started meanwhile: it inherits the core. Calling what this gives, we go to the others."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    try:
        yield lambda: os.sched_setaffinity(0, cores[1:] or cores)
    finally:
        os.sched_setaffinity(0, cores)


def load(command: Sequence[str], requests: Sequence[bytes]) -> dict[str, float]:
    """All but the first, which makes it import what it needs."""
    with on_one_core() as leave, Process(command) as server:
        port = int(server.line("Receiving at ").split("Receiving at ")[1].split()[0].rpartition(":")[2])
        leave()
        send_all(port, requests[:1])
        stored: list[int] = []

        def send(part: Sequence[bytes]) -> None:
            stored.append(send_all(port, part))

        threads = [
            threading.Thread(target=send, args=(requests[1 + at :: CONNECTIONS],))
            for at in range(CONNECTIONS)
        ]
        before, began_s = cost(server.pid), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s, spent = time.perf_counter() - began_s, cost(server.pid) - before
        server.end()
    if len(stored) < CONNECTIONS:
        raise SystemExit("spool.py: a sender failed")
    count = len(requests) - 1
    return {
        "requests_per_s": round(count / took_s),
        "batches_per_s": round(sum(stored) / took_s),
        "cpu_us_per_request": round(spent.cpu_s * 1e6 / count),
        "batches_per_cpu_s": round(sum(stored) / spent.cpu_s),
        "core_busy": round(spent.cpu_s / took_s, 2),
    }


def receiving(count: int, rounds: int) -> dict[str, Any]:
    """Requests of one batch, of 60, and the empty handler, in turns."""
    few = max(CONNECTIONS, count // 10)
    single = [request(batch.data) for batch in some_batches(count + 1, 1)]
    many = some_batches((few + 1) * PER_UPLOAD, 2)
    joined = [
        request(b"".join(batch.data for batch in many[at : at + PER_UPLOAD]))
        for at in range(0, len(many), PER_UPLOAD)
    ]
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        remark(f"receiver, round {number + 1} of {rounds} ...")
        for what, requests in (
            ("1 batch in a request", single),
            (f"{PER_UPLOAD} batches in a request", joined),
        ):
            with tempfile.TemporaryDirectory() as name:
                command = [
                    *MCILIB,
                    "receive",
                    str(Path(name, "store")),
                    "--port",
                    "0",
                    "--device-requests",
                    "1000000",
                ]
                found.setdefault(what, []).append(load(command, requests))
        found.setdefault("empty handler", []).append(load([*PYTHON, "-c", EMPTY], single))
    return {
        what: {key: spread([one[key] for one in runs]) for key in runs[0]} for what, runs in found.items()
    }


# --- for people -----------------------------------------------------------------------------------------------


def text(result: dict[str, Any]) -> str:
    sync = result["fsync_ms"]
    per_batch = result["flushes_per_batch"]
    rows = [
        [
            what, shown(figures["per_s"], 0), shown(figures["cpu_us"], 0),
            "2" if what == BARELY else "-" if per_batch[what] is None else f"{per_batch[what]:.2f}",
        ]
        for what, figures in result["spool"].items()
    ]  # fmt: skip
    served = [
        [
            what, shown(figures["requests_per_s"], 0),
            shown(figures["batches_per_s"], 0) if figures["batches_per_s"]["high"] else "-",
            shown(figures["cpu_us_per_request"], 0),
            shown(figures["batches_per_cpu_s"], 0) if figures["batches_per_s"]["high"] else "-",
            shown(figures["core_busy"], 2),
        ]
        for what, figures in result["receiver"].items()
    ]  # fmt: skip
    return "\n\n".join(
        (
            f"One fsync: {shown(sync, 2)} ms.",
            table(["spool, one thread", "batches per s", "CPU, us per batch", "flushes per batch"], rows),
            table(
                [
                    "receiver, one core",
                    "requests per s",
                    "batches per s",
                    "CPU, us per request",
                    "batches per s of CPU",
                    "core busy",
                ],
                served,
            ),
        )
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--child", nargs=3, metavar=("WHAT", "COUNT", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, count, folder = args.child
        child(what, int(count), folder)
        return
    rounds = QUICK_ROUNDS if args.quick else ROUNDS
    with tempfile.TemporaryDirectory() as name:
        sync = fsync_ms(Path(name), 20 if args.quick else 300)
    result = {
        "machine": machine(),
        "fsync_ms": sync,
        "spool": speeds(QUICK_COMMITS if args.quick else COMMITS, rounds),
        "flushes_per_batch": flushes(),
        "receiver": receiving(QUICK_REQUESTS if args.quick else REQUESTS, rounds),
    }
    show(result, text(result), as_json=args.json)


if __name__ == "__main__":
    main()
