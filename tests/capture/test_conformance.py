"""The checks that others will use pass on our own parts, and fail on parts that break a promise."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from mcilib import DirectorySpool, KeyPress, Layout, Move
from mcilib.policy.state import ResourceState
from mcilib.protocols import Fate, Outcome, Receipt, ReceiptStatus, Reply
from mcilib.resources.session import SessionWatch
from mcilib.resources.watch import ResourceWatch
from mcilib.statistics import Health, Problem
from mcilib.testing.conformance import (
    check_control,
    check_resources,
    check_session,
    check_sink,
    check_source,
    check_spool,
    check_transport,
)
from mcilib.testing.fakes import FakeResources, FakeSession, FakeSource, FakeTransport, ListSink, MemorySpool


def drive(source):
    source.feed(*(Move(time.monotonic_ns(), n, n) for n in range(3)))


def test_fakes_keep_the_promises(tmp_path):
    check_sink(ListSink)
    check_sink(lambda: ListSink(capacity=5))
    check_source(FakeSource, drive)
    check_spool(MemorySpool)
    check_transport(FakeTransport)

    spools: list[DirectorySpool] = []

    def directory():
        spool = DirectorySpool(tmp_path / f"spool {len(spools)}")
        spool.open()
        spools.append(spool)
        return spool

    check_spool(directory)
    check_control(MemorySpool)
    check_control(directory)
    for spool in spools:
        spool.close()


class TellsItsStart(FakeSource):
    """As a keyboard source does of its layout."""

    def __init__(self):
        super().__init__("keyboard", "keys")

    def start(self, sink):
        super().start(sink)
        super().feed(Layout(time.monotonic_ns(), "us"))


@pytest.mark.parametrize("event", [partial(KeyPress, key="letter"), partial(Layout, name="fr")])
def test_a_source_may_tell_how_things_are(event):
    def drive(source):
        source.feed(event(time.monotonic_ns()))

    check_source(TellsItsStart, drive)


class EmitsAfterStop(FakeSource):
    def stop(self):
        pass


class Mute(FakeSource):
    def feed(self, *events):
        return 0


class TellsItsStartOnly(Mute):
    """What it tells of how things are is no input."""

    def start(self, sink):
        super().start(sink)
        sink.emit(Layout(time.monotonic_ns() - 5_000_000, "us"))


class Backwards(FakeSource):
    def feed(self, *events):
        return super().feed(*reversed(events))


class WrongKinds(FakeSource):
    def __init__(self):
        super().__init__("keyboard", "keys")


class Slow(FakeSource):
    def stop(self):
        super().stop()
        time.sleep(0.7)


@pytest.mark.parametrize(
    ("broken", "message"),
    [(EmitsAfterStop, "after stop"), (Mute, "no event"), (TellsItsStartOnly, "no event"),
     (Backwards, "order"), (WrongKinds, "not all of scope"),
     (Slow, "stop took"), (lambda: FakeSource(scope="mind"), "not in")],
)  # fmt: skip
@pytest.mark.as_shipped
def test_broken_sources(broken, message, monkeypatch):
    from mcilib.testing import conformance

    monkeypatch.setattr(conformance, "_PATIENCE_S", 0.2)
    with pytest.raises(AssertionError, match=message):
        check_source(broken, drive)


class Forgets(MemorySpool):
    def read(self, batch_id, /):
        return None


class NewestFirst(MemorySpool):
    def waiting(self, min_age_s=0.0, /):
        return super().waiting(min_age_s)[::-1]


class KeepsSettled(MemorySpool):
    def settle(self, batch_id, fate: Fate, /):
        pass


class KnowsNoAge(MemorySpool):
    def waiting(self, min_age_s=0.0, /):
        return super().waiting()


class SettlesOne(MemorySpool):
    def settle_all(self, fates, /):
        super().settle_all(dict([*fates.items()][:1]))


class SettlesAll(MemorySpool):
    def settle_all(self, fates, /):
        super().settle_all(dict.fromkeys(self.waiting(), Fate.DELIVERED))


class SkipsSequences(MemorySpool):
    def commit(self, seal, /):
        self._sequence += 1
        return super().commit(seal)


@pytest.mark.parametrize(
    ("broken", "message"),
    [(Forgets, "can be read"), (NewestFirst, "oldest first"), (KeepsSettled, "no longer waits"),
     (SkipsSequences, "used up a sequence"), (KnowsNoAge, "waited for so long"), (SettlesOne, "settles those"),
     (SettlesAll, "and no other")],
)  # fmt: skip
def test_broken_spools(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_spool(broken)


class Purges(MemorySpool):
    def purge(self, batch_ids=None, /):
        gone = super().purge(batch_ids)
        self._controls.clear()
        return gone


class PurgesMore(MemorySpool):
    def purge(self, batch_ids=None, /):
        return super().purge()


class NeverSettles(MemorySpool):
    def settle_control(self, record_id, /):
        pass


@pytest.mark.parametrize(
    ("broken", "message"),
    [(Purges, "leaves the control records"), (PurgesMore, "that it was given"), (NeverSettles, "and no other")],
)  # fmt: skip
def test_broken_spools_of_control_records(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_control(broken)


class NoReceipts(FakeTransport):
    def send(self, batches, /):
        return Reply(Outcome.DELIVERED)


class NoMemory(FakeTransport):
    def send(self, batches, /):
        self.received.clear()
        return super().send(batches)


class ControlsRejected(FakeTransport):
    def send_control(self, records, /):
        receipts = {r.record_id: Receipt(r.record_id, ReceiptStatus.REJECTED, "no") for r in records}
        return Reply(Outcome.DELIVERED, receipts)


class ControlsSilent(FakeTransport):
    def send_control(self, records, /):
        return Reply(Outcome.DELIVERED)


class ControlsForgotten(FakeTransport):
    def send_control(self, records, /):
        self.controls.clear()
        return super().send_control(records)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (NoReceipts, "receipts"),
        (NoMemory, "a resend gets"),
        (ControlsRejected, "was rejected: no"),
        (ControlsSilent, "got no receipt"),
        (ControlsForgotten, "a control record sent again gets"),
    ],
)
def test_broken_transports(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_transport(broken)


class Blocks(ListSink):
    @property
    def room(self):
        return 10**9

    def emit(self, event, /):
        return False


def test_broken_sinks():
    with pytest.raises(AssertionError, match="although there was room"):
        check_sink(Blocks)


# --- sessions -----------------------------------------------------------------------------------------------


def become(session, away):
    session.become(away)


def test_the_fake_session_and_the_real_watch_keep_the_promise(logind):
    check_session(FakeSession, become)
    mine = logind.add("7")
    logind.own(mine)

    def make_it(_, away):
        logind.lock(mine, away == "locked")
        logind.activate(mine, away != "switched")

    check_session(SessionWatch, make_it)


class Mum(FakeSession):
    def start(self, on_change, /):
        pass


class Asleep(FakeSession):
    away = None


class TellsAfterStop(FakeSession):
    def stop(self):
        pass


class SlowToStart(FakeSession):
    def start(self, on_change, /):
        time.sleep(1.7)
        super().start(on_change)


class SlowToStop(FakeSession):
    def stop(self):
        super().stop()
        time.sleep(0.7)


class Sick(FakeSession):
    def health(self):
        return Health((Problem("session", "It is ill", "Wait."),))


class OnlyLocks(FakeSession):
    def become(self, away):
        super().become("locked" if away else None)


class LeavesAThread(FakeSession):
    def stop(self):
        super().stop()
        threading.Thread(target=time.sleep, args=(0.5,)).start()


@pytest.mark.parametrize(
    ("broken", "message"),
    [(Mum, "not called for None"), (Asleep, "when start returns"), (TellsAfterStop, "after stop"), (Sick, "ill"),
     (SlowToStart, "start took"), (SlowToStop, "stop took"), (OnlyLocks, "'switched'"),
     (LeavesAThread, "threads left")],
)  # fmt: skip
@pytest.mark.as_shipped
def test_broken_sessions(broken, message, monkeypatch):
    from mcilib.testing import conformance

    monkeypatch.setattr(conformance, "_PATIENCE_S", 0.2)
    with pytest.raises(AssertionError, match=message):
        check_session(broken, become)


# --- resources ----------------------------------------------------------------------------------------------


def plug(resources, plugged):
    resources.become(on_mains=plugged)


def fake_resources(kind=FakeResources):
    return kind(ResourceState(battery_present=True, on_mains=True))


def test_the_fake_resources_and_the_real_watch_keep_the_promise(laptop, tmp_path):
    check_resources(fake_resources, plug)
    check_resources(lambda: ResourceWatch(tmp_path), lambda _, plugged: laptop.on_mains(plugged))


class MumMachine(FakeResources):
    def start(self, on_change, /):
        pass


class LateMachine(FakeResources):
    state = ResourceState()


class OneStateOnly(FakeResources):
    """Hands out one object and changes it."""

    def become(self, **fields):
        for name, value in fields.items():
            object.__setattr__(self._state, name, value)
        if self._on_change:
            self._on_change()


class ForgetsWhenRefreshed(FakeResources):
    def refresh(self):
        if self._on_change:
            self._state = ResourceState()


class MachineTellsAfterStop(FakeResources):
    def stop(self):
        pass


class MachineSlowToStart(FakeResources):
    def start(self, on_change, /):
        time.sleep(1.7)
        super().start(on_change)


class MachineSlowToStop(FakeResources):
    def stop(self):
        super().stop()
        time.sleep(0.7)


class SickMachine(FakeResources):
    def health(self):
        return Health((Problem("resources", "It is ill", "Wait."),))


class RaisesBeforeItStarts(FakeResources):
    def refresh(self):
        assert self._on_change is not None, "it fell over"


class MachineLeavesAThread(FakeResources):
    def stop(self):
        super().stop()
        threading.Thread(target=time.sleep, args=(0.5,)).start()


@pytest.mark.parametrize(
    ("broken", "message"),
    [(MumMachine, "not called within"), (LateMachine, "when start returns"), (OneStateOnly, "has changed"),
     (ForgetsWhenRefreshed, "forgotten"), (MachineTellsAfterStop, "after stop"), (MachineSlowToStart, "start took"),
     (MachineSlowToStop, "stop took"), (SickMachine, "ill"), (RaisesBeforeItStarts, "fell over"),
     (MachineLeavesAThread, "threads left")],
)  # fmt: skip
@pytest.mark.as_shipped
def test_broken_resources(broken, message, monkeypatch):
    from mcilib.testing import conformance

    monkeypatch.setattr(conformance, "_TOLD_S", 0.2)
    with pytest.raises(AssertionError, match=message):
        check_resources(lambda: fake_resources(broken), plug)
