"""Each option of the agent reaches the part that obeys it, from the flag and from the file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import Run, refused

from mcilib.cli import _agent, _drain, _endpoint, main
from mcilib.collector import Collector
from mcilib.config import OPTIONS, Settings
from mcilib.config.policies import policies_of
from mcilib.consent import DEFAULT_POLICY, SCOPES
from mcilib.delivery import http
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.errors import ConfigError, GrantError, SealError, SourceError
from mcilib.format.seal import generate
from mcilib.policy import (
    Metered,
    Moment,
    Plan,
    Policy,
    ResourceState,
    Thermal,
    decide,
    default_policies,
)
from mcilib.privacy import KeyDetail
from mcilib.testing.fakes import example_grant


class Reached(SourceError):
    """Raised in the constructor under test: nothing further happens."""


class Spy:
    """Takes the place of a class, notes how it is made, and lets the real one be made (or ends it there)."""

    def __init__(self, real: Any, *, ends: bool = False) -> None:
        self._real, self._ends = real, ends
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        if self._ends:
            raise Reached("Seen", "This is the test's end.")
        return self._real(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


#: option -> value in the file, value of the flag, keyword of the Collector, what it gets
COLLECTOR: dict[str, tuple[str, str | None, str, Any]] = {
    "agent.state": ('"st"', "{here}/st", "state_dir", "st"),
    "batch.max_events": ("17", None, "batch_max_events", 17),
    "batch.max_bytes": ("65536", None, "batch_max_bytes", 65_536),
    "batch.max_age_s": ("90", "90s", "batch_max_age_s", 90.0),
    "batch.quanta_per_px": ("256", None, "quanta_per_px", 256),
    "batch.zstd_level": ("9", None, "zstd_level", 9),
    "spool.max_bytes": ("2000000", None, "spool_max_bytes", 2_000_000),
    "spool.max_files": ("3", None, "spool_max_files", 3),
    "spool.max_age_s": ("7200", None, "spool_max_age_s", 7200.0),
    "spool.min_free_bytes": ("5", None, "spool_min_free_bytes", 5),
    "upload.interval_s": ("900", "15m", "upload_interval_s", 900.0),
    "upload.max_request_bytes": ("65536", None, "max_request_bytes", 65_536),
    "upload.hold_s": ("7200", "2h", "hold_s", 7_200.0),
    "upload.fallback_age_s": ("3600", None, "fallback_age_s", 3_600.0),
    "consent.pause_cap_s": ("3600", "1h", "pause_cap_s", 3_600.0),
    "consent.policy_file": ('"policy.txt"', None, "policy", DEFAULT_POLICY),
}
TRANSPORT: dict[str, tuple[str, str | None, str, Any]] = {
    "upload.endpoint": ('"http://127.0.0.1:9"', "http://127.0.0.1:9", "", "http://127.0.0.1:9"),
    "upload.token_file": ('"token"', "{here}/token", "token", "s3cret"),
    "upload.ca_file": ('"ca.pem"', "{here}/ca.pem", "ca_file", "ca.pem"),
    "upload.client_cert": ('"me.pem"', "{here}/me.pem", "client_cert", "me.pem"),
    "upload.client_key": ('"me.key"', "{here}/me.key", "client_key", "me.key"),
    "upload.proxy": ('"http://p:1"', "http://p:1", "proxy", "http://p:1"),
    "upload.timeout_s": ("3", None, "timeout_s", 3.0),
}

#: option -> value in the file, value of the flag, what the file's means, and a machine on which that matters
ADAPT: dict[str, tuple[str, str | None, Any, dict[str, Any]]] = {
    "adapt.policies": ('["saver"]', None, ("saver",), {"portal": True}),
    "adapt.battery_low": ("0.5", None, 0.5, {"battery_present": True, "battery_ratio": 0.4}),
    "adapt.cpu_budget": ("0.05", None, 0.05, {"cpu_ratio": 0.04}),
    "adapt.saver_tolerance_px": ("2", None, 2.0, {"power_saver": True}),
    "adapt.metered_bytes_per_hour": ("7000", "7000", 7000, {"metered": Metered.YES}),
    "adapt.quiet_hours": ('["00:00-24:00"]', "00:00-24:00", ("00:00-24:00",), {}),
    "adapt.rules": ('["hot: motion none"]', None, ("hot: motion none",), {"thermal": Thermal.HOT}),
}


def command(name: str, row: tuple[str, str | None, Any, Any], how: str, here: Path) -> list[str]:
    """`run` with this option in the file, or as a flag."""
    in_file, flag, _, _ = row
    section, key = name.split(".")
    args = ["run"]
    if name != "agent.state":
        args += ["--state", str(here / "state")]
    if name != "upload.endpoint":
        args += ["--endpoint", "http://127.0.0.1:9"]
    if how == "file":
        (here / "agent.toml").write_text(f"[{section}]\n{key} = {in_file}\n")
        return [*args, "--config", str(here / "agent.toml")]
    assert flag is not None
    return [*args, str(OPTIONS[name].flag), flag.format(here=here)]


def cases(table: Mapping[str, tuple[str, str | None, Any, Any]]) -> list[tuple[str, str]]:
    return [(name, how) for name, row in table.items() for how in ("file", "flag") if how == "file" or row[1]]


@pytest.fixture
def folders(granted: Path, here: Path) -> Path:
    shutil.copytree(granted, here / "st")
    (here / "token").write_text("s3cret")
    (here / "policy.txt").write_text(DEFAULT_POLICY)
    return here


def test_the_tables_are_complete() -> None:
    sections = ("agent", "batch", "seal", "spool", "upload", "adapt", "consent")
    ours = {name for name in OPTIONS if name.partition(".")[0] in sections}
    assert ours == {
        *COLLECTOR,
        *TRANSPORT,
        *ADAPT,
        "agent.sources",
        "agent.key_detail",
        "agent.window_detail",
        "agent.backend",
        "agent.read_interval_s",
        "seal.recipients_file",
    }


@pytest.mark.parametrize(("name", "how"), cases(COLLECTOR))
def test_options_of_the_collector(
    name: str, how: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(Collector, ends=True)
    monkeypatch.setattr(_agent, "Collector", spy)
    assert main(command(name, COLLECTOR[name], how, folders)) == Reached.exit_code
    ((_, kwargs),) = spy.calls
    _, _, keyword, wanted = COLLECTOR[name]
    assert kwargs[keyword] == (folders / wanted if keyword == "state_dir" else wanted)
    default = OPTIONS[name].default
    assert default is None or kwargs[keyword] != default


@pytest.mark.parametrize(("name", "how"), cases(ADAPT))
def test_options_of_policies(name: str, how: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(Collector, ends=True)
    monkeypatch.setattr(_agent, "Collector", spy)
    assert main(command(name, ADAPT[name], how, folders)) == Reached.exit_code
    _, _, meant, machine = ADAPT[name]

    def plan(policies: Sequence[Policy]) -> Plan:
        return decide(policies, ResourceState(**machine), None, Moment(0, 0))[0]

    told = plan(spy.calls[0][1]["policies"])
    assert told == plan(policies_of(Settings().override({name: meant}).adapt))
    assert told != plan(default_policies()), "it says nothing here"


@pytest.mark.parametrize(("name", "how"), cases(TRANSPORT))
@pytest.mark.parametrize("drain", [[], ["--drain"]])
def test_options_of_the_transport(
    name: str, how: str, drain: list[str], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(http.HttpTransport, ends=True)
    monkeypatch.setattr(http, "HttpTransport", spy)
    assert main([*command(name, TRANSPORT[name], how, folders), *drain]) == Reached.exit_code
    (((endpoint,), kwargs),) = spy.calls
    _, _, keyword, wanted = TRANSPORT[name]
    if keyword == "":
        assert endpoint == wanted
    elif keyword == "token":
        assert kwargs["token"]() == wanted
    else:
        assert kwargs[keyword] == (folders / wanted if OPTIONS[name].kind == "path" else wanted)


@pytest.mark.parametrize(
    "name",
    [
        "spool.max_bytes",
        "spool.max_files",
        "spool.max_age_s",
        "spool.min_free_bytes",
        "upload.interval_s",
        "upload.max_request_bytes",
        "upload.hold_s",
        "upload.fallback_age_s",
    ],
)
def test_options_of_a_drain(name: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, uploader = Spy(DirectorySpool), Spy(Uploader)
    monkeypatch.setattr(_drain, "DirectorySpool", spool)
    monkeypatch.setattr(_drain, "Uploader", uploader)
    assert main([*command(name, COLLECTOR[name], "file", folders), "--drain"]) == 0
    section, key = name.split(".")
    spy = spool if section == "spool" else uploader
    assert spy.calls[0][1][key] == COLLECTOR[name][3]


@pytest.mark.parametrize("how", ["file", "flag"])
def test_sources_and_key_detail(how: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(Collector, ends=True)
    monkeypatch.setattr(_agent, "Collector", spy)
    args = ["run", "--state", str(folders / "st"), "--endpoint", "http://127.0.0.1:9"]
    if how == "file":
        (folders / "agent.toml").write_text('[agent]\nsources = ["keyboard"]\nkey_detail = "timing"\n')
        args += ["--config", str(folders / "agent.toml")]
    else:
        args += ["--sources", "keyboard", "--key-detail", "timing"]
    assert main(args) == Reached.exit_code
    (source,) = spy.calls[0][1]["sources"]
    assert (source.name, source.detail) == ("keyboard", KeyDetail.TIMING)


def test_how_sources_hear(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(Collector, ends=True)
    monkeypatch.setattr(_agent, "Collector", spy)
    example_grant(*SCOPES).save(folders / "st")
    (folders / "agent.toml").write_text('[agent]\nbackend = "pynput"\nread_interval_s = 0.25\n')
    args = ["run", "--state", str(folders / "st"), "--endpoint", "http://127.0.0.1:9"]
    assert main([*args, "--config", str(folders / "agent.toml")]) == Reached.exit_code
    sources = spy.calls[0][1]["sources"]
    assert {s.name: (s.backend, s.read_interval_s) for s in sources} == {
        "display": ("x11", 0.25),
        "keyboard": ("pynput", 0.25),
        "window": ("x11", 0.25),
        "pointer": ("pynput", 0.25),
    }


@pytest.mark.parametrize(("scopes", "names"), [
    (["pointer"], ["display", "pointer"]),
    (["keys"], ["keyboard"]),
    (["apps"], ["window"]),
    (["apps", "titles"], ["window"]),
    (["titles", "apps", "pointer", "keys"], ["display", "keyboard", "window", "pointer"]),
])  # fmt: skip
@pytest.mark.parametrize("system", ["linux", "win32"])
def test_the_sources_of_each_scope(
    system: str, scopes: list[str], names: list[str], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each, those that tell how things are first. Elsewhere (which is feigned) only what is heard there."""
    spy = Spy(Collector, ends=True)
    monkeypatch.setattr(_agent, "Collector", spy)
    monkeypatch.setattr(_agent, "on_x11", lambda: system == "linux")
    example_grant(*scopes).save(folders / "st")
    code = main(["run", "--state", str(folders / "st"), "--endpoint", "http://127.0.0.1:9"])
    elsewhere = [name for name in names if name in ("pointer", "keyboard")]
    if system == "win32" and not elsewhere:
        assert (code, spy.calls) == (ConfigError.exit_code, [])
        return
    assert code == Reached.exit_code
    assert [s.name for s in spy.calls[0][1]["sources"]] == (names if system == "linux" else elsewhere)


