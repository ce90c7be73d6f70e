"""Batches are sealed before they go anywhere; what cannot be sealed waits, and never goes in clear."""

from __future__ import annotations

import logging
import time

import pytest
from recording import batches, recorder, rows
from waiting import until

from mcilib import Collector, ConfigError, Move, limits
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import SealError
from mcilib.format.batch import decode, read_header
from mcilib.format.seal import generate, key_id
from mcilib.testing.fakes import (
    FakeSource,
    FakeTransport,
    ManualClock,
    MemorySpool,
    example_batch,
    example_grant,
)

MS = 1_000_000
AT = ManualClock().monotonic_ns()
KEYS = [generate() for _ in range(3)]
SECRET = [secret for secret, _ in KEYS]
PUBLIC = [public for _, public in KEYS]


def test_each_recipient_opens_what_was_captured_and_nobody_else():
    subject, spool = recorder(recipients=PUBLIC[:2])
    subject.emit(Move(AT, 1, 2))
    subject.stop()
    for secret in SECRET[:2]:
        [batch] = batches(spool, [secret])
        assert batch.events == (Move(AT, 1, 2),)
        assert batch.header.key_ids == tuple(map(key_id, PUBLIC[:2]))
    with pytest.raises(SealError):
        batches(spool, [SECRET[2]])
    with pytest.raises(SealError):
        batches(spool)


def test_recipients_change_while_it_runs():
    now = [PUBLIC[:1]]
    subject, spool = recorder(recipients=lambda: now[0])
    for n, recipients in enumerate([PUBLIC[:1], iter(PUBLIC[1:3]), PUBLIC[2:]]):
        now[0] = recipients  # type: ignore[call-overload]  # whatever gives them once will do
        subject.emit(Move(AT + n * MS, n, n))
        assert subject.commit()
    subject.stop()
    key_ids = [read_header(spool.read(id_).data).key_ids for id_ in spool.waiting()]
    assert key_ids == [tuple(map(key_id, of)) for of in (PUBLIC[:1], PUBLIC[1:3], PUBLIC[2:])]
    assert batches(spool, [SECRET[0], SECRET[2]])[2].events == (Move(AT + 2 * MS, 2, 2),)


def _gone():
    raise OSError("the file is gone: age1secret")


def _gone_in_our_words():
    raise SealError("The recipients file is gone", "Write it again.")


