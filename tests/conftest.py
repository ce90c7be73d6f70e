"""What all tests share: the installed package, real X servers, and the parts of the system a test needs.

Fixtures
    needs            `needs("strace")`: fails in CI, skips elsewhere, when the tool is not there
    xserver          a real X server, shared by the session; `DISPLAY` names it while the test runs
    own_xserver      the same, for one test that freezes or kills it
    system_bus       a D-Bus daemon of the test's own, as the system bus (and no session bus)
    session_bus      another one, as the session bus
    logind           a stand-in for systemd-logind on `system_bus`
    small_disk       `small_disk()`: a file system of 1 MB
    laptop           an emulated laptop, whose bus is the system bus; `new_laptop(...)` makes others

Markers
    @pytest.mark.needs("strace", ...)   the same as the fixture, for a whole test
    @pytest.mark.alone                  no other test runs meanwhile (`make test` runs several side by side)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from buses import BusDaemon, Logind

    from mcilib.testing.laptop import EmulatedLaptop
    from mcilib.testing.xvfb import VirtualDisplay

pytest_plugins = ["mcilib.testing.plugin"]

# How long an example takes says how busy the machine is.
settings.register_profile("mcilib", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mcilib")

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """`make test` promises that the installed wheel is tested: refuse anything else at once."""
    # A shell's `&` and nohup leave these ignored, and every child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Whoever runs the tests would see a note on the desktop for each agent, and may read another language.
    for name in ("DBUS_SESSION_BUS_ADDRESS", "LANGUAGE", "LC_ALL", "LC_MESSAGES"):
        os.environ.pop(name, None)
    os.environ["LANG"] = "C.UTF-8"
    # A machine that is busy is no finding.
    settings.register_profile(
        "patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("patient")
    if os.environ.get("MCILIB_TEST_INSTALLED") != "1":
        return
    import mcilib

    place = Path(mcilib.__file__).resolve()
    if place.is_relative_to(ROOT / "mcilib"):
        raise pytest.UsageError(
            f"mcilib was imported from the checkout ({place.parent}), not from the installed wheel. "
            "Run `make test`, without PYTHONPATH and not as `python -m pytest`."
        )


def pytest_report_header() -> str:
    import mcilib

    return f"mcilib {mcilib.__version__} from {Path(mcilib.__file__).parent}"


# --- tests side by side (pytest-xdist) ------------------------------------------------------------------------

MADE_ANEW = re.compile(r"(?i)[0-9a-f]{32}|age1[0-9a-z]{40,}|AGE-SECRET-KEY-1[0-9a-z]{40,}")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Leave keys and ids that each process makes anew out of a test's name: all workers must have the same names."""
    text = val.decode("latin-1") if isinstance(val, bytes) else val
    if not isinstance(text, str) or not MADE_ANEW.search(text):
        return None
    return MADE_ANEW.sub("...", text).encode("unicode_escape").decode("ascii")


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: one more than processors, because half of the time of the tests is waiting."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is `alone` has the room for itself; nobody new gets through the door while it waits for that."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    alone = is_alone(item)
    # Any two files that all workers know. Unlocked by name: a process that a test left behind may hold them open.
    with open(__file__) as room, open(ROOT / "pyproject.toml") as door:
        try:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            if not alone:
                fcntl.flock(door, fcntl.LOCK_UN)
            return (yield)
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)
            fcntl.flock(door, fcntl.LOCK_UN)


# --- parts of the system ------------------------------------------------------------------------------------


def system_required() -> bool:
    """Whether every part of the system should be here, so that a missing one is a failure."""
    if not sys.platform.startswith("linux"):
        return False
    return os.environ.get("CI") == "true" or os.environ.get("MCILIB_REQUIRE_SYSTEM") == "1"


def need(*tools: str) -> None:
    """Fail (CI, MCILIB_REQUIRE_SYSTEM=1) or skip (elsewhere) when a command is not on PATH."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if system_required():
        pytest.fail(f"{reason}. `make setup` installs it where it may.", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def needs() -> Callable[..., None]:
    """`needs("strace", "weston")` in a test or fixture: see `need`."""
    return need


@pytest.fixture(autouse=True)
def _needs_marker(request: pytest.FixtureRequest) -> None:
    for marker in request.node.iter_markers("needs"):
        need(*marker.args)


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """What a test makes of signals in this process is not inherited by the next one's children."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# --- X servers ----------------------------------------------------------------------------------------------


def _new_display() -> VirtualDisplay:
    need("Xvfb")
    from mcilib.testing.xvfb import VirtualDisplay

    return VirtualDisplay()


