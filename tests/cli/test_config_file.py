"""The configuration file: read, refused with the line, and explained by what is made from the same table."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcilib.cli.config import example, reference, schema
from mcilib.config import OPTIONS, SECTIONS, Settings, as_duration, load, parse_duration
from mcilib.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

#: A good value that is not the default, for each option, and how it is read (relative to the file's folder).
GOOD: dict[str, tuple[Any, Any]] = {
    "agent.state": ("here", Path("here")),
    "agent.sources": (["keyboard"], ("keyboard",)),
    "agent.key_detail": ("timing", "timing"),
    "agent.window_detail": ("title", "title"),
    "agent.backend": ("pynput", "pynput"),
    "agent.read_interval_s": (0.25, 0.25),
    "batch.max_events": (17, 17),
    "batch.max_bytes": (65_536, 65_536),
    "batch.max_age_s": (2.5, 2.5),
    "batch.quanta_per_px": (256, 256),
    "batch.zstd_level": (9, 9),
    "seal.recipients_file": ("keys/recipients.txt", Path("keys/recipients.txt")),
    "spool.max_bytes": (2_000_000, 2_000_000),
    "spool.max_files": (3, 3),
    "spool.max_age_s": (7200, 7200.0),
    "spool.min_free_bytes": (0, 0),
    "upload.endpoint": ("https://collect.example.org", "https://collect.example.org"),
    "upload.interval_s": (90, 90.0),
    "upload.token_file": ("secret/token", Path("secret/token")),
    "upload.ca_file": ("/etc/ca.pem", Path("/etc/ca.pem")),
    "upload.client_cert": ("me.pem", Path("me.pem")),
    "upload.client_key": ("me.key", Path("me.key")),
    "upload.proxy": ("http://proxy:3128", "http://proxy:3128"),
    "upload.timeout_s": (3, 3.0),
    "upload.max_request_bytes": (65_536, 65_536),
    "upload.hold_s": (86_400, 86_400.0),
    "upload.fallback_age_s": (7200, 7200.0),
    "adapt.policies": (["cpu", "battery"], ("cpu", "battery")),
    "adapt.battery_low": (0.3, 0.3),
    "adapt.cpu_budget": (0.05, 0.05),
    "adapt.saver_tolerance_px": (4, 4.0),
    "adapt.metered_bytes_per_hour": (307_200, 307_200),
    "adapt.quiet_hours": (["mon-fri 22:00-07:00"], ("mon-fri 22:00-07:00",)),
    "adapt.rules": (["saver: motion none", "hot: cpu low"], ("saver: motion none", "hot: cpu low")),
    "consent.pause_cap_s": (3_600, 3_600.0),
    "consent.policy_file": ("policy.txt", Path("policy.txt")),
    "receiver.host": ("::1", "::1"),
    "receiver.port": (0, 0),
    "receiver.token_file": ("token", Path("token")),
    "receiver.operator_token_file": ("operator", Path("operator")),
    "receiver.tls_cert": ("cert.pem", Path("cert.pem")),
    "receiver.tls_key": ("key.pem", Path("key.pem")),
    "receiver.max_body_bytes": (1_048_576, 1_048_576),
    "receiver.device_requests": (15, 15),
    "receiver.retention_days": (30, 30),
    "grant.operator": ("Example Lab", "Example Lab"),
    "grant.purpose": ("a study", "a study"),
    "grant.scope": (["keys", "pointer"], ("keys", "pointer")),
    "grant.policy": ("policy.txt", Path("policy.txt")),
    "grant.language": ("de-AT", "de-AT"),
    "grant.expires": ("30d", 30 * 86_400.0),
}

BAD: list[tuple[str, str]] = [
    ("agent.state", "7"),
    ("agent.state", '" "'),
    ("agent.sources", '"pointer"'),
    ("agent.sources", "[]"),
    ("agent.sources", '["pointer", "camera"]'),
    ("agent.sources", "[1]"),
    ("agent.sources", "[[1]]"),
    ("agent.key_detail", '"content"'),
    ("agent.window_detail", '"class"'),
    ("batch.max_events", "0"),
    ("batch.max_events", "1.5"),
    ("batch.max_events", "true"),
    ("batch.max_age_s", '"soon"'),
    ("batch.max_age_s", "0"),
    ("batch.max_age_s", "nan"),
    ("batch.max_age_s", "inf"),
    ("batch.max_age_s", "3601"),
    ("batch.max_age_s", "false"),
    ("batch.max_age_s", "1979-05-27"),
    ("batch.max_age_s", "{a = 1}"),
    ("batch.max_bytes", "4095"),
    ("batch.max_bytes", "2097153"),
    ("batch.quanta_per_px", "0"),
    ("batch.quanta_per_px", "257"),
    ("batch.quanta_per_px", "0.5"),
    ("batch.zstd_level", "20"),
    ("seal.recipients_file", "false"),
    ("seal.recipients_file", '["age1"]'),
    ("spool.max_bytes", "1"),
    ("spool.max_files", "-1"),
    ("upload.endpoint", "8750"),
    ("upload.interval_s", '"1h"'),
    ("upload.timeout_s", "0"),
    ("upload.max_request_bytes", "1"),
    ("adapt.policies", '["wind"]'),
    ("adapt.battery_low", "1.5"),
    ("adapt.battery_low", '"15 %"'),
    ("adapt.battery_low", "true"),
    ("adapt.cpu_budget", "0"),
    ("adapt.cpu_budget", "nan"),
    ("adapt.saver_tolerance_px", "1025"),
    ("adapt.metered_bytes_per_hour", "-1"),
    ("adapt.quiet_hours", '"22:00-07:00"'),
    ("adapt.quiet_hours", "[22]"),
    ("adapt.quiet_hours", '["at night"]'),
    ("adapt.rules", '"saver: motion none"'),
    ("adapt.rules", '["saver: motion nun"]'),
    ("adapt.rules", '["saver: motion none", ""]'),
    ("consent.pause_cap_s", "1799"),
    ("consent.pause_cap_s", "86401"),
    ("consent.pause_cap_s", '"1h"'),
    ("consent.policy_file", "7"),
    ("receiver.port", "65536"),
    ("receiver.port", '"8750"'),
    ("receiver.max_body_bytes", "0"),
    ("receiver.device_requests", "0"),
    ("receiver.retention_days", "0"),
    ("receiver.retention_days", "36501"),
    ("grant.scope", '["screen"]'),
    ("grant.expires", '"soon"'),
    ("grant.expires", '"30"'),
    ("grant.expires", "30"),
    ("grant.expires", '"999999999999d"'),
]


def write(folder: Path, text: str | bytes, name: str = "agent.toml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_option_has_a_good_value_here() -> None:
    assert list(GOOD) == list(OPTIONS)


@pytest.mark.parametrize("name", list(OPTIONS))
def test_each_option_is_read_from_the_file(name: str, tmp_path: Path) -> None:
    section, key = name.split(".")
    given_value, wanted = GOOD[name]
    settings = load(write(tmp_path, f"[{section}]\n{key} = {json.dumps(given_value)}\n"))
    if isinstance(wanted, Path):
        wanted = tmp_path / wanted
    found = getattr(getattr(settings, section), key)
    assert found == wanted
    assert type(found) is type(wanted)
    assert found != getattr(getattr(Settings(), section), key)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_with_file_line_and_what_it_must_be(
    name: str, value: str, tmp_path: Path
) -> None:
    section, key = name.split(".")
    path = write(tmp_path, f"# a remark\n\n[{section}]\n\n{key} = {value}\n")
    error = refused(path)
    assert error.line == 5
    assert str(error).startswith(f"{path} line 5: [{section}] {key} must be {OPTIONS[name].must_be()}, not ")


def test_the_message_is_the_one_in_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, '[agent]\n\n\n\n\n[batch]\nmax_age_s = "soon"\n')
    message = "agent.toml line 7: [batch] max_age_s must be a number of seconds from 1 to 3600, not 'soon'"
    assert refused(Path("agent.toml")).problem == message


@pytest.mark.parametrize(
    ("text", "line", "problem", "hint"),
    [
        ("[batch]\nmax_age = 3\n", 2, "[batch] has no key max_age", "Did you mean max_age_s?"),
        (
            "[batch]\nzzz = 3\n",
            2,
            "[batch] has no key zzz",
            "Known: max_events, max_bytes, max_age_s, quanta_per_px, zstd_level.",
        ),
        ("\n[btach]\n", 2, "there is no section [btach]", "Did you mean [batch]?"),
        ("\nendpoint = 'x'\n", 2, "there is no section [endpoint]", "Put it below [upload]."),
        ("batch = 3\n", 1, "batch must be a section", "Write [batch] on its own line."),
        ("[[batch]]\nmax_age_s = 3\n", 1, "batch must be a section", "Write [batch] on its own line."),
        ("[batch]\n\nmax_age_s = = 3\n", 3, "not TOML", ""),
        ("[batch]\nmax_age_s = 3\nmax_age_s = 4\n", 3, "not TOML", ""),
        ('[batch]\nx = """\nnever closed\n\n', 3, "not TOML", ""),
        ("[batch\n", 1, "not TOML", ""),
        (b"[agent]\nstate = '\xff'\n", 2, "is not UTF-8 text", ""),
        ("x = " + "[" * 5000 + "]" * 5000, 0, "nested too deeply", ""),
        # as deep as the reading of values goes, but not that of lines
        ("x = " + "[" * 400 + "]" * 400, 0, "nested too deeply", ""),
        ("\n[agent]\nstate = '~nosuchuser/x'", 3, "state names a home folder that is not there", ""),
        ('[agent]\nstate = "a\\u0000b"', 2, "state must be a path, not", ""),
        ('batch.max_age_s = "soon"\n', 1, "[batch] max_age_s must be", ""),
        (
            'batch = { max_events = 5,\nmax_age_s = "soon" }\n'.replace("\n", " ", 1),
            1,
            "[batch] max_age_s must be",
            "",
        ),
        ('["batch"]\n"max_age_s" = "soon"\n', 2, "[batch] max_age_s must be", ""),
        ('[batch]\n"max\\u005fage_s" = "soon"\n', 2, "[batch] max_age_s must be", ""),
        (
            '[agent]\nstate = """\n[batch]\nmax_age_s = 1\n"""\n[batch]\nmax_age_s = 0\n',
            7,
            "max_age_s must be",
            "",
        ),
        ('[batch]\nmax_age_s = 0\n[agent]\nkey_detail = "all"\n', 2, "max_age_s must be", ""),
    ],
)
def test_mistakes_name_the_line(
    text: str | bytes, line: int, problem: str, hint: str, tmp_path: Path
) -> None:
    error = refused(write(tmp_path, text))
    assert (error.line, problem in error.problem, hint in error.next_step) == (line, True, True), str(error)