BROKEN = {
    "raises": _gone,
    "raises ours": _gone_in_our_words,
    "no key": lambda: ["age1nobody"],
    "a secret key": lambda: [SECRET[0]],
    "one text": lambda: PUBLIC[0],
    "an empty text": lambda: "",
    "nobody": lambda: (),
    "nothing": lambda: None,
    "not texts": lambda: [None],
    "far too many": lambda: PUBLIC * 100,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_while_nothing_can_be_sealed_batches_wait_and_nothing_goes_in_clear(broken, caplog):
    now = [broken]
    subject, spool = recorder(recipients=lambda: now[0](), started=False)
    for n in range(3):
        subject.emit(Move(AT + n * MS, n, n))
        assert not subject.commit()
    assert not spool.waiting()
    [problem] = subject.health().problems
    assert problem.part == "seal"
    assert len(caplog.records) == 1  # told once
    assert "age1secret" not in caplog.text
    assert SECRET[0] not in caplog.text
    assert subject.statistics().open_events == 3
    now[0] = lambda: PUBLIC[:1]
    assert subject.commit()
    assert subject.health().ok
    assert [batch.events[0].x for batch in batches(spool, SECRET[:1])] == [0, 1, 2]
    assert [batch.header.sequence for batch in batches(spool, SECRET[:1])] == [1, 2, 3]


def test_sealing_is_tried_again_by_itself(monkeypatch):
    monkeypatch.setattr(limits, "SPOOL_RETRY_S", 0.05)
    asked = []

    def recipients():
        asked.append(1)
        return PUBLIC[:1] if len(asked) > 3 else _gone()

    subject, spool = recorder(recipients=recipients)
    subject.emit(Move(AT, 1, 1))
    subject.commit()
    until(spool.waiting)
    subject.stop()
    assert len(asked) == 4


def test_what_waits_too_long_is_lost_and_counted(monkeypatch):
    monkeypatch.setattr(limits, "MEMORY_MAX_EVENTS", 10)
    recipients = [_gone]
    subject, spool = recorder(
        recipients=lambda: recipients[0](), max_events=2, clock=ManualClock(), started=False
    )
    for n in range(17):
        subject.emit(Move(AT + n * MS, n, n))
    subject._turn()
    assert subject.statistics().dropped == {"spool": 6}
    recipients[0] = lambda: PUBLIC[:1]
    subject.commit()
    read = batches(spool, SECRET[:1])
    assert [event.x for batch in read for event in batch.events] == list(range(6, 17))
    assert read[0].metadata.coverage.dropped == {"spool": 6}


def test_what_is_still_unsealed_at_the_end_is_counted_as_lost():
    subject, spool = recorder(recipients=_gone)
    subject.emit(Move(AT, 1, 1))
    subject.stop()
    assert subject.statistics().dropped == {"spool": 1}
    assert not spool.waiting()


def test_a_spool_that_cannot_be_written_is_not_taken_for_the_seal():
    spool = MemorySpool()
    subject, _ = recorder(spool, recipients=PUBLIC, started=False)
    spool.fail_next = 1
    subject.emit(Move(AT, 1, 1))
    subject.commit()
    assert [problem.part for problem in subject.health().problems] == ["spool"]


# --- the collector ------------------------------------------------------------------------------------------


def _collector(tmp_path, source, **options):
    return Collector(sources=[source], grant=example_grant(), state_dir=tmp_path / "state", **options)


def test_nothing_in_clear_touches_the_disk_and_delivery_does_not_open_it(tmp_path):
    source, transport = FakeSource(), FakeTransport()
    with _collector(tmp_path, source, recipients=PUBLIC[:2], transport=transport) as subject:
        source.feed(*(Move(time.monotonic_ns() + n * MS, n, 0) for n in range(50)))
        assert subject.flush().delivered
        source.feed(Move(time.monotonic_ns() + 60 * MS, 51, 0))
    on_disk = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert any(path.suffix == ".mcib" for path in on_disk)
    for path in on_disk:
        assert b"age-encryption.org" in path.read_bytes() or path.suffix != ".mcib"
    delivered = [decode(sealed.data, SECRET[1:2]) for sealed in transport.received.values()]
    assert [event.x for batch in delivered for event in batch.events] == list(range(50))
    spool = DirectorySpool(tmp_path / "state" / "spool")
    spool.open()
    [waiting] = spool.waiting()
    assert decode(spool.read(waiting).data, SECRET[:1]).events[0].x == 51
    spool.close()


@pytest.mark.parametrize("wrong", [
    ["age1nobody"], [SECRET[0]], [PUBLIC[0], "x"], PUBLIC * 100, lambda: ["age1nobody"], _gone, lambda: None,
], ids=["no key", "secret", "second", "many", "function", "fails", "none"])  # fmt: skip
def test_recipients_that_are_none_are_refused_before_anything_is_captured(tmp_path, wrong, caplog):
    caplog.set_level(logging.DEBUG)
    source = FakeSource()
    subject = _collector(tmp_path, source, recipients=wrong)
    with pytest.raises(SealError) as caught:
        subject.start()
    assert SECRET[0] not in str(caught.value)
    assert SECRET[0] not in caplog.text
    assert source.feed(Move(0, 1, 1)) == 0
    assert list(tmp_path.iterdir()) == []
    assert not subject.statistics().running


def test_one_text_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match="recipients"):
        _collector(tmp_path, FakeSource(), recipients=PUBLIC[0])


def test_recipients_that_go_missing_later_are_a_matter_of_health(tmp_path):
    now = [lambda: PUBLIC[:1]]
    source = FakeSource()
    with _collector(tmp_path, source, recipients=lambda: now[0]()) as subject:
        now[0] = _gone
        source.feed(Move(time.monotonic_ns(), 1, 1))
        result = subject.flush()
        assert not result.committed
        assert [problem.part for problem in subject.health().problems] == ["seal"]
        now[0] = lambda: PUBLIC[:1]
        assert subject.flush().committed
        assert subject.health().ok
        assert subject.statistics().spool.waiting_batches == 1


def test_without_recipients_it_is_in_clear():
    subject, spool = recorder()
    subject.emit(Move(AT, 1, 1))
    subject.stop()
    assert rows(spool) == [Move(AT, 1, 1)]
    assert not batches(spool)[0].header.sealed


def test_the_example_batch_is_sealed_when_asked():
    assert decode(example_batch().data).events
    sealed = example_batch(recipients=PUBLIC[:1])
    assert read_header(sealed.data).key_ids == (key_id(PUBLIC[0]),)
    assert decode(sealed.data, SECRET[:1]).events == decode(example_batch().data).events