def _use(display: VirtualDisplay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the test, and the processes it starts, at this display and no other."""
    for name, value in (("DISPLAY", display.display), ("WAYLAND_DISPLAY", None), ("XDG_SESSION_TYPE", None)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def session_xserver() -> Iterator[VirtualDisplay]:
    """The server behind `xserver`, for fixtures of a wider scope. Does not set DISPLAY."""
    with _new_display() as display:
        yield display


@pytest.fixture
def xserver(session_xserver: VirtualDisplay, monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualDisplay]:
    """A real X server with a window that takes events and an XTEST injector; starts every test alike:
    nothing held down, layout us, pointer in the middle. No key repeats (`repeating_keys`): between a press and its
    release a busy machine may stand still for longer than the half second after which one does."""
    session_xserver.start()  # nothing to do unless a test killed it
    _use(session_xserver, monkeypatch)
    session_xserver.release_all()
    repeat_keys(session_xserver, False)
    session_xserver.move(session_xserver.width_px // 2, session_xserver.height_px // 2)
    session_xserver.sync()
    yield session_xserver
    session_xserver.thaw()
    if session_xserver.layout_changed:
        session_xserver.setxkbmap("-layout", "us", "-variant", "", "-option", "")


@pytest.fixture
def own_xserver(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualDisplay]:
    """An X server of the test's own, which it may freeze, kill and restart."""
    with _new_display() as display:
        _use(display, monkeypatch)
        repeat_keys(display, False)
        yield display


@pytest.fixture
def repeating_keys(xserver: VirtualDisplay) -> Iterator[None]:
    """Keys of `xserver` that are held down repeat."""
    repeat_keys(xserver, True)
    yield
    repeat_keys(xserver, False)


def repeat_keys(display: VirtualDisplay, on: bool) -> None:
    connection = display._connected()
    connection.change_keyboard_control(auto_repeat_mode=int(on))
    connection.sync()


# --- buses --------------------------------------------------------------------------------------------------


@pytest.fixture
def system_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BusDaemon]:
    """A D-Bus daemon that this process, and those it starts, take for the system's; there is no session bus."""
    from buses import BusDaemon, dbusmock_is_here

    need("dbus-daemon", *(() if dbusmock_is_here() else ("python3-dbusmock",)))
    daemon = BusDaemon(tmp_path / "system")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", daemon.address)
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    yield daemon
    daemon.stop()


@pytest.fixture
def session_bus(
    system_bus: BusDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BusDaemon]:
    """A second one, for the session's."""
    from buses import BusDaemon

    daemon = BusDaemon(tmp_path / "session")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", daemon.address)
    yield daemon
    daemon.stop()


@pytest.fixture
def logind(system_bus: BusDaemon) -> Logind:
    """systemd-logind's stand-in, without sessions."""
    from buses import Logind

    return Logind(system_bus)


@pytest.fixture
def new_laptop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., EmulatedLaptop]]:
    """Makes emulated laptops, of `EmulatedLaptop`'s options. This process uses the bus of the last one; processes
    that are given its `environment()` see its files too."""
    from mcilib.testing.laptop import EmulatedLaptop, missing_parts

    if missing := missing_parts():
        reason = f"not installed: {', '.join(missing)}"
        if system_required():
            pytest.fail(f"{reason}. `make setup` installs it where it may.", pytrace=False)
        pytest.skip(reason)
    with contextlib.ExitStack() as machines:

        def new(**options: Any) -> EmulatedLaptop:
            machine = machines.enter_context(EmulatedLaptop(**options))
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", machine.bus.address)
            monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
            return machine

        yield new


@pytest.fixture
def laptop(new_laptop: Callable[..., EmulatedLaptop]) -> EmulatedLaptop:
    """A laptop at 80 % on mains, online, unmetered, with all its services."""
    return new_laptop()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Every test that uses an X server can be left out with `-m 'not x11'`. Those that run alone come last, and each
    of the workers, which get a run of neighbours to begin with, has its share of the files with slow ones first: what is
    left at the end, and what one that is alone waits for, is short then."""
    items.sort(key=is_alone)
    files = {item.path for item in items if item.get_closest_marker("slow") is not None}
    slow = [item for item in items if item.path in files and not is_alone(item)]
    rest = [item for item in items if item.path not in files or is_alone(item)]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    dealt: list[Any] = []
    for worker in range(workers):
        dealt += slow[worker * len(slow) // workers : (worker + 1) * len(slow) // workers]
        share = max(0, (worker + 1) * len(items) // workers - len(dealt))
        dealt += rest[:share]
        del rest[:share]
    items[:] = dealt
    for item in items:
        if {"xserver", "own_xserver", "session_xserver"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("x11")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`small_disk()` mounts a file system of 1 MB; `small_disk.remount("ro")` and so on by `mount`."""
    mounted: list[Path] = []

    def mount(*, options: str = "size=1m") -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True, text=True
        )
        if done.returncode != 0:
            reason = f"cannot mount a small file system: {done.stderr.strip()}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        mounted.append(place)
        return place

    if not sys.platform.startswith("linux"):
        pytest.skip("mounts a tmpfs: Linux only")
    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)
