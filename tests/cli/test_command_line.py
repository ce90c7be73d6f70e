"""What holds for every command: help, one line for each error, nothing heavy loaded, the state folder."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMAND, Run, record, refused

import mcilib as package
from mcilib.cli._parser import default_state_dir
from mcilib.cli._program import COMMANDS, EXIT_CODES, make_parser
from mcilib.config import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")

PARSER = make_parser()
SUBPARSERS: dict[str, argparse.ArgumentParser] = next(
    dict(action.choices) for action in PARSER._actions if isinstance(action, argparse._SubParsersAction)
)


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    return [s for action in parser._actions for s in action.option_strings if s not in ("-h", "--help")]


# --- help and documents -------------------------------------------------------------------------------------


def test_help_names_every_command_and_exit_code(mcilib: Run) -> None:
    done = mcilib("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(re.search(rf"^    {name}\b", done.stdout, re.MULTILINE) for name in SUBPARSERS)
    assert EXIT_CODES in done.stdout
    assert "example:" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_says_what_it_does_with_an_example_and_its_exit_codes(name: str) -> None:
    text = SUBPARSERS[name].format_help()
    assert f"\n  mcilib {name}" in text
    assert "exit codes:" in text
    assert all(action.help for action in SUBPARSERS[name]._actions)
    assert max(len(line) for line in text.splitlines()) <= 110


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_has_every_flag_of_each_command(name: str) -> None:
    section = re.search(rf"^## mcilib {name}\n(.*?)(?=^## |\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    assert section is not None
    missing = [
        flag for flag in flags_of(SUBPARSERS[name]) if f"`{flag}" not in section[1] and flag != "--debug"
    ]
    assert not missing
    named = set(re.findall(r"^\| `(-[-a-z]+)", section[1], re.MULTILINE))
    assert named <= set(flags_of(SUBPARSERS[name])), "the reference has flags that are not there"


def test_the_reference_has_every_exit_code() -> None:
    codes = re.findall(r"^  (\d+)  ", EXIT_CODES, re.MULTILINE)
    assert codes == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "130", "141"]
    assert all(f"| {code} |" in REFERENCE for code in codes)


def examples() -> list[str]:
    """Each `mcilib ...` line of help texts and of the two reference pages."""
    texts = [PARSER.format_help(), *(parser.format_help() for parser in SUBPARSERS.values()), REFERENCE]
    texts.append((ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8"))
    return sorted(
        {line.strip(" $") for text in texts for line in re.findall(r"^(?:  |\$ )mcilib .*", text, re.M)}
    )


@pytest.mark.parametrize("line", examples())
def test_every_example_is_a_line_that_the_parser_takes(line: str) -> None:
    words = shlex.split(re.split(r" [|&>]", line)[0])
    if "COMMAND" not in words and "--help" not in words:
        assert callable(PARSER.parse_args(words[1:]).run)


def test_every_option_that_has_a_flag_is_a_flag_somewhere() -> None:
    dests = {action.dest for parser in SUBPARSERS.values() for action in parser._actions}
    assert {name for name, option in OPTIONS.items() if option.flag} <= dests


# --- what is loaded -----------------------------------------------------------------------------------------

LOADED = """
import sys
from mcilib.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
names = {name.partition(".")[0] for name in sys.modules}
print("LOADED", code, *sorted(names - set(sys.stdlib_module_names) - {"mcilib", "__main__"}))
"""


@pytest.mark.parametrize(
    ("args", "allowed"),
    [
        (["--help"], set()),
        (["run", "--help"], set()),
        (["--version"], set()),
        (["status"], set()),
        (["status", "--json"], set()),
        (["config", "--example"], set()),
        (["grant", "--operator", "a", "--purpose", "b", "--scope", "keys"], set()),
        (["completion", "bash"], {"shtab"}),
    ],
)
def test_nothing_heavy_is_loaded(args: list[str], allowed: set[str], here: Path) -> None:
    heavy = {
        "pynput",
        "Xlib",
        "urllib3",
        "starlette",
        "uvicorn",
        "pyarrow",
        "tenacity",
        "msgpack",
        "zstandard",
        "pyrage",
        "shtab",
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOADED, *args], capture_output=True, text=True, check=True
    )
    _, code, *loaded = done.stdout.splitlines()[-1].split()
    assert code == "0", done
    assert set(loaded) & heavy <= allowed


# --- errors -------------------------------------------------------------------------------------------------


def test_version(mcilib: Run) -> None:
    assert mcilib("--version").stdout == f"mcilib {package.__version__}\n"


def test_as_a_module(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mcilib", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"mcilib {package.__version__}\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "COMMAND"),
        (["fly"], "'fly'"),
        (["run", "--fo", "3s"], "unrecognized arguments: --fo"),
        (
            ["run", "--for", "soon"],
            "--for must be a duration from 1s to 365d, such as 30s 15m 2h 30d, not 'soon'",
        ),
        (["run", "--for", "30"], "--for must be a duration"),
        (
            ["run", "--sources", "camera"],
            "--sources must be some of pointer, display, keyboard, window, not 'camera'",
        ),
        (["run", "--sources", ""], "--sources must be some of pointer, display, keyboard, window, not ''"),
        (
            ["run", "--key-detail", "content"],
            "--key-detail must be one of none, timing, class, not 'content'",
        ),
        (["run", "--commit-every", "2h"], "--commit-every must be a duration from 1s to 1h"),
        (["run", "--state", ""], "--state must be a path"),
        (["receive", "store", "--port", "x"], "--port must be a whole number from 0 to 65535, not 'x'"),
        (["receive", "store", "--port", "65536"], "--port must be a whole number"),
        (["export", "store", "--format", "csv"], "'csv'"),
        (["keygen"], "the following arguments are required: -o/--output"),
        (["completion", "fish"], "'fish'"),
        (["run"], "--endpoint is missing"),
        (["run", "--drain", "--for", "3s", "--endpoint", "x"], "so --for has no meaning"),
        (["run", "--drain", "--sources", "pointer", "--endpoint", "x"], "so --sources has no meaning"),
        (["run", "--config", "none.toml"], "none.toml: cannot be read (No such file or directory)"),
        (
            ["run", "--endpoint", "http://127.0.0.1:1", "--token-file", "none"],
            "The token file none cannot be read",
        ),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(args: list[str], words: str, mcilib: Run) -> None:
    refused(mcilib(*args), 2, words)


@pytest.mark.parametrize("command", ["run", "grant", "status", "receive", "doctor"])
def test_each_command_that_takes_the_file_reads_it(command: str, mcilib: Run, here: Path) -> None:
    (here / "agent.toml").write_text('[agent]\n\n\n\n\n[batch]\nmax_age_s = "soon"\n')
    args = {"receive": ["store"]}.get(command, [])
    line = refused(mcilib(command, *args, "--config", "agent.toml"), 2)
    wanted = "agent.toml line 7: [batch] max_age_s must be a number of seconds from 1 to 3600, not 'soon'."
    assert line.startswith(f"mcilib: {wanted} ")


def test_an_unexpected_error_is_one_line_and_debug_shows_where(here: Path) -> None:
    code = (
        "import sys, mcilib.cli as cli, mcilib.cli.config as c; c.example = lambda: 1/0; sys.exit(cli.main())"
    )
    short = subprocess.run([sys.executable, "-P", "-c", code, "config"], capture_output=True, text=True)
    assert short.returncode == 1
    assert short.stderr == (
        "mcilib: Unexpected error: ZeroDivisionError: division by zero. "
        "Run it again with --debug to see where, and report it.\n"
    )
    for args in (["--debug", "config"], ["config", "--debug"]):
        long = subprocess.run([sys.executable, "-P", "-c", code, *args], capture_output=True, text=True)
        assert long.returncode == 1
        assert "Traceback" in long.stderr


def test_a_reader_that_goes_away_is_no_error(here: Path, granted: Path) -> None:
    record(granted, 3, events=tuple(_moves(4_000)), batch_max_events=5_000)
    with subprocess.Popen(
        [*COMMAND, "export", str(granted / "spool")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def _moves(count: int) -> list[package.Move]:
    return [package.Move(n * 1_000_000, n, n) for n in range(count)]


# --- the state folder ---------------------------------------------------------------------------------------


def state_of(mcilib: Run, *args: str, **env: str) -> str:
    import os

    done = mcilib("status", "--json", *args, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["state"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other places")
def test_the_state_folder_flag_over_file_over_environment_over_default(mcilib: Run, here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "agent.toml").write_text('[agent]\nstate = "of-file"\n')
    home = str(here / "home")
    assert state_of(mcilib) == f"{home}/.local/state/mcilib"
    assert state_of(mcilib, XDG_STATE_HOME="relative") == f"{home}/.local/state/mcilib"
    assert state_of(mcilib, XDG_STATE_HOME="/xdg") == "/xdg/mcilib"
    assert state_of(mcilib, XDG_STATE_HOME="/xdg", MCILIB_STATE="/env") == "/env"
    assert state_of(mcilib, "--config", "sub/agent.toml", MCILIB_STATE="/env") == "sub/of-file"
    assert state_of(mcilib, "--config", "sub/agent.toml", "--state", "flag", MCILIB_STATE="/env") == "flag"


@pytest.mark.parametrize(
    ("platform", "env", "wanted"),
    [
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/mcilib"),
        ("win32", {}, "/me/AppData/Local/mcilib"),
        ("darwin", {}, "/me/Library/Application Support/mcilib"),
    ],
)
def test_the_default_elsewhere(
    platform: str, env: dict[str, str], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("HOME", "/me")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert default_state_dir().as_posix() == wanted
