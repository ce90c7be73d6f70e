"""What the participant decides in a running collector, with fakes: what each does to the data, what the host is told."""

from __future__ import annotations

import hashlib
import time

import pytest
from running import Run, Seen, narrower, rows
from waiting import until

from mcilib import Collector, ConfigError, Focus, GrantError, Move, Reader, limits
from mcilib.consent.exemption import ExemptionState, ExemptScope
from mcilib.delivery import control
from mcilib.errors import IndicatorError
from mcilib.protocols import Outcome
from mcilib.testing.fakes import FakeSource, FakeTransport, ManualClock, example_grant

MINUTE_NS = 60_000_000_000


def test_a_pause_is_at_once_and_ends_by_itself(tmp_path):
    with Run(tmp_path) as run:
        assert run.move(1)
        pause = run.collector.pause(600)
        assert pause.duration_ns == 600e9
        assert not run.move(2)
        assert not run.key("letter")
        assert "paused it, 10 min" in run.collector.held or "paused it, 9 min" in run.collector.held
        assert run.indicator.kinds == ["started"]
        run.clock.advance(601)
        run.collector._controls.consider()
        until(lambda: run.collector.held is None)
        until(lambda: run.move(3))
        assert run.on_disk() == [1, 3]
        assert run.indicator.kinds == ["started", "resumed"]
        assert [change.what for change in run.changes] == ["pause", "due"]
        assert run.changes[0].held
        assert run.changes[1].held is None


def test_a_pause_ends_when_its_time_is_over_and_nobody_asks(tmp_path):
    from mcilib.clock import SystemClock

    with Run(tmp_path, clock=SystemClock()) as run:
        run.collector.pause(0.3)
        assert run.collector.held
        until(lambda: [change.what for change in run.changes] == ["pause", "due"])
        until(lambda: run.pointer.feed(Move(time.monotonic_ns(), 5, 5)))


def test_resume_ends_a_pause_early(tmp_path):
    with Run(tmp_path) as run:
        run.collector.pause()
        assert run.collector.decisions.pause.duration_ns == limits.PAUSE_S * 1e9
        run.collector.resume()
        until(lambda: run.move(1))
        assert run.collector.held is None
        assert run.indicator.kinds == ["started", "resumed"]


@pytest.mark.parametrize("is_seen", [True, False])
def test_who_asks_to_go_on_hears_whether_it_does(tmp_path, is_seen):
    """And not that the participant is still to be told, while a note of the desktop takes its time."""
    with Run(tmp_path) as run:
        run.collector.pause()
        show = run.indicator.show

        def slowly(notice):
            time.sleep(0.2)
            return show(notice) and is_seen

        run.indicator.show = slowly
        held = run.collector.control("resume", {})["held"]
        assert run.indicator.kinds == ["started", "resumed"]
        if is_seen:
            assert held is None
            assert run.move(1), "it hears already"
        else:
            assert "told first" in held


@pytest.mark.parametrize(
    ("cap_s", "asked_s", "allowed"), [(1800.0, 1801, False), (7200.0, 7200, True), (7200.0, 7201, False)]
)
def test_the_longest_pause(tmp_path, cap_s, asked_s, allowed):
    with Run(tmp_path, pause_cap_s=cap_s) as run:
        if allowed:
            run.collector.pause(asked_s)
            assert run.collector.held
        else:
            with pytest.raises(ConfigError, match="not allowed"):
                run.collector.pause(asked_s)
            assert run.collector.held is None


def test_an_operator_may_not_shorten_pauses(tmp_path):
    with pytest.raises(ConfigError, match="pause_cap_s"):
        Run(tmp_path, pause_cap_s=1799.0)


def test_a_pause_outlives_the_collector(tmp_path):
    grant = example_grant()
    with Run(tmp_path, grant=grant) as run:
        run.collector.pause(600)
    with Run(tmp_path, grant=grant, clock=run.clock) as again:
        assert again.collector.held
        assert not again.move(1)
        assert again.indicator.kinds == [], "nothing begins, so nothing is said to begin"
        again.collector.resume()
        until(lambda: again.move(2))
        assert again.on_disk() == [2]


