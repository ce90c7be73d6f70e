"""Uploads what waits, without capturing anything: `mcilib run --drain`, and the end of `mcilib run --for`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mcilib.cli._endpoint import make_transport
from mcilib.cli._output import count
from mcilib.cli._stop import Call, StopSignal
from mcilib.config import Settings
from mcilib.consent import Gate, Grant
from mcilib.delivery.schedule import SCHEDULE_FILE, ScheduleFile, endpoint_of
from mcilib.delivery.spool import DirectorySpool, intact_frame
from mcilib.delivery.uploader import Uploader
from mcilib.errors import DeliveryError
from mcilib.protocols import SendPlan

ROUND_S = 60.0
"""One flush takes at most this long; while each delivers something, another follows."""

PROGRESS_EVERY_S = 1.0


ENDS_S = 0.5
"""For a request under way when the end is asked for; what it delivers is sent again later, as a duplicate."""


def drain(settings: Settings, folder: Path, grant: Grant, stop: StopSignal) -> int:
    """Uploads all that waits, whatever battery and network are like: somebody asked for it. Raises `DeliveryError` when
    something still does."""
    print(f"Uploading what waits in {folder} to {settings.upload.endpoint}. Stop with Ctrl-C.", flush=True)
    before = DirectorySpool.read_statistics(folder / "spool")
    reason = upload(settings, folder, grant, stop)
    after = DirectorySpool.read_statistics(folder / "spool")
    print(f"Delivered {count(after.delivered_batches - before.delivered_batches, 'batch')}.", flush=True)
    lost = sum(after.lost.values()) - sum(before.lost.values())
    if lost:
        print(f"Lost {count(lost, 'batch')}; `mcilib status` tells why.", flush=True)
    if after.waiting_batches:
        cause = "stopped before it was done" if stop.requested else reason
        raise DeliveryError(
            f"{count(after.waiting_batches, 'batch')} still on this device: {cause}",
            "Nothing is lost; run it again later.",
        )
    return 0


def upload(
    settings: Settings,
    folder: Path,
    grant: Grant,
    stop: StopSignal,
    timeout_s: float | None = None,
    plan: SendPlan = SendPlan(),  # noqa: B008  (frozen)
) -> str:
    """Uploads until nothing waits, nothing moves any more, the end is asked for, or the time is over. Keeps to `plan`.

    Returns why something still waits, in words; empty when nothing does. Raises `SpoolError`.
    """
    gate = Gate(grant)
    transport = make_transport(settings)
    spool = DirectorySpool(
        folder / "spool",
        max_bytes=settings.spool.max_bytes,
        max_files=settings.spool.max_files,
        max_age_s=settings.spool.max_age_s,
        min_free_bytes=settings.spool.min_free_bytes,
        intact=intact_frame,
    )
    spool.open()
    uploader = Uploader(
        spool,
        transport,
        may_send=lambda: gate.closed(time.time_ns()),
        plan=lambda: plan,
        interval_s=settings.upload.interval_s,
        max_request_bytes=settings.upload.max_request_bytes,
        hold_s=settings.upload.hold_s,
        fallback_age_s=settings.upload.fallback_age_s,
        schedule_file=ScheduleFile(spool.path / SCHEDULE_FILE),
        endpoint=endpoint_of(transport),
    )
    uploader.start()
    round_s = ROUND_S if timeout_s is None else timeout_s
    try:
        while True:
            before = len(spool.waiting())
            call = Call(lambda: uploader.flush(round_s), stop.wake)
            ends_s = time.monotonic() + round_s + PROGRESS_EVERY_S
            while not call.done and not stop.requested and time.monotonic() < ends_s:
                stop.wait(PROGRESS_EVERY_S)
                _progress(len(spool.waiting()))
            result = call.result()
            waiting = len(spool.waiting())
            if not waiting:
                return ""
            if stop.requested or timeout_s is not None or waiting >= before:
                return result.detail if result is not None else "no answer"
    finally:
        uploader.stop(ENDS_S)
        transport.close()
        spool.close()


def _progress(waiting: int) -> None:
    if sys.stderr.isatty():
        print(
            f"\r{count(waiting, 'batch')} waiting \033[K",
            end="" if waiting else "\n",
            file=sys.stderr,
            flush=True,
        )