def test_a_rule_that_is_wrong_is_told_by_its_place(tmp_path: Path) -> None:
    text = '[adapt]\nrules = [\n  "hot: cpu low",\n  "saver and batery < 9 %: upload none",\n]\n'
    error = refused(write(tmp_path, text))
    assert "not 'saver and batery < 9 %: upload none': 'batery < 9 %' at character 11: there is no" in str(
        error
    )
    assert "did you mean 'battery < N %'? There are battery, saver," in str(error)


def test_lists_that_may_be_empty(tmp_path: Path) -> None:
    adapt = load(write(tmp_path, "[adapt]\npolicies = []\nquiet_hours = []\nrules = []\n")).adapt
    assert (adapt.policies, adapt.quiet_hours, adapt.rules) == ((), (), ())


def test_texts_and_numbers_as_flags() -> None:
    windows = OPTIONS["adapt.quiet_hours"]
    assert windows.accept_flag("22:00-07:00; sat,sun 00:00-24:00") == ("22:00-07:00", "sat,sun 00:00-24:00")
    with pytest.raises(
        ValueError,
        match=r"^must be \[DAYS\] HH:MM-HH:MM, with ; between several, not '22:00-07:00; 7-8': must be",
    ):
        windows.accept_flag("22:00-07:00; 7-8")
    assert OPTIONS["adapt.cpu_budget"].accept_flag("0.5") == 0.5
    with pytest.raises(ValueError, match=r"must be a number from 0\.001 to 1, not 'much'"):
        OPTIONS["adapt.cpu_budget"].accept_flag("much")
    assert OPTIONS["adapt.metered_bytes_per_hour"].accept_flag("307200") == 307_200


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refused(tmp_path / "none.toml").problem
    assert "cannot be read (Is a directory)" in refused(tmp_path).problem


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf[batch]\r\nmax_events = 3\r\n")
    assert load(path).batch.max_events == 3