def test_an_exempt_scope_is_off_and_the_others_go_on(tmp_path):
    with Run(tmp_path) as run:
        assert run.key("before")
        exemption = run.collector.request_exemption(ExemptScope(scopes=("keys",)), "personal", "of mine")
        assert exemption.state is ExemptionState.PENDING
        assert not run.key("while")
        assert run.move(1)
        assert sorted(map(str, run.on_disk())) == ["1", "before"]
        run.collector.flush()
        asked = [control.parse(record.data) for record in run.transport.controls.values()]
        assert [(one["kind"], one["exemption"]["note"]) for one in asked] == [("exemption", "of mine")]
        run.transport.decisions[exemption.exemption_id] = "denied"
        run.collector.flush()
        assert run.collector.decisions.exemptions[0].state is ExemptionState.DENIED
        until(lambda: run.key("denied"))
        assert "while" not in run.on_disk()
        assert "decided" in [change.what for change in run.changes]


def test_an_approved_exemption_stays_off_until_it_is_taken_back(tmp_path):
    with Run(tmp_path) as run:
        exemption = run.collector.request_exemption(ExemptScope(everything=True), "legal")
        run.transport.decisions[exemption.exemption_id] = "approved"
        run.collector.flush()
        assert run.collector.decisions.exemptions[0].state is ExemptionState.APPROVED
        assert not run.move(1)
        run.collector.withdraw_exemption(exemption.exemption_id)
        until(lambda: run.move(2))
        assert run.on_disk() == [2]


def test_forget_takes_what_is_in_memory_and_every_batch_it_touches(tmp_path):
    with Run(tmp_path) as run:
        run.move(1)
        run.collector.commit()
        run.clock.advance(3_600)
        run.move(2)
        run.collector.flush()
        *_, sent = (batch_id for request in run.transport.requests for batch_id in request)
        run.collector.hold(3_600)  # no more data goes, with the request neither
        run.move(3)
        run.collector.commit()
        run.move(4)
        forgotten = run.collector.forget(600)
        assert (forgotten.batches, forgotten.events, forgotten.asked) == (1, 1, 1)
        run.move(5)
        assert run.on_disk() == [5]
        run.collector.flush()
        (record,) = run.transport.controls.values()
        named = control.parse(record.data)["batches"]
        assert sent in named, "the one that was sent is asked back"
        assert len(named) == 2


def test_what_came_before_forget_is_gone_however_late_it_is_told(tmp_path):
    with Run(tmp_path) as run:
        late_ns = run.clock.monotonic_ns()
        run.clock.advance(1)
        run.collector.forget(60)
        run.pointer.feed(Move(late_ns, 1, 1))
        run.move(2)
        assert run.on_disk() == [2]


def test_held_batches_do_not_go(tmp_path):
    with Run(tmp_path) as run:
        run.collector.hold(3_600)
        run.move(1)
        assert not run.collector.flush().delivered
        assert run.transport.received == {}
        run.clock.advance(3_601)
        assert run.collector.flush().delivered
        run.collector.hold(0)
        run.move(2)
        assert run.collector.flush().delivered
        assert len(run.transport.received) == 2


def test_the_hosts_hold_is_the_least(tmp_path):
    with Run(tmp_path, hold_s=3_600) as run:
        run.collector.hold(60)
        run.move(1)
        run.clock.advance(61)
        assert not run.collector.flush().delivered


def test_withdraw_leaves_nothing_but_the_request(tmp_path):
    grant = example_grant()
    grant.save(tmp_path)
    with Run(tmp_path, grant=grant) as run:
        run.move(1)
        run.collector.commit()
        run.move(2)
        run.transport._script = [Outcome.RETRY] * 50
        forgotten = run.collector.withdraw()
        assert (forgotten.batches, forgotten.events) == (1, 1)
        assert not run.move(3)
        assert run.on_disk() == []
        assert not (tmp_path / "grant.json").exists()
        assert "withdrawn" in run.collector.held
        run.transport._script = []
        run.collector.flush()
        (record,) = run.transport.controls.values()
        assert control.parse(record.data)["participant"] == grant.participant
        assert run.transport.received == {}, "no data goes after a withdrawal"
        until(lambda: run.collector.decisions.withdrawal.confirmed_ns is not None)
        assert [change.what for change in run.changes] == ["withdraw", "confirmed"]
    with pytest.raises(GrantError, match="withdrawn"):
        Run(tmp_path, grant=grant).collector.start()
    with Run(tmp_path, grant=example_grant()) as fresh:
        assert fresh.move(1)


