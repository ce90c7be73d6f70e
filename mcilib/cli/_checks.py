"""The checks of `mcilib doctor`: each looks at one thing and says what it found. None changes anything."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mcilib.config import Settings
from mcilib.errors import GrantError, McilibError, SealError
from mcilib.policy.state import Metered, ResourceState

#: Distribution -> least version, as in pyproject.toml; with the extra it belongs to, if any.
PACKAGES: dict[str, tuple[str, str]] = {
    "pynput": ("1.8.2", ""),
    "zstandard": ("0.25", ""),
    "msgpack": ("1.2.1", ""),
    "psutil": ("7", ""),
    "tenacity": ("9", ""),
    "urllib3": ("2.7", ""),
    "shtab": ("1.7", ""),
    "python-xlib": ("0.33", ""),
    "jeepney": ("0.9", ""),
    "starlette": ("1", "receiver"),
    "uvicorn": ("0.40", "receiver"),
    "pyarrow": ("22", "arrow"),
    "pyrage": ("1.4", "seal"),
    "obstore": ("0.12", "s3"),
    "truststore": ("0.10", "truststore"),
}

DISPLAY_TIMEOUT_S = 10.0
"""A display that has not answered by then hangs; starting Python takes most of a slow machine's share."""

FREE_WARNING_BYTES, FREE_FAILED_BYTES = 200 * 1024 * 1024, 5 * 1024 * 1024
"""Four times what may wait by default; about a hundred batches."""

OFFSET_WARNING_S = 5.0
"""Event times are as wrong as the clock; a clock kept by the network is right to well under a second."""

_BUILT_S = 1_767_225_600  # 2026-01-01: a clock that says less was never set
_FAR_S = _BUILT_S + 50 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: `state` is `ok`, `warning`, `failed` or `unknown` (the check could not run)."""

    check: str
    state: str
    what: str
    todo: str = ""


def examine(settings: Settings, folder: Path) -> Iterator[Finding]:
    """All checks, in the order in which one thing needs the other."""
    yield check_python()
    yield from check_packages()
    yield check_platform()
    yield check_display()
    yield check_permissions()
    yield check_session()
    yield from check_resources(folder)
    yield check_state(folder)
    yield check_grant(folder)
    yield from check_recipients(settings)
    yield check_spool(folder)
    yield check_disk(folder)
    yield check_clock()
    yield from check_endpoint(settings)


def check_python() -> Finding:
    return Finding("python", "ok", f"{platform.python_implementation()} {platform.python_version()}")


def check_packages() -> Iterator[Finding]:
    found: list[str] = []
    for name, (least, extra) in PACKAGES.items():
        if name in ("python-xlib", "jeepney") and not sys.platform.startswith("linux"):
            continue
        install = f"pip install '{f'mcilib[{extra}]' if extra else f'{name}>={least}'}'"
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if extra:
                yield Finding(
                    "packages", "ok", f"{name} is not installed; only {_EXTRAS[extra]} needs it", install
                )
            else:
                yield Finding("packages", "failed", f"{name} is not installed", install)
            continue
        if _numbers(version) < _numbers(least):
            yield Finding("packages", "failed", f"{name} {version} is older than {least}", install)
        else:
            found.append(f"{name} {version}")
    yield Finding("packages", "ok", ", ".join(found))


_EXTRAS = {
    "receiver": "`mcilib receive`",
    "arrow": "`mcilib export --format parquet`",
    "seal": "sealing (`--recipients`, `--identity`, `mcilib keygen`)",
}


def check_platform() -> Finding:
    words = f"{platform.system()} {platform.release()} {platform.machine()}"
    if sys.platform.startswith("linux"):
        return Finding("platform", "ok", words)
    return Finding("platform", "warning", f"{words}: not yet run on such hardware", "Tell us what you see.")


def check_display(timeout_s: float = DISPLAY_TIMEOUT_S) -> Finding:
    if sys.platform in ("win32", "darwin"):
        return Finding("display", "unknown", "only X11 can be asked")
    command = [sys.executable, "-c", _ASK_DISPLAY]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return Finding(
            "display",
            "failed",
            f"the display does not answer within {timeout_s:g} s",
            "Restart the X server, or check DISPLAY.",
        )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        return Finding("display", "unknown", f"it could not be asked ({last})", "See the packages above.")
    if "problem" in answer:
        return Finding("display", "failed", answer["problem"], answer["next_step"])
    return Finding("display", "ok", f"X server {answer['display']} lets input be heard (RECORD)")


# Runs in a process of its own: python-xlib waits for ever for a display that hangs.
_ASK_DISPLAY = """\
import json, os
from mcilib.errors import McilibError
from mcilib.sources._x11 import check_display
try:
    check_display()
    answer = {"display": os.environ.get("DISPLAY", "")}
