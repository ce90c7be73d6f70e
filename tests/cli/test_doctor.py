"""`mcilib doctor`: each check on what works and on what does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import tomllib
from collections.abc import Callable
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from buses import BusDaemon, Logind, Saver
from commands import Run, record

from mcilib.cli import _checks
from mcilib.cli._checks import Finding
from mcilib.config import Settings
from mcilib.format.seal import generate, key_id
from mcilib.policy.state import Metered, ResourceState, Thermal
from mcilib.protocols import Outcome
from mcilib.testing.fakes import example_grant
from mcilib.testing.laptop import EmulatedLaptop
from mcilib.testing.xvfb import VirtualDisplay

#: Rows that tell of the machine on which the tests run.
MACHINE = ("disk", "session", "power", "network")
ROOT = Path(__file__).resolve().parents[2]


def diagnose(mcilib: Run, *args: str | Path, **env: str) -> tuple[int, dict[str, Any]]:
    done = mcilib("doctor", "--json", *args, env={**os.environ, **env})
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.returncode == 0)
    assert all(row["todo"] for row in answer["checks"] if row["state"] == "failed"), (
        "what fails says what to do"
    )
    return done.returncode, {row["check"]: row for row in answer["checks"]}


@pytest.mark.x11
def test_all_is_well(
    xserver: VirtualDisplay, here: Path, granted: Path, tls: dict[str, Path], mcilib: Run, receiver: Any
) -> None:
    (here / "token").write_text("t")
    target = receiver("--token-file", "token", "--tls-cert", tls["cert"], "--tls-key", tls["key"])
    good = ["--state", granted, "--endpoint", target.url, "--token-file", "token", "--ca-file", tls["ca"]]
    code, found = diagnose(mcilib, *good)
    assert code == 0
    assert list(found) == [
        *(
            "python",
            "packages",
            "platform",
            "display",
            "permissions",
            "session",
            "power",
            "network",
            "state",
            "grant",
            "spool",
            "disk",
            "clock",
        ),
        *("endpoint", "offset"),
    ]
    assert {row["state"] for name, row in found.items() if name not in MACHINE} == {"ok"}
    assert "RECORD" in found["display"]["what"]
    text = mcilib("doctor", *good)
    assert (text.returncode, text.stderr) == (0, "")
    assert "Nothing failed." in text.stdout

    (here / "doctor.toml").write_text(
        f'[agent]\nstate = "{granted}"\n[upload]\nendpoint = "{target.url}"\ntoken_file = "token"\n'
        f'ca_file = "{tls["ca"]}"\n'
    )
    assert diagnose(mcilib, "--config", "doctor.toml")[0] == 0
    assert (
        diagnose(mcilib, "--config", "doctor.toml", "--ca-file", tls["cert"])[1]["endpoint"]["state"]
        == "failed"
    )


def test_what_does_not_work_is_named(here: Path, mcilib: Run) -> None:
    (here / "state").mkdir()
    (here / "state" / "grant.json").write_text("{")
    code, found = diagnose(mcilib, "--state", "state", "--endpoint", "http://127.0.0.1:9", DISPLAY=":4242")
    assert code == 1
    assert {name for name, row in found.items() if row["state"] == "failed"} == {
        "display",
        "grant",
        "endpoint",
    }
    assert "refused" in found["endpoint"]["what"]
    assert ":4242" in found["display"]["what"]
    text = mcilib("doctor", "--state", "state")
    assert text.returncode == 1
    assert text.stdout.rstrip().endswith("Failed: display, grant.")


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--client-cert", "none.pem", "none.pem cannot be read"),
        ("--client-key", "none.key", "client_key is given without client_cert"),
        ("--proxy", "socks5://h:1", "The proxy is not an http address"),
    ],
)
def test_the_way_to_the_endpoint_is_tried_as_run_would(
    here: Path, mcilib: Run, flag: str, value: str, words: str
) -> None:
    done = mcilib("doctor", "--endpoint", "https://collect.test", flag, value)
    assert words in done.stdout + done.stderr


def test_doctor_changes_nothing(here: Path, mcilib: Run) -> None:
    diagnose(mcilib, "--state", "state")
    assert not (here / "state").exists()
    assert diagnose(mcilib)[1]["endpoint"]["state"] == "unknown"


@pytest.mark.x11
def test_a_frozen_display_does_not_hang_it(own_xserver: VirtualDisplay) -> None:
    own_xserver.freeze()
    found = _checks.check_display(timeout_s=1.5)
    assert found.state == "failed"
    assert "does not answer" in found.what


def test_whether_a_locked_screen_can_be_seen(logind: Logind, mcilib: Run) -> None:
    row = diagnose(mcilib)[1]["session"]
    assert (row["state"], row["what"]) == (
        "warning",
        "not seen: systemd-logind knows no session of this user; capture goes on behind a lock screen",
    )
    logind.own(logind.add("7"))
    row = diagnose(mcilib)[1]["session"]
    assert (row["state"], row["what"]) == ("ok", "locks and switches are seen")
    assert "session     locks and switches are seen" in mcilib("doctor").stdout


def test_a_screen_saver_alone_tells_locks_only(session_bus: BusDaemon) -> None:
    Saver(session_bus, "org.mate.ScreenSaver")
    found = _checks.check_session()
    assert (found.state, found.what) == (
        "warning",
        "locks are seen, switches are not: no systemd-logind",
    )


def test_without_a_bus_locks_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.setenv(name, "unix:path=/nowhere/bus")
    found = _checks.check_session()
    assert (found.state, found.what) == (
        "warning",
        "not seen: no system bus; capture goes on behind a lock screen",
    )
    monkeypatch.setattr(_checks.sys, "platform", "darwin")  # type: ignore[attr-defined]
    assert _checks.check_session().state == "unknown"


def test_power_and_network_as_the_services_tell_them(laptop: EmulatedLaptop, mcilib: Run) -> None:
    laptop.on_mains(False)
    laptop.saver(True)
    laptop.metered(Metered.GUESS)
    found = diagnose(mcilib, **laptop.environment())[1]
    power, network = found["power"], found["network"]
    assert (power["state"], power["what"]) == ("ok", "battery 80%, on battery, power saver on")
    assert (network["state"], network["what"]) == ("ok", "online, metered, as the system thinks")
    laptop.on_mains(True)
    laptop.saver(False)
    laptop.metered(Metered.NO)
    found = diagnose(mcilib, **laptop.environment())[1]
    assert found["power"]["what"] == "battery 80%, on mains, power saver off"
    assert found["network"]["what"] == "online, not metered"
    laptop.metered(Metered.YES)
    laptop.online(False)
    row = diagnose(mcilib, **laptop.environment())[1]["network"]
    assert (row["state"], row["what"]) == ("warning", "offline, metered")
    laptop.portal(True)
    row = diagnose(mcilib, **laptop.environment())[1]["network"]
    assert (row["state"], row["what"]) == ("warning", "it wants a sign-in first")


def test_power_and_network_without_services(new_laptop: Callable[..., EmulatedLaptop], mcilib: Run) -> None:
    laptop = new_laptop(services=())
    found = diagnose(mcilib, **laptop.environment())[1]
    power, network = found["power"], found["network"]
    assert (power["state"], power["what"]) == (
        "warning",
        "battery 80%, on mains; looked up once a minute at most",
    )
    assert network["state"] == "warning"
    assert network["what"].endswith("not known whether metered, taken for not metered")
    laptop = new_laptop(battery_ratio=None, services=())
    row = diagnose(mcilib, **laptop.environment())[1]["power"]
    assert (row["state"], row["what"]) == ("ok", "no battery")


def test_a_machine_that_tells_nothing_of_itself() -> None:
    """A mute one cannot be had here: Linux always says whether there is a battery."""
    assert _checks._power(ResourceState(), False).state == "unknown"
    unread = ResourceState(battery_present=True, thermal=Thermal.HOT)
    assert _checks._power(unread, True).what == "battery unknown, on battery, it is hot"
    assert _checks._network(ResourceState(), True).what.startswith("not known whether online, ")


def test_the_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {**dict.fromkeys(project["dependencies"], "")}
    wanted |= {requirement: extra for extra in extras if extra != "dev" for requirement in extras[extra]}
    parsed = {}
    for requirement, extra in wanted.items():
        name, least = re.match(r"([\w-]+)>=([\d.]+)", requirement).groups()
        parsed[name] = (least, extra)
    assert parsed == _checks.PACKAGES


@pytest.mark.parametrize(
    ("version", "state"), [("1.8.1", "failed"), ("1.8.2", "ok"), ("1.10.0", "ok"), (None, "failed")]
)
def test_old_and_missing_packages(version: str | None, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(_checks, "PACKAGES", {"pynput": ("1.8.2", "")})
    monkeypatch.setattr(metadata, "version", installed)
    first = next(iter(_checks.check_packages()))
    assert first.state == state
    assert ("pip install 'pynput>=1.8.2'" in first.todo) == (state == "failed")


def test_a_missing_extra_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_checks, "PACKAGES", {"no-such-thing": ("1", "arrow")})
    found = next(iter(_checks.check_packages()))
    assert found.state == "ok"
    assert "parquet" in found.what


def test_recipients_are_checked_where_they_are_configured(here: Path, mcilib: Run) -> None:
    (_, first), (_, second) = generate(), generate()
    assert "seal" not in diagnose(mcilib)[1]
    (here / "keys.txt").write_text(f"{first}\n{second}\n")
    (here / "agent.toml").write_text('[seal]\nrecipients_file = "keys.txt"\n')
    for how in (["--recipients", "keys.txt"], ["--config", "agent.toml"]):
        row = diagnose(mcilib, *how)[1]["seal"]
        assert (row["state"], row["what"]) == ("ok", f"keys.txt: 2 keys, {key_id(first)} {key_id(second)}")
    (here / "keys.txt").write_text("# nobody\n")
    code, found = diagnose(mcilib, "--recipients", "keys.txt")
    assert (code, found["seal"]["state"]) == (1, "failed")
    assert (
        found["seal"]["what"] == "The recipients file keys.txt cannot be used. There are no keys to seal to"
    )


def test_state_grant_and_spool(here: Path) -> None:
    def states() -> tuple[str, str, str]:
        return tuple(
            check(here / "state").state
            for check in (_checks.check_state, _checks.check_grant, _checks.check_spool)
        )  # type: ignore[return-value]

    assert states() == ("ok", "warning", "ok")
    example_grant().save(here / "state")
    assert states() == ("ok", "ok", "ok")
    record(here / "state", 3, spool_max_files=1)
    assert states() == ("ok", "ok", "warning")
    example_grant(given_via="unattended").save(here / "state")
    assert _checks.check_grant(here / "state").what.startswith("unattended, nobody was asked")
    example_grant(expires_in=timedelta(seconds=-1)).save(here / "state")
    assert states() == ("ok", "failed", "warning")
    (here / "file").write_text("")
    assert _checks.check_state(here / "file" / "below").state == "failed"


@pytest.mark.parametrize(("free", "state"), [(1 << 20, "failed"), (100 << 20, "warning"), (1 << 30, "ok")])
def test_free_disk(free: int, state: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert _checks.check_disk(here / "not" / "there").state == state


@pytest.mark.parametrize(("wall_s", "state"), [(0, "failed"), (1_800_000_000, "ok"), (9e9, "failed")])
def test_the_clock(wall_s: float, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: wall_s)
    assert _checks.check_clock().state == state


@pytest.mark.parametrize(
    ("ahead_s", "state"),
    [(None, "unknown"), (-0.4, "ok"), (4.0, "ok"), (90.0, "warning"), (-90.0, "warning")],
)
def test_the_clock_against_the_endpoints(
    ahead_s: float | None, state: str, web: Callable[[int, bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    body: dict[str, Any] = {"service": "mcilib-receiver", "version": "1"}
    if ahead_s is not None:
        body["time_ns"] = time.time_ns() + int(ahead_s * 1e9)
    settings = Settings().override({"upload.endpoint": web(200, json.dumps(body).encode())})
    endpoint, offset = _checks.check_endpoint(settings)
    assert (endpoint.state, offset.state) == ("ok", state)


def test_every_outcome_has_a_remedy() -> None:
    from mcilib.cli._endpoint import remedy

    assert all(remedy(outcome) for outcome in Outcome)


def test_a_finding_is_a_value() -> None:
    assert Finding("a", "ok", "b") == Finding("a", "ok", "b", "")