def test_a_withdrawal_that_is_not_confirmed_is_asked_again_at_the_next_start(tmp_path):
    grant = example_grant()
    with Run(tmp_path, grant=grant, transport=FakeTransport([Outcome.RETRY] * 50)) as run:
        run.collector.withdraw()
    for given in (grant, None):
        with Run(tmp_path, grant=given, transport=FakeTransport([Outcome.RETRY] * 50)) as again:
            assert "withdrawn" in again.collector.held
            assert not again.move(1)
            assert again.indicator.kinds == []
            assert again.collector.health().ok
    with Run(tmp_path, grant=None) as last:
        last.collector.flush()
        assert len(last.transport.controls) == 1
    with pytest.raises(GrantError, match="no grant"):
        Run(tmp_path, grant=None).collector.start()


def test_a_new_grant_goes_on_while_the_old_request_still_waits(tmp_path):
    with Run(tmp_path, transport=FakeTransport([Outcome.RETRY] * 50)) as run:
        run.collector.withdraw()
        old = run.collector._controls.gate.grant.participant
    fresh = example_grant()
    with Run(tmp_path, grant=fresh) as again:
        assert again.move(1)
        again.collector.flush()
        (record,) = again.transport.controls.values()
        assert control.parse(record.data)["participant"] == old
        assert len(again.transport.received) == 1
        assert again.collector.decisions.withdrawn == (hashlib.sha256(old.encode()).hexdigest(),)


def test_a_narrower_grant_is_at_once_and_takes_whole_batches_with_it(tmp_path):
    grant = example_grant("keys", "pointer")
    with Run(tmp_path, grant=grant, hold_s=3_600) as run:
        run.move(1)
        run.collector.commit()
        run.move(2)
        run.key("a")
        run.collector.commit()
        run.key("b")
        forgotten = run.collector.regrant(narrower(grant, "pointer"))
        assert (forgotten.batches, forgotten.events) == (1, 1)
        assert not run.key("c")
        assert run.move(3)
        assert run.on_disk() == [1, 3]
        assert run.changes[-1].what == "regrant"


def test_a_narrower_grant_at_a_start_takes_whole_batches_with_it(tmp_path):
    grant = example_grant("keys", "pointer")
    with Run(tmp_path, grant=grant) as run:
        run.key("a")
        run.collector.flush()
        run.move(1)
        run.collector.commit()
        run.key("b")
    again = Collector(
        sources=[FakeSource()], grant=narrower(grant, "pointer"), state_dir=tmp_path, indicator=Seen(), channel=False,
        transport=(transport := FakeTransport()),
    )  # fmt: skip
    with again:
        assert rows(tmp_path) == [1]
        again.flush()
        (record,) = transport.controls.values()
        assert len(control.parse(record.data)["batches"]) == 2, (
            "the one that was sent, and the one that was not"
        )


def test_what_was_captured_under_another_pseudonym_is_asked_for_under_that_one(tmp_path):
    first, second = example_grant(), example_grant()
    with Run(tmp_path, grant=first) as run:
        run.move(1)
        run.collector.flush()
    with Run(tmp_path, grant=second, clock=run.clock) as run:
        run.move(2)
        run.collector.flush()
        run.collector.forget(600)
        run.collector.flush()
        asked = [control.parse(record.data) for record in run.transport.controls.values()]
        assert {one["participant"] for one in asked} == {first.participant, second.participant}
        assert all(len(one["batches"]) == 1 for one in asked)


def test_a_grant_may_be_widened_again(tmp_path):
    grant = example_grant("keys", "pointer")
    with Run(tmp_path, grant=grant) as run:
        run.collector.regrant(narrower(grant, "pointer"))
        run.move(1)
        run.collector.regrant(narrower(grant, "pointer", "keys"))
        until(lambda: run.key("a"))
        assert run.on_disk() == [1, "a"]


def test_the_grant_in_the_folder_is_taken(tmp_path):
    grant = example_grant("keys", "pointer")
    with Run(tmp_path, grant=grant) as run:
        narrower(grant, "pointer").save(tmp_path)
        run.collector.regrant()
        assert not run.key("a")


def test_somebody_elses_grant_is_refused(tmp_path):
    with Run(tmp_path) as run:
        with pytest.raises(GrantError, match="another participant"):
            run.collector.regrant(example_grant("pointer"))
        assert run.key("a")