except McilibError as error:
    answer = {"problem": error.problem, "next_step": error.next_step}
print(json.dumps(answer))
"""


def check_permissions() -> Finding:
    """X11 and Windows ask for none. macOS does; thin, not yet run on hardware."""
    if sys.platform != "darwin":
        return Finding("permissions", "ok", "this system asks for none")
    try:
        from HIServices import AXIsProcessTrusted  # type: ignore[import-not-found, unused-ignore]

        trusted = bool(AXIsProcessTrusted())
    except Exception as error:  # whatever the bridge raises
        return Finding("permissions", "unknown", f"macOS could not be asked ({type(error).__name__})")
    if trusted:
        return Finding("permissions", "ok", "macOS lets this program see input")
    step = "Allow it in System Settings, Privacy & Security: Accessibility and Input Monitoring."
    return Finding("permissions", "failed", "macOS does not let this program see input", step)


def check_session() -> Finding:
    """Whether a locked screen, and a switch to another user, can be seen: by asking, once."""
    if not sys.platform.startswith("linux"):
        return Finding("session", "unknown", "only Linux can be asked")
    from mcilib.resources.session import SessionWatch

    watch = SessionWatch()
    watch.start(lambda: None)
    try:
        known, missing = watch.known, watch.missing
    finally:
        watch.stop()
    if not missing:
        return Finding("session", "ok", "locks and switches are seen")
    if known:
        step = "With systemd-logind, a switch to another user is seen too."
        return Finding("session", "warning", f"locks are seen, switches are not: {missing}", step)
    words = f"not seen: {missing}; capture goes on behind a lock screen"
    return Finding(
        "session", "warning", words, "Run it in the participant's desktop session, under systemd-logind."
    )


def check_resources(folder: Path) -> Iterator[Finding]:
    """What is known of power and network, and whether changes are told."""
    from mcilib.resources.watch import ResourceWatch

    watch = ResourceWatch(folder)
    watch.start(lambda: None)
    try:
        state, tellers = watch.state, watch.tellers
    finally:
        watch.stop()
    yield _power(state, "UPower" in tellers)
    yield _network(state, "NetworkManager" in tellers)


def _power(state: ResourceState, told: bool) -> Finding:
    if state.battery_present is None:
        step = "The library then takes the machine for one on mains."
        return Finding("power", "unknown", "whether there is a battery cannot be told", step)
    words = ["no battery"]
    if state.battery_present:
        full = "unknown" if state.battery_ratio is None else f"{state.battery_ratio:.0%}"
        words = [f"battery {full}", "on battery" if state.on_battery else "on mains"]
    if state.power_saver is not None:
        words.append(f"power saver {'on' if state.power_saver else 'off'}")
    if state.thermal:
        words.append(f"it is {state.thermal.name.lower()}")
    if told or not state.battery_present:
        return Finding("power", "ok", ", ".join(words))
    step = "With UPower (Linux), changes are told at once."
    return Finding("power", "warning", f"{', '.join(words)}; looked up once a minute at most", step)


def _network(state: ResourceState, told: bool) -> Finding:
    words = {True: "online", False: "offline", None: "not known whether online"}[state.online]
    if state.portal:
        return Finding("network", "warning", "it wants a sign-in first", "Sign in with a web browser.")
    metered = {
        Metered.YES: "metered",
        Metered.GUESS: "metered, as the system thinks",
        Metered.NO: "not metered",
    }
    words += f", {metered.get(state.metered, 'not known whether metered, taken for not metered')}"
    if not told and state.metered is Metered.UNKNOWN:
        step = "With NetworkManager (Linux), it is known, and changes are told at once."
        return Finding("network", "warning", words, step)
    if state.online is False:
        return Finding("network", "warning", words, "What is collected waits until there is a network.")
    return Finding("network", "ok", words)


def check_state(folder: Path) -> Finding:
    """Writable, by trying; a folder that is not there yet is not made."""
    there = next((f for f in (folder, *folder.absolute().parents) if f.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        step = "Make it writable for this user, or choose another folder with --state."
        return Finding("state", "failed", f"{there} is not writable ({error.strerror})", step)
    return Finding("state", "ok", f"{folder} is writable" if there == folder else f"{folder} will be made")


def check_grant(folder: Path) -> Finding:
    from mcilib.consent import Grant

    try:
        grant = Grant.load(folder)
    except GrantError as error:
        there = (folder / "grant.json").exists()
        return Finding("grant", "failed" if there else "warning", error.problem, error.next_step)
    if grant.expired(time.time_ns()):
        return Finding(
            "grant", "failed", f"it expired at {grant.expires_at}", "Ask again with `mcilib grant`."
        )
    words = f"{grant.operator} may collect {', '.join(grant.scopes)}"
    if grant.given_via == "unattended":
        return Finding(
            "grant",
            "warning",
            f"unattended, nobody was asked: {words}",
            "Ask with `mcilib grant` on a terminal.",
        )
    return Finding("grant", "ok", words)


def check_recipients(settings: Settings) -> Iterator[Finding]:
    """Nothing where batches are not to be sealed."""
    path = settings.seal.recipients_file
    if path is None:
        return
    from mcilib.cli._keys import key_words, read_recipients

    try:
        yield Finding("seal", "ok", f"{path}: {key_words(read_recipients(path))}")
    except SealError as error:
        yield Finding("seal", "failed", error.problem, error.next_step)


def check_spool(folder: Path) -> Finding:
    from mcilib.delivery.spool import DirectorySpool

    spool = folder / "spool"
    try:
        statistics = DirectorySpool.read_statistics(spool)
        agent = "an agent runs" if DirectorySpool.owned(spool) else "no agent runs"
    except McilibError as error:
        return Finding("spool", "failed", error.problem, error.next_step)
    words = f"{statistics.waiting_batches} waiting, {statistics.delivered_batches} delivered, {agent}"
    lost = sum(statistics.lost.values())
    if lost:
        return Finding("spool", "warning", f"{words}, {lost} lost", "`mcilib status` tells why.")
    return Finding("spool", "ok", words)


def check_disk(folder: Path) -> Finding:
    there = next((f for f in (folder, *folder.absolute().parents) if f.exists()), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding("disk", "unknown", f"{there} could not be asked ({error.strerror})")
    words = f"{free // (1024 * 1024):,} MiB free"
    if free < FREE_WARNING_BYTES:
        return Finding("disk", "failed" if free < FREE_FAILED_BYTES else "warning", words, "Free some space.")
    return Finding("disk", "ok", words)


def check_clock() -> Finding:
    first_ns = time.monotonic_ns()
    time.sleep(0.01)
    passed_s = (time.monotonic_ns() - first_ns) / 1e9
    wall_s = time.time()
    if passed_s <= 0:
        return Finding(
            "clock", "failed", "the monotonic clock stands still", "Event times need it; check the system."
        )
    if not _BUILT_S < wall_s < _FAR_S:
        said = time.strftime("%Y-%m-%d", time.gmtime(wall_s))
        return Finding("clock", "failed", f"the clock says {said}", "Set it, or turn on network time.")
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall_s)))


def check_endpoint(settings: Settings) -> Iterator[Finding]:
    from mcilib.cli._endpoint import ask_endpoint, make_transport, remedy
    from mcilib.protocols import Outcome

    endpoint = settings.upload.endpoint
    if endpoint is None:
        yield Finding(
            "endpoint", "unknown", "none was given", "Give the address of the receiver with --endpoint."
        )
        return
    try:
        transport = make_transport(settings)
    except McilibError as error:
        yield Finding("endpoint", "failed", error.problem, error.next_step)
        return
    try:
        answer = ask_endpoint(transport)
    finally:
        transport.close()
    if answer.outcome is not Outcome.DELIVERED:
        yield Finding("endpoint", "failed", f"{endpoint}: {answer.detail}", remedy(answer.outcome))
        return
    if endpoint.startswith(("file:", "s3:")):
        yield Finding("endpoint", "ok", f"{endpoint} can be written")
        return
    yield Finding("endpoint", "ok", f"{endpoint} is a receiver")
    if answer.clock_offset_s is None:
        yield Finding("offset", "unknown", "the endpoint does not tell its time")
    elif abs(answer.clock_offset_s) > OFFSET_WARNING_S:
        words = f"this clock and the endpoint's differ by {abs(answer.clock_offset_s):.0f} s"
        yield Finding("offset", "warning", words, "Turn on network time on the one that is wrong.")
    else:
        yield Finding("offset", "ok", f"{answer.clock_offset_s:+.1f} s against the endpoint's clock")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