def test_home_in_a_path_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load(write(tmp_path, '[agent]\nstate = "~/x"\n')).agent.state == tmp_path / "home" / "x"


# --- what is made from the table ----------------------------------------------------------------------------


def test_the_example_as_it_is_changes_nothing(tmp_path: Path) -> None:
    assert load(write(tmp_path, example())) == Settings()


def test_the_example_with_everything_switched_on_is_valid(tmp_path: Path) -> None:
    lines = [
        line[1:] if line.startswith("#") and not line.startswith("# ") else line
        for line in example().splitlines()
    ]
    document = tomllib.loads("\n".join(lines))
    assert [f"{s}.{k}" for s in document for k in document[s]] == list(OPTIONS)
    settings = load(write(tmp_path, "\n".join(lines)))
    for name, option in OPTIONS.items():
        if option.default is not None:
            assert getattr(getattr(settings, option.section), option.key) == option.default, name


def test_the_schema_knows_every_option_and_nothing_else() -> None:
    found = schema()
    assert not found["additionalProperties"]
    names = [f"{s}.{k}" for s, part in found["properties"].items() for k in part["properties"]]
    assert names == list(OPTIONS)
    assert all(part["additionalProperties"] is False for part in found["properties"].values())


@pytest.mark.parametrize("name", list(OPTIONS))
def test_the_schema_agrees_with_the_reader(name: str) -> None:
    option = OPTIONS[name]
    rule = schema()["properties"][option.section]["properties"][option.key]
    assert meets(rule, GOOD[name][0])
    for bad_name, text in BAD:
        # A number can be written in a date's place, but JSON has no dates, and TOML's nan is no JSON number. What is
        # a window or a rule no pattern tells.
        told = ("1979-05-27", "nan", "inf", '"999999999999d"', '["at night"]', '["saver: motion nun"]')
        if bad_name == name and text not in told:
            assert not meets(rule, tomllib.loads(f"x = {text}")["x"]), text


