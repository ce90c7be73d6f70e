"""What the participant bars, all or some, together with the lock and the plan: with fakes, then with a real X server
(`test_bars_for_real.py`)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from recording import rows
from waiting import until

import mcilib.capture as capture_module
from mcilib import Focus, Gap, KeyPress, Move, Recorder, SourceError
from mcilib.capture import Capture
from mcilib.consent import ControlState, Exemption, ExemptScope, Gate
from mcilib.consent.pause import Now, Pause
from mcilib.policy.plan import Plan
from mcilib.testing.fakes import FakeSession, FakeSource, MemorySpool, example_grant

PAUSED = "you have paused it"


class Titles(FakeSource):
    """Of windows; tells titles or not."""

    def __init__(self) -> None:
        super().__init__("window", "titles")
        self.titles = True
        self.starts: list[bool] = []

    def start(self, sink: Any) -> None:
        super().start(sink)
        self.starts.append(self.titles)


class Slow(FakeSource):
    """Tells what it has heard only when it is stopped."""

    late: tuple[Any, ...] = ()

    def stop(self) -> None:
        self.feed(*self.late)
        super().stop()


class Run:
    """A capture of a pointer, a keyboard and a window with titles, its recorder and its gate."""

    def __init__(
        self, *sources: Any, on_resume: Callable[[], bool] | None = None, window: bool = True
    ) -> None:
        self.pointer, self.keyboard, self.window = FakeSource(), Slow("keyboard", "keys"), Titles()
        self.sources = sources or (self.pointer, self.keyboard, *([self.window] if window else []))
        self.session, self.gate, self.spool = (
            FakeSession(),
            Gate(example_grant("keys", "pointer", "titles")),
            MemorySpool(),
        )
        self.told: list[str] = []
        self.turns = 0
        self.at_first: tuple[str | None, Sequence[str]] = (None, ())  # barred before it starts
        self.recorder = Recorder(gate=self.gate, spool=self.spool, sources=self.sources)
        self.capture = Capture(
            self.sources, self.session, self.recorder._clock, on_turn=self._turned,
            on_resume=on_resume if on_resume is not None else self._tell,
        )  # fmt: skip
        self.state()

    def _turned(self) -> None:
        self.turns += 1

    def _tell(self) -> bool:
        self.told.append(", ".join(sorted(self.on)))
        return True

    def __enter__(self) -> Run:
        self.recorder.start()
        self.capture.begin()
        self.capture.bar(*self.at_first)
        self.capture.start(self.recorder)
        return self

    def __exit__(self, *_: object) -> None:
        self.capture.stop()
        self.recorder.stop(5)

    @property
    def on(self) -> set[str]:
        return {source.name for source in self.sources if source._sink is not None}

    def becomes(self, *names: str) -> None:
        until(lambda: self.on == set(names), what=f"{names}, not {self.on}")
        until(lambda: "mcilib-resume" not in {thread.name for thread in self.capture.threads()})

    def state(self, **fields: Any) -> None:
        self.gate.apply(Now.by(self.recorder._clock, "boot"), state=ControlState(**fields))

    def exempt(self, **scope: Any) -> None:
        self.state(exemptions=(Exemption("e" * 32, ExemptScope(**scope), "personal", "", 1),))
        self.capture.bar(None, self.gate.barred.scopes)

    def pause(self) -> None:
        self.state(pause=Pause(Now.by(self.recorder._clock, "boot"), 60 * 10**9))
        self.capture.bar(PAUSED, ())

    def open(self) -> None:
        self.state()
        self.capture.bar(None, ())

    @property
    def captured(self) -> dict[str, int]:
        return dict(self.recorder.statistics().captured)


ALL = ("pointer", "keyboard", "window")


def key() -> KeyPress:
    return KeyPress(time.monotonic_ns(), "letter")


def move(x: int) -> Move:
    return Move(time.monotonic_ns(), x, x)


# --- all -----------------------------------------------------------------------------------------------------


def test_paused_nothing_hears_and_then_all_does_again():
    with Run() as run:
        run.pointer.feed(move(1))
        run.pause()
        assert run.on == set()
        assert run.capture.held == PAUSED
        assert not run.capture.session_away
        assert not run.recorder.emit(move(2))
        assert run.told == []
        run.open()
        run.becomes(*ALL)
        assert run.told == [""], "once, before anything hears"
        assert run.capture.held is None
        run.pointer.feed(move(3))
    assert [event.x for event in rows(run.spool) if isinstance(event, Move)] == [1, 3]


def test_barred_before_the_start():
    run = Run()
    run.at_first = PAUSED, ()
    with run:
        assert (run.on, run.capture.held) == (set(), PAUSED)
        run.open()
        run.becomes(*ALL)
        assert run.told == [""]
    run.told.clear()
    run.at_first = None, ["keys"]
    with run:
        assert run.on == {"pointer", "window"}
        assert run.told == [], "a start is told by who starts"
    run.at_first = None, ()
    with run:
        assert run.on == set(ALL)
        assert run.told == []


@pytest.mark.parametrize("other", ["lock", "plan"])
def test_any_of_them_keeps_it_off(other: str) -> None:
    def away(is_so: bool) -> None:
        if other == "lock":
            run.session.become("locked" if is_so else None)
        else:
            run.capture.adopt(Plan(capture=not is_so, reasons=("it is hot",)))

    words = "the session is locked" if other == "lock" else "it is hot"
    with Run() as run:
        away(True)
        until(lambda: run.capture.held == words)
        run.pause()
        assert run.capture.held == PAUSED
        assert run.capture.session_away == (other == "lock")
        run.open()
        until(lambda: run.capture.held == words)
        assert run.on == set()
        assert run.told == [], "not before it goes on"
        away(False)
        run.becomes(*ALL)
        assert run.told == [""]
        run.pause()
        away(True)
        until(lambda: run.capture.session_away or other == "plan")
        away(False)
        assert run.capture.held == PAUSED
        assert run.on == set()
        run.open()
        run.becomes(*ALL)
        assert run.told == ["", ""]
        away(True)
        run.becomes()
        away(False)
        run.becomes(*ALL)
        assert run.told == ["", ""], "only what they have barred themselves is told"


@pytest.mark.parametrize("answer", [False, ZeroDivisionError()])
def test_while_the_participant_cannot_be_told_it_stays_off(answer: Any) -> None:
    answers: list[Any] = [answer, answer]

    def on_resume() -> bool:
        answer = answers.pop(0) if answers else True
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    with Run(on_resume=on_resume) as run:
        run.pause()
        stirred, real_wait = run.capture._stirred, run.capture._stirred.wait
        waits: list[float] = []

        def wait(seconds: float | None = None) -> bool:
            waits.append(seconds or 0)
            return real_wait(20)

        stirred.wait = wait  # type: ignore[assignment]
        run.open()
        until(lambda: run.capture._silent)
        assert run.capture.held
        assert run.on == set()
        assert not run.recorder.emit(move(1))
        [problem] = run.capture.health().problems
        assert (problem.part, "could not be told" in problem.message) == ("indicator", True)
        run.capture._turn()  # anything that changes lets it try again
        until(lambda: not answers)
        until(lambda: len(waits) >= 2)
        assert run.on == set()
        run.pause()
        assert run.capture.health().ok
        assert run.capture.held == PAUSED
        run.open()
        run.becomes(*ALL)
        assert run.capture.health().ok


def test_opened_and_paused_again_while_the_participant_is_told():
    begun, goes_on = threading.Semaphore(0), threading.Semaphore(0)

    def on_resume() -> bool:
        begun.release()
        return goes_on.acquire(timeout=20)

    with Run(on_resume=on_resume) as run:
        run.pause()
        run.open()
        assert begun.acquire(timeout=20)
        run.pause()  # waits for nobody
        goes_on.release()
        time.sleep(0.05)
        assert (run.on, run.capture.held) == (set(), PAUSED)
        run.open()
        assert begun.acquire(timeout=20), "which is another time"
        assert run.on == set()
        goes_on.release()
        run.becomes(*ALL)


# --- some ----------------------------------------------------------------------------------------------------


def test_one_scope_is_off_and_the_others_go_on():
    with Run() as run:
        run.keyboard.feed(key())
        late = key()
        time.sleep(0.01)
        run.keyboard.late = (late,)
        run.exempt(scopes=("keys",))
        assert run.on == {"pointer", "window"}
        assert run.capture.held is None
        run.keyboard.late = ()
        run.pointer.feed(move(1))
        assert run.captured == {"key_press": 1, "move": 1}
        assert run.recorder.statistics().excluded == 1, "what it had heard and not told"
        run.open()
        run.becomes(*ALL)
        assert run.told == ["pointer, window"]
        assert run.recorder.emit(late)
        assert run.captured == {"key_press": 1, "move": 1}
        run.keyboard.feed(key())
        assert run.captured == {"key_press": 2, "move": 1}


def test_what_nobody_here_hears_is_not_told_of():
    with Run(window=False) as run:
        run.exempt(scopes=("apps",))
        run.open()
        run.becomes("pointer", "keyboard")
        assert run.told == []


def test_one_scope_after_the_other():
    with Run() as run:
        run.capture.bar(None, ["keys"])
        run.capture.bar(None, ["keys", "pointer"])
        assert run.on == {"window"}
        run.capture.bar(None, ["pointer"])
        run.becomes("keyboard", "window")
        run.capture.bar(PAUSED, ["pointer"])
        assert run.on == set()
        run.capture.bar(None, ["pointer"])
        run.becomes("keyboard", "window")
        assert len(run.told) == 2


def test_opened_and_not_told_it_stays_off_and_the_others_go_on():
    answers = [True]
    with Run(on_resume=lambda: answers[0]) as run:
        run.capture.bar(None, ["keys"])
        answers[0] = False
        run.capture.bar(None, ())
        until(lambda: not run.capture.health().ok)
        assert run.on == {"pointer", "window"}
        assert run.capture.held is None
        run.capture.bar(None, ["keys"])
        assert run.capture.health().ok
        answers[0] = True
        run.capture.bar(None, ())
        run.becomes(*ALL)


def test_titles_are_left_out_and_the_window_goes_on():
    with Run() as run:
        run.exempt(scopes=("titles",))
        assert run.on == set(ALL)
        assert run.window.titles is False
        assert run.told == []
        run.window.feed(Focus(time.monotonic_ns(), "editor", "a letter"))
        assert run.captured == {"focus": 1}
        run.open()
        run.becomes(*ALL)
        until(lambda: run.window.titles)
        assert run.window.starts == [True, True], "it begins anew, so that it tells how things are"
        run.exempt(scopes=("apps",))
        assert run.on == {"pointer", "keyboard"}, "a title says which program it is"
        run.exempt(scopes=("titles",))
        run.becomes(*ALL)
        assert run.window.starts[2:] == [False]
        run.pause()
    assert run.window.titles, "as it was before the start"
    assert [event.title for event in rows(run.spool) if isinstance(event, Focus)] == [None]


def test_a_source_of_titles_that_cannot_leave_them_out_is_off():
    window = FakeSource("window", "titles")
    with Run(window) as run:
        run.exempt(scopes=("titles",))
        assert run.on == set()
        run.open()
        run.becomes("window")


def test_a_source_that_cannot_go_on_is_tried_again_alone():
    with Run() as run:
        run.capture.bar(None, ["keys"])
        run.keyboard._fails = SourceError("It is broken", "Mend it.")
        run.capture.bar(None, ())
        until(lambda: not run.capture.health().ok)
        assert run.on == {"pointer", "window"}
        run.capture.bar(None, ["keys"])
        assert run.capture.health().ok, "nobody wants it"
        run.capture.bar(None, ())
        until(lambda: not run.capture.health().ok)
        run.keyboard._fails = None
        run.becomes(*ALL)
    gaps = [event.source for event in rows(run.spool) if isinstance(event, Gap)]
    assert set(gaps) == {"keyboard"}


# --- programs ------------------------------------------------------------------------------------------------


def test_without_anybody_who_tells_which_program_is_in_use_nothing_is_captured():
    with Run(window=False) as run:
        run.exempt(apps=("keepassxc",))
        assert "nothing here tells which" in (run.capture.held or "")
        assert run.on == set()
        run.open()
        run.becomes("pointer", "keyboard")


def test_nor_while_that_is_barred_itself():
    with Run() as run:
        run.exempt(apps=("keepassxc",))
        assert run.on == set(ALL)
        exemptions = [ExemptScope(apps=("keepassxc",)), ExemptScope(scopes=("apps",))]
        run.state(
            exemptions=tuple(
                Exemption(f"{n}" * 32, scope, "other", "", 1) for n, scope in enumerate(exemptions)
            )
        )
        run.capture.bar(None, run.gate.barred.scopes)
        assert "nothing here tells which" in (run.capture.held or "")
        assert run.on == set()
        run.exempt(apps=("keepassxc",))
        run.becomes(*ALL)
        assert run.told == [""]
    run = Run()
    run.state(exemptions=(Exemption("e" * 32, ExemptScope(apps=("x",)), "other", "", 1),))
    run.at_first = None, ["apps", "titles"]
    with run:
        assert run.on == set()
        assert run.capture.held


def test_who_tells_begins_anew_so_that_it_is_known_again():
    """Titles were barred and are told again: meanwhile nobody looked."""
    with Run() as run:
        run.exempt(scopes=("titles",))
        run.window.feed(Focus(time.monotonic_ns(), "editor"))
        until(lambda: run.captured == {"focus": 1})
        run.open()
        run.becomes(*ALL)
        until(lambda: run.window.titles and run.recorder._settled == run.recorder._settling)
        assert run.recorder._batcher.focus is None


# --- several at once -----------------------------------------------------------------------------------------


def test_a_bar_ends_a_start_that_hangs():
    class Hangs(FakeSource):
        waits, told = threading.Event(), threading.Event()

        def start(self, sink: Any) -> None:
            if run.told:
                self.waits.set()
                self.told.wait(20)
            super().start(sink)

        def stop(self) -> None:
            self.told.set()
            super().stop()

    run = Run(Hangs(), FakeSource("keyboard", "keys"))
    with run:
        run.pause()
        run.sources[0].told.clear()
        run.open()
        assert run.sources[0].waits.wait(20)
        began_s = time.monotonic()
        run.pause()
        assert time.monotonic() - began_s < 10, "the start hangs for 20 s"
        assert run.on == set()
        run.open()
        run.sources[0].told.set()
        run.becomes("pointer", "keyboard")


def test_a_stop_that_comes_late_is_known_to_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who bars while sources are being started stops them at once; until that is done all may be open again."""
    begun, goes_on = threading.Event(), threading.Event()
    really = capture_module.stop_sources

    def late(sources: Any) -> Any:
        if not begun.is_set():
            begun.set()
            goes_on.wait(20)
        return really(sources)

    with Run() as run:
        monkeypatch.setattr(capture_module, "stop_sources", late)
        run.capture._turning.acquire()  # as while something is started
        pausing = threading.Thread(target=run.pause)
        pausing.start()
        assert begun.wait(20)
        run.capture._turning.release()
        run.open()
        goes_on.set()
        pausing.join(20)
        run.becomes(*ALL)


