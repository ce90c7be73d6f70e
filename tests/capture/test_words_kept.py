"""A participant's word where something comes in between: a restart, a disk that hangs or refuses, two words at once."""

from __future__ import annotations

import threading
import time

import pytest
from running import Run, narrower
from waiting import until

from mcilib.consent.exemption import ExemptScope
from mcilib.errors import GrantError, SpoolError
from mcilib.format.seal import generate
from mcilib.testing.fakes import example_grant


def test_a_collector_that_is_started_again_keeps_to_the_newer_grant(tmp_path):
    grant = example_grant("keys", "pointer")
    run = Run(tmp_path, grant=grant)
    run.collector._sources = (run.pointer,)  # one that the narrower grant covers too
    with run:
        run.collector.regrant(narrower(grant, "pointer"))
    with run:
        assert run.collector._controls.gate.grant.scopes == ("pointer",)


def test_after_a_pause_that_ended_while_it_was_stopped_a_start_is_told_once(tmp_path):
    run = Run(tmp_path)
    with run:
        run.collector.pause(60)
    run.clock.advance(61)
    with run:
        assert run.move(1), "nothing is waited for"
        time.sleep(0.1)
        assert run.indicator.kinds == ["started", "started"]


def test_the_end_of_a_pause_is_known_before_the_thread_that_waits_for_it_is_woken(tmp_path):
    with Run(tmp_path) as run:
        recorder, told = run.collector._recorder, []
        settle = recorder.settle

        def look(*args, **more):
            told.append(run.collector._due_s())
            settle(*args, **more)

        recorder.settle = look
        run.collector.pause(30)
        assert told[-1] == pytest.approx(30, abs=1)


def test_a_pause_does_not_wait_for_another_word_that_the_disk_holds_up(tmp_path, monkeypatch):
    with Run(tmp_path) as run:
        decisions, hangs = run.collector._controls.participant._decisions, threading.Event()
        monkeypatch.setattr(decisions, "save", lambda: hangs.wait(10))
        first = threading.Thread(target=lambda: run.collector.hold(60))
        first.start()
        until(lambda: run.collector.decisions.hold_s == 60)
        second = threading.Thread(target=lambda: run.collector.pause(60))
        second.start()
        try:
            until(lambda: run.collector.held is not None, timeout_s=8)
            until(lambda: not run.move(1), timeout_s=8)
        finally:
            hangs.set()
            first.join()
            second.join()


def test_a_pause_does_not_wait_for_a_deletion_that_the_disk_holds_up(tmp_path, monkeypatch):
    with Run(tmp_path) as run:
        hangs, begun = threading.Event(), threading.Event()

        def purge(batch_ids=None):
            begun.set()
            hangs.wait(10)
            return 0

        run.move(1)
        run.collector.commit()
        monkeypatch.setattr(run.collector.spool, "purge", purge)
        first = threading.Thread(target=lambda: run.collector.forget(60))
        first.start()
        assert begun.wait(20)
        second = threading.Thread(target=lambda: run.collector.pause(60))
        second.start()
        try:
            until(lambda: run.collector.held is not None, timeout_s=8)
            until(lambda: not run.move(1), timeout_s=8)
        finally:
            hangs.set()
            first.join()
            second.join()


def test_what_a_narrower_grant_does_not_cover_is_off_though_the_disk_refuses(tmp_path, monkeypatch):
    grant = example_grant("keys", "pointer")
    with Run(tmp_path, grant=grant) as run:
        run.key("a")
        run.collector.commit()

        def refuse(batch_ids=None):
            raise SpoolError("The disk refuses", "Mend it.")

        monkeypatch.setattr(run.collector.spool, "purge", refuse)
        with pytest.raises(SpoolError):
            run.collector.regrant(narrower(grant, "pointer"))
        assert run.keyboard._sink is None or not run.key("b"), "its source is stopped"
        assert "keyboard" not in run.collector._capture._on


def test_a_batch_on_its_way_to_the_disk_does_not_arrive_after_a_withdrawal(tmp_path):
    with Run(tmp_path) as run:
        participant, recorder = run.collector._controls.participant, run.collector._recorder
        _, public = generate()
        void, asked, go_on = participant.void, threading.Event(), threading.Event()

        def recipients():  # asked when a batch is to be sealed: here, just before all is withdrawn
            asked.set()
            go_on.wait(10)
            return (public,)

        def late(*who):
            participant.void = void
            run.move(1)
            recorder._recipients = recipients
            committing.start()
            assert asked.wait(20)
            void(*who)
            threading.Timer(0.2, go_on.set).start()

        committing = threading.Thread(target=run.collector.commit)
        participant.void = late
        run.collector.withdraw()
        committing.join()
        assert run.collector.spool.waiting() == ()


def test_it_says_so_when_all_that_is_collected_here_is_exempt(tmp_path):
    run = Run(tmp_path, grant=example_grant("keys", "pointer", "apps"))
    with run:
        first = run.collector.request_exemption(ExemptScope(scopes=("keys", "pointer")), "personal")
        assert "exempt" in (run.collector.held or "")
        assert "exempt" in (run.changes[-1].held or "")
    with run:
        assert "exempt" in (run.collector.held or "")
        assert run.indicator.kinds == ["started"], "nothing has begun"
        run.collector.withdraw_exemption(first.exemption_id)
        until(lambda: run.move(1))
        assert run.collector.held is None
        assert run.indicator.kinds == ["started", "resumed"]


def test_what_the_disk_has_refused_is_tried_again_at_the_end(tmp_path, monkeypatch):
    import mcilib.consent.decisions as module

    with Run(tmp_path) as run:

        def refuse(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(module, "write_private", refuse)
            with pytest.raises(SpoolError):
                run.collector.pause(600)
    with Run(tmp_path) as again:
        assert "paused" in (again.collector.held or "")


@pytest.mark.parametrize("word", ["withdraw", "regrant"])
def test_what_ends_ends_at_once_while_the_disk_holds_up_the_recorder(tmp_path, word):
    grant = example_grant("keys", "pointer")
    with Run(tmp_path, grant=grant) as run:
        words = {
            "withdraw": run.collector.withdraw,
            "regrant": lambda: run.collector.regrant(narrower(grant, "pointer")),
        }
        work = run.collector._recorder._work
        busy, go_on = threading.Event(), threading.Event()

        def hang():
            with work:
                busy.set()
                go_on.wait(10)

        hanging, saying = threading.Thread(target=hang), threading.Thread(target=words[word])
        hanging.start()
        assert busy.wait(20)
        saying.start()
        try:
            until(lambda: not run.key("a"), timeout_s=8)
        finally:
            go_on.set()
            hanging.join()
            saying.join()


def test_a_grant_that_was_withdrawn_is_not_taken_again(tmp_path):
    with Run(tmp_path) as run:
        grant = run.collector._controls.gate.grant
        run.collector.withdraw()
        run.collector.flush()
        until(lambda: run.collector.decisions.withdrawal.confirmed_ns is not None)
        with pytest.raises(GrantError, match="withdrawn"):
            run.collector.regrant(narrower(grant, "pointer"))
        assert run.collector.held