def meets(rule: dict[str, Any], value: Any) -> bool:
    """The part of JSON schema that the schema uses."""
    import re

    kinds = {"string": str, "integer": int, "number": (int, float), "array": list}
    if not isinstance(value, kinds[rule["type"]]) or isinstance(value, bool):  # type: ignore[arg-type]
        return False
    if "minimum" in rule:
        return bool(rule["minimum"] <= value <= rule["maximum"])
    if "items" in rule:
        return len(value) >= rule["minItems"] and all(meets(rule["items"], item) for item in value)
    if "pattern" in rule:
        return re.search(rule["pattern"], value) is not None
    return value in rule["enum"] if "enum" in rule else True


def test_the_document_holds_the_table() -> None:
    path = ROOT / "docs" / "reference" / "configuration.md"
    command = "python -c 'from mcilib.cli.config import reference; print(reference())'"
    assert reference() in path.read_text(encoding="utf-8"), (
        f"put the output of this into {path.name}: {command}"
    )


# --- durations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("2h", 7200), ("30d", 2_592_000), ("1.5h", 5400), (" 5s ", 5), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-3s", "3 s", "3w", "1h30m", "1e3s", "nan", "٣s", "1" * 99 + "s"]
)
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


@given(st.integers(0, 10**9))
def test_durations_come_back(seconds: int) -> None:
    assert parse_duration(as_duration(seconds)) == seconds


def test_sections_have_a_sentence() -> None:
    assert all(words.endswith(".") for words in SECTIONS.values())