def test_nothing_is_captured_until_the_answer(tmp_path):
    grant = example_grant()
    with Run(tmp_path, grant=grant) as run:
        run.collector.ask("May titles of windows be kept too?")
        assert not run.move(1)
        assert "titles" in run.collector.held
    with Run(tmp_path, grant=grant) as again:
        assert not again.move(2), "also after a restart"
        again.collector.answered()
        until(lambda: again.move(3))
        again.collector.ask("Again?")
        again.collector.regrant(grant)
        until(lambda: again.move(4))
        assert again.on_disk() == [3, 4]


def test_a_policy_that_has_changed_is_asked_for(tmp_path):
    grant = example_grant(policy="Old rules.\n")
    with pytest.raises(GrantError, match="policy has changed"):
        Run(tmp_path, grant=grant, policy="New rules.").collector.start()
    with Run(tmp_path, grant=grant, policy="Old rules.") as run:
        with pytest.raises(GrantError, match="policy has changed"):
            run.collector.regrant(narrower(grant, "pointer", policy="Other rules."))
        assert run.move(1)


@pytest.mark.parametrize("answer", [False, None, RuntimeError("of the host")])
def test_what_the_participant_cannot_see_does_not_begin(tmp_path, answer):
    run = Run(tmp_path, indicator=Seen(answer))
    with pytest.raises(IndicatorError, match="cannot be told"):
        run.collector.start()
    assert not run.move(1)


def test_what_the_participant_cannot_see_does_not_go_on(tmp_path):
    with Run(tmp_path, indicator=Seen(True, False)) as run:
        run.collector.pause()
        run.collector.resume()
        until(lambda: len(run.indicator.notices) == 2)
        assert not run.move(1)
        until(lambda: any(p.part == "indicator" for p in run.collector.health().problems))


def test_the_notice_says_who_and_what(tmp_path):
    with Run(tmp_path) as run:
        (notice,) = run.indicator.notices
        assert (notice.operator, notice.scopes, notice.state_dir) == (
            "Example Lab",
            ("keys", "pointer"),
            str(tmp_path),
        )
        run.collector.pause()
        run.collector.request_exemption(ExemptScope(scopes=("keys",)), "personal")
        run.collector.resume()
        until(lambda: len(run.indicator.notices) == 2)
        assert run.indicator.notices[1].scopes == ("pointer",)


def test_a_host_that_fails_to_listen_harms_nothing(tmp_path):
    def fails(change):
        raise RuntimeError("of the host")

    run = Run(tmp_path)
    run.collector._on_control = fails
    with run:
        run.collector.pause()
        assert not run.move(1)


def test_controls_need_a_running_collector(tmp_path):
    with pytest.raises(GrantError, match="does not run"):
        Run(tmp_path).collector.pause()


def test_the_grant_ends_and_so_does_capture(tmp_path):
    from datetime import timedelta

    with Run(tmp_path, grant=example_grant(expires_in=timedelta(seconds=30))) as run:
        assert run.move(1)
        run.clock.advance(31)
        run.collector._controls.consider()
        assert not run.move(2)
        assert "expired" in run.collector.held


def test_each_batch_names_the_audit_log_as_it_was(tmp_path):
    with Run(tmp_path) as run:
        run.move(1)
        run.collector.commit()
        run.collector.pause()
        run.collector.resume()
        until(lambda: run.move(2))
        run.collector.commit()
        heads = [batch.metadata.audit for batch in Reader(tmp_path / "spool").batches()]
        assert len(set(heads)) == 2
        assert heads[-1] == run.collector._controls.participant.audit.head


def test_a_title_is_gone_with_its_scope(tmp_path):
    window = FakeSource("window", "titles")
    clock = ManualClock(wall_ns=time.time_ns())
    subject = Collector(
        sources=[window], grant=example_grant("titles"), state_dir=tmp_path, clock=clock, indicator=Seen(), channel=False,
        policies=(),
    )  # fmt: skip
    with subject:
        window.feed(Focus(clock.monotonic_ns(), "editor", "a"))
        clock.advance(1)
        subject.request_exemption(ExemptScope(scopes=("titles",)), "confidential")
        clock.advance(1)
        window.feed(Focus(clock.monotonic_ns(), "editor", "b"))
        subject.commit()
        titles = [row.event.title for row in Reader(tmp_path / "spool").rows()]
        assert titles[0] == "a"
        assert "b" not in titles