@pytest.mark.as_shipped
def test_nothing_is_started_while_an_earlier_stop_of_it_goes_on() -> None:
    """Which nobody waited for any longer: it would stop what was started meanwhile."""
    stopping, goes_on = threading.Event(), threading.Event()

    class Hangs(FakeSource):
        def stop(self) -> None:
            if self._sink is not None:
                stopping.set()
                goes_on.wait(20)
            super().stop()

    source = Hangs()
    with Run(source) as run:
        run.pause()
        assert stopping.is_set()
        run.open()
        until(lambda: not run.capture.health().ok)
        assert "still being stopped" in run.capture.health().problems[0].message
        goes_on.set()
        until(lambda: run.capture.health().ok)
        run.becomes("pointer")


@contextmanager
def at_once(*works: Callable[[], None]) -> Iterator[None]:
    failed: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failed == []


@pytest.mark.parametrize("seed", range(6))
def test_bars_locks_and_plans_from_several_threads(seed: int) -> None:
    """However they meet: when a bar returns what it bars is off and stays off until somebody opens it; and in the end
    all is as the last ones said."""
    chance = random.Random(seed)
    scopes = {"keys": "keyboard", "pointer": "pointer"}
    lasts: dict[str, Any] = {}

    def bars() -> None:
        for _ in range(60):
            paused = chance.random() < 0.4
            closed = [scope for scope in scopes if chance.random() < 0.4]
            run.capture.bar(PAUSED if paused else None, closed)
            off = set(run.on) & ({*ALL} if paused else {scopes[scope] for scope in closed})
            assert not off, f"{off} hears, with {closed} barred and {paused}"
            if paused:
                assert not run.recorder.emit(move(1))
            lasts["bar"] = paused, closed
            time.sleep(chance.random() / 200)

    def locks() -> None:
        for n in range(60):
            run.session.become("locked" if n % 2 == 0 else None)
            if n % 2 == 0:
                assert run.on == set()
            time.sleep(chance.random() / 200)

    def plans() -> None:
        for n in range(40):
            run.capture.adopt(Plan(capture=n % 2 == 1))
            time.sleep(chance.random() / 200)

    with Run() as run:
        with at_once(bars, locks, plans):
            pass
        paused, closed = lasts["bar"]
        wanted = (
            set() if paused else {name for name in ALL if name not in {scopes[scope] for scope in closed}}
        )
        run.becomes(*wanted)
        assert bool(run.capture.held) == paused
        run.open()
        run.becomes(*ALL)
        run.pointer.feed(move(7))
        assert run.captured.get("move", 0) >= 1


@pytest.mark.parametrize("seed", range(3))
def test_stopped_and_started_while_it_is_barred_and_opened(seed: int) -> None:
    chance = random.Random(seed)
    done = threading.Event()

    def bars() -> None:
        while not done.is_set():
            run.capture.bar(chance.choice([None, PAUSED]), chance.choice([(), ("keys",)]))
            time.sleep(chance.random() / 500)

    run = Run()
    with at_once(bars):
        for _ in range(30):
            run.recorder.start()
            run.capture.begin()
            run.capture.start(run.recorder)
            time.sleep(chance.random() / 200)
            run.capture.stop()
            run.recorder.stop(5)
            until(lambda: run.on == set())
        done.set()
    assert "mcilib-resume" not in {thread.name for thread in threading.enumerate()}
