"""Uploads what waits, without capturing anything: `mcilib run --drain`, and the end of `mcilib run --for`."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

from mcilib.channel.server import ControlServer
from mcilib.cli._control import controls_of, withdrawn
from mcilib.cli._endpoint import make_transport
from mcilib.cli._folder import FolderControls
from mcilib.cli._output import count
from mcilib.cli._stop import Call, StopSignal
from mcilib.config import Settings
from mcilib.consent import ControlState, Grant
from mcilib.consent.dispatch import carry_out
from mcilib.delivery.schedule import SCHEDULE_FILE, ScheduleFile, endpoint_of
from mcilib.delivery.spool import DirectorySpool, intact_frame
from mcilib.delivery.uploader import Uploader
from mcilib.errors import DeliveryError, GrantError
from mcilib.protocols import Allowed, Receipt, SendPlan

ROUND_S = 60.0
"""One flush takes at most this long; while each delivers something, another follows."""

PROGRESS_EVERY_S = 1.0

DELETION_S = 10.0
"""For the request to delete all, after a withdrawal."""

ENDS_S = 0.5
"""For a request under way when the end is asked for; what it delivers is sent again later, as a duplicate."""


def drain(settings: Settings, folder: Path, grant: Grant, stop: StopSignal) -> int:
    """Uploads all that waits, whatever battery and network are like: somebody asked for it. Raises `DeliveryError` when
    something still does."""
    print(f"Uploading what waits in {folder} to {settings.upload.endpoint}. Stop with Ctrl-C.", flush=True)
    before = DirectorySpool.read_statistics(folder / "spool")
    reason = upload(settings, folder, grant, stop)
    if withdrawn(folder, grant):
        return _told_withdrawn(folder, reason)
    after = DirectorySpool.read_statistics(folder / "spool")
    print(f"Delivered {count(after.delivered_batches - before.delivered_batches, 'batch')}.", flush=True)
    lost = sum(after.lost.values()) - sum(before.lost.values())
    if lost:
        print(f"Lost {count(lost, 'batch')}; `mcilib status` tells why.", flush=True)
    # A request that the operator has not decided yet is no reason; one that the receiver has not carried out is.
    unsent = after.control_records if reason else 0
    if after.waiting_batches or unsent:
        still = [count(after.waiting_batches, "batch")] if after.waiting_batches else []
        still += [f"{count(unsent, 'message')} to the receiver"] if unsent else []
        cause = "stopped before it was done" if stop.requested else reason
        raise DeliveryError(
            f"{' and '.join(still)} still on this device: {cause}",
            "Run it again later." if lost else "Nothing is lost; run it again later.",
        )
    return 0


def request_deletion(settings: Settings, folder: Path, stop: StopSignal) -> int:
    """After a withdrawal: asks the receiver once to delete all, and sends nothing else. Raises `GrantError` when it has
    not confirmed."""
    print(
        "You have withdrawn: nothing is captured. Asking the receiver to delete all that it has of you.",
        flush=True,
    )
    return _told_withdrawn(folder, upload(settings, folder, None, stop, DELETION_S))


def _told_withdrawn(folder: Path, reason: str) -> int:
    withdrawal = controls_of(folder).withdrawal
    if withdrawal is not None and withdrawal.confirmed_ns is None:
        raise GrantError(
            f"The receiver has not confirmed yet that all is deleted ({reason or 'no answer'})",
            "The request stays here; run it again later.",
        )
    print("It has confirmed that all is deleted.")
    return 0


def send_requests(settings: Settings, folder: Path, grant: Grant, stop: StopSignal) -> None:
    """What the participant has asked of the receiver, such as to delete data, is not void with the grant: it is sent
    once, and nothing else. Raises `SpoolError`."""
    if any((folder / "spool" / "control").glob("*.json")):
        only = SendPlan(Allowed.CONTROL, "the grant is void")
        upload(settings, folder, grant, stop, DELETION_S, only, fallback_age_s=math.inf)


def upload(
    settings: Settings,
    folder: Path,
    grant: Grant | None,
    stop: StopSignal,
    timeout_s: float | None = None,
    plan: SendPlan = SendPlan(),  # noqa: B008  (frozen)
    fallback_age_s: float | None = None,
) -> str:
    """Uploads until nothing waits, nothing moves any more, the end is asked for, or the time is over. Keeps to `plan`.

    Returns why something still waits, in words; empty when nothing does. Raises `SpoolError`.
    """
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

    def changed(state: ControlState) -> None:
        uploader.hold_s = max(settings.upload.hold_s, state.hold_s)

    controls = FolderControls(
        folder, spool, grant, pause_cap_s=settings.consent.pause_cap_s, on_change=changed
    )

    def decided(record_id: str, receipt: Receipt) -> None:
        approved = receipt.decision == "approved"
        controls.participant.decide(record_id, approved, receipt.decided_ns, receipt.answer)

    uploader = Uploader(
        spool,
        transport,
        may_send=controls.may_send,
        plan=lambda: plan,
        interval_s=settings.upload.interval_s,
        max_request_bytes=settings.upload.max_request_bytes,
        hold_s=settings.upload.hold_s,
        fallback_age_s=settings.upload.fallback_age_s if fallback_age_s is None else fallback_age_s,
        schedule_file=ScheduleFile(spool.path / SCHEDULE_FILE),
        endpoint=endpoint_of(transport),
        on_decision=decided,
        on_carried_out=controls.participant.confirm,
    )
    channel = ControlServer(
        folder, lambda name, arguments: carry_out(controls, name, arguments), lambda problem: None
    )
    round_s = ROUND_S if timeout_s is None else timeout_s
    try:
        controls.open()
        uploader.start()
        channel.start()
        while True:
            before, asked_before = len(spool.waiting()), _requests(spool)
            call = Call(lambda: uploader.flush(round_s), stop.wake)
            ends_s = time.monotonic() + round_s + PROGRESS_EVERY_S
            while not call.done and not stop.requested and time.monotonic() < ends_s:
                stop.wait(PROGRESS_EVERY_S)
                _progress(len(spool.waiting()))
            result = call.result()
            waiting = len(spool.waiting())
            if _requests(spool) - asked_before and not stop.requested:
                continue  # the participant has just asked for something
            if not waiting:
                return "" if result is None or result.settled else result.detail
            if stop.requested or timeout_s is not None or waiting >= before:
                return result.detail if result is not None else "no answer"
    finally:
        channel.stop()
        uploader.stop(ENDS_S)
        transport.close()
        controls.close()
        spool.close()


def _requests(spool: DirectorySpool) -> frozenset[str]:
    return frozenset(record.record_id for record in spool.controls())


def _progress(waiting: int) -> None:
    if sys.stderr.isatty():
        print(
            f"\r{count(waiting, 'batch')} waiting \033[K",
            end="" if waiting else "\n",
            file=sys.stderr,
            flush=True,
        )