def test_sources_start_in_an_order_of_their_own(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(Collector, ends=True)
    monkeypatch.setattr(_agent, "Collector", spy)
    args = ["run", "--state", str(folders / "st"), "--endpoint", "http://127.0.0.1:9"]
    assert main([*args, "--sources", "pointer,keyboard,display"]) == Reached.exit_code
    assert [s.name for s in spy.calls[0][1]["sources"]] == ["display", "keyboard", "pointer"]


@pytest.mark.parametrize("how", ["file", "flag", "not at all"])
def test_window_detail(how: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(Collector, ends=True)
    monkeypatch.setattr(_agent, "Collector", spy)
    for state in ("st", "state"):
        example_grant("apps", "titles").save(folders / state)
    args = ["run", "--state", str(folders / "st"), "--endpoint", "http://127.0.0.1:9"]
    if how != "not at all":
        args = command("agent.window_detail", ('"title"', "title", "", None), how, folders)
    assert main(args) == Reached.exit_code
    (source,) = spy.calls[0][1]["sources"]
    wanted = ("window", False, "apps") if how == "not at all" else ("window", True, "titles")
    assert (source.name, source.titles, source.scope) == wanted


@pytest.mark.parametrize("scopes", [["apps"], ["keys", "pointer"]])
def test_titles_without_their_scope_are_refused(scopes: list[str], here: Path, mcilib: Run) -> None:
    example_grant(*scopes).save("state")
    done = mcilib("run", "--state", "state", "--endpoint", "http://127.0.0.1:9", "--window-detail", "title")
    words = f"The grant covers {', '.join(scopes)}, which does not allow to keep titles of windows"
    refused(done, GrantError.exit_code, words, "Ask for the scope titles", "--window-detail")


def test_a_window_without_a_scope_for_it_is_refused(here: Path, mcilib: Run) -> None:
    example_grant().save("state")
    done = mcilib(
        "run", "--state", "state", "--endpoint", "http://127.0.0.1:9", "--sources", "pointer,window"
    )
    refused(done, GrantError.exit_code, "does not allow to capture the window", "--sources")


@pytest.mark.parametrize("how", ["file", "flag", "not at all"])
def test_recipients_are_read_again_each_time(
    how: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(Collector, ends=True)
    monkeypatch.setattr(_agent, "Collector", spy)
    (_, first), (_, second) = generate(), generate()
    (folders / "keys.txt").write_text(f"{first}\n")
    row = ('"keys.txt"', "{here}/keys.txt", "", None)
    args = ["run", "--state", str(folders / "st"), "--endpoint", "http://127.0.0.1:9"]
    if how != "not at all":
        args = command("seal.recipients_file", row, how, folders)
    assert main(args) == Reached.exit_code
    recipients = spy.calls[0][1]["recipients"]
    if how == "not at all":
        assert recipients == ()
        return
    assert recipients() == (first,)
    (folders / "keys.txt").write_text(f"{first}\n{second}\n")
    assert recipients() == (first, second)
    (folders / "keys.txt").unlink()
    with pytest.raises(SealError, match=r"keys.txt cannot be read \(No such file or directory\)"):
        recipients()


def test_key_detail_none_leaves_the_keyboard_out(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(Collector, ends=True)
    monkeypatch.setattr(_agent, "Collector", spy)
    main(["run", "--state", str(folders / "st"), "--endpoint", "http://127.0.0.1:9", "--key-detail", "none"])
    assert [source.name for source in spy.calls[0][1]["sources"]] == ["display", "pointer"]


def test_key_detail_none_with_nothing_else_is_refused(here: Path, mcilib: Run) -> None:
    example_grant("keys").save("state")
    done = mcilib("run", "--state", "state", "--endpoint", "http://127.0.0.1:9", "--key-detail", "none")
    refused(done, 2, "there is nothing to capture", "--key-detail")


def test_hopeless_outcomes_are_those_that_waiting_does_not_mend() -> None:
    from mcilib.protocols import Outcome

    assert set(Outcome) - set(_endpoint.HOPELESS) == {Outcome.DELIVERED, Outcome.RETRY}
