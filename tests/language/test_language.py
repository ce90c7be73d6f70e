"""Words: which language is found, what it says, how it writes numbers and times."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pytest

from mcilib import language
from mcilib.consent import DEFAULT_POLICY, SCOPES, Grant
from mcilib.indicator import Notice, TerminalIndicator
from mcilib.language import ENGLISH, Words, is_yes, lasting, moment, one_line
from mcilib.testing.fakes import example_grant

GERMAN = Words("de")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("de", "de"), ("de-AT", "de"), ("de_AT.UTF-8", "de"), ("DE-at", "de"), ("de@euro", "de"), ("de-Latn-DE-1996", "de"),
        ("en", "en"), ("en-GB", "en"), ("fr", "en"), ("", "en"), ("C", "en"), ("C.UTF-8", "en"), ("POSIX", "en"),
        ("../de", "en"), ("de/../de", "en"), ("de\0", "en"), ("de-" + "a" * 5000, "en"), ("dé", "en"), ("d", "en"),
    ],
)  # fmt: skip
def test_the_nearest_language_there_is(asked: str, found: str) -> None:
    words = Words(asked)
    assert words.language == found
    assert words == Words(found)
    assert hash(words) == hash(Words(found))
    assert words("Who collects:") == {"de": "Wer sammelt:", "en": "Who collects:"}[found]


def test_what_a_catalogue_does_not_have_is_english() -> None:
    assert GERMAN("Nobody has translated this.") == "Nobody has translated this."
    assert GERMAN("") == "", "not the catalogue's header"
    assert GERMAN.many("{n} hedgehog", "{n} hedgehogs", 2) == "{n} hedgehogs"


def test_forms_by_number() -> None:
    assert [ENGLISH.many("{n} day", "{n} days", n).format(n=n) for n in (0, 1, 2)] == [
        "0 days",
        "1 day",
        "2 days",
    ]
    assert [GERMAN.many("{n} day", "{n} days", n).format(n=n) for n in (0, 1, 2)] == [
        "0 Tage",
        "1 Tag",
        "2 Tage",
    ]


def test_numbers_as_the_language_writes_them() -> None:
    assert (ENGLISH.number(1234567), GERMAN.number(1234567)) == ("1,234,567", "1.234.567")
    assert (ENGLISH.number(1234.56, ",.1f"), GERMAN.number(1234.56, ",.1f")) == ("1,234.6", "1.234,6")
    assert GERMAN.number(0.018, ".2g") == "0,018"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (-5, "0 s"), (0.2, "1 s"), (59.2, "1 min"), (60, "1 min"), (270, "4 min 30 s"), (3_600, "1 h"),
        (7_500, "2 h 5 min"), (86_400, "1 day"), (90_000, "1 day 1 h"), (3 * 86_400 + 4 * 3_600 + 59, "3 days 4 h"),
    ],
)  # fmt: skip
def test_how_long(seconds: float, words: str) -> None:
    assert lasting(seconds, ENGLISH) == words
    assert lasting(seconds, GERMAN) == words.replace("days", "Tage").replace("day", "Tag")


def test_moments() -> None:
    assert moment(1_767_614_400 * 10**9, UTC) == "2026-01-05 12:00"
    assert moment(1_767_614_400 * 10**9, timezone(timedelta(hours=2))) == "2026-01-05 14:00"
    assert moment(-(10**30), UTC) == "1970-01-01 00:00"
    assert moment(10**30, UTC) == "9999-12-31 00:00"


def test_a_yes() -> None:
    assert all(is_yes(answer, ENGLISH) for answer in ("yes", "Y\n", " YES "))
    assert all(is_yes(answer, GERMAN) for answer in ("ja", "J", "yes", "y"))
    assert not any(is_yes(answer, ENGLISH) for answer in ("", "\n", "ja", "no", "yess"))
    assert not any(is_yes(answer, GERMAN) for answer in ("", "nein", "jaja"))


def test_one_line() -> None:
    assert one_line(" a\nb\t \x1b[2J\ud800 ") == "a b \\x1b[2J\\ud800"


def test_a_catalogue_that_is_damaged_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import pkgutil

    for data in (None, b"", b"nonsense", b"\xde\x12\x04\x95" + bytes(40)):
        monkeypatch.setattr(pkgutil, "get_data", lambda *_, data=data: data)
        found = language._catalogue("de")
        assert found is None or found.gettext("yes") == "yes"


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.setenv(name, "de_DE.UTF-8")
    language._found.cache_clear()
    assert Words("en")("yes") == Words("fr")("yes") == "yes"
    assert "Who collects:" in example_grant().describe()


def test_nothing_is_loaded_for_english_or_before_it_is_asked() -> None:
    probe = """
import sys, mcilib
assert "mcilib.language" not in sys.modules
from mcilib.language import ENGLISH, Words
assert ENGLISH("yes") == "yes" and Words("en-GB").language == "en"
assert not {"gettext", "pkgutil", "babel"} & set(sys.modules), sys.modules.keys()
assert Words("de")("yes") == "ja"
assert "babel" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    helped = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mcilib", "--help"], capture_output=True, text=True
    )
    assert helped.returncode == 0
    assert "babel" not in helped.stderr
    assert "pkgutil" not in helped.stderr, "no catalogue is read"


# --- what is said in it ---------------------------------------------------------------------------------------


def german_grant(*scopes: str) -> Grant:
    return Grant.give(
        operator="Beispiel-Labor",
        purpose="eine Studie",
        scopes=scopes or tuple(SCOPES),
        policy=GERMAN(DEFAULT_POLICY),
        language="de-DE",
        given_via="unattended",
    )


@pytest.mark.parametrize("grant", [example_grant(*SCOPES), german_grant()], ids=["en", "de"])
def test_a_grant_is_in_its_own_language_and_fits_a_terminal(grant: Grant) -> None:
    text = grant.describe()
    tr = Words(grant.language)
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for scope in SCOPES.values():
        assert tr(scope.words) in flat
    for label in (
        "Who collects:",
        "What for:",
        "What:",
        "Given:",
        "Ends:",
        "Kept for:",
        "You are:",
        "Policy:",
    ):
        assert tr(label) in text
    for line in grant.policy.splitlines():
        assert f"  {line}" in text.splitlines(), "the policy is not broken anew"


def test_the_digest_knows_the_language(tmp_path: Path) -> None:
    from dataclasses import replace

    grant = german_grant()
    assert replace(grant, language="en").digest != grant.digest
    grant.save(tmp_path)
    assert Grant.load(tmp_path) == grant


def test_the_question_is_in_the_language_too() -> None:
    import io

    said = io.StringIO()
    grant = Grant.ask(
        operator="Labor",
        purpose="Studie",
        scopes=["keys"],
        language="de",
        stdin=io.StringIO("ja\n"),
        stdout=said,
    )
    assert grant.language == "de"
    assert said.getvalue().endswith("Stimmen Sie zu? Tippen Sie ja: ")


def test_a_notice_in_german(capsys: pytest.CaptureFixture[str]) -> None:
    notice = Notice("resumed", "Labor", "Studie", ("keys",), "/st", "de")
    assert TerminalIndicator().show(notice)
    assert capsys.readouterr().err == (
        "mcilib: Die Aufzeichnung geht weiter. Wer sammelt: Labor. Wofür: Studie. "
        "Was: der Rhythmus der Tasten, nie welcher Buchstabe. Pause: mcilib pause --state /st\n"
    )


def test_the_catalogue_is_found_in_an_archive_too(tmp_path: Path) -> None:
    """As in a program that was packed into one file."""
    import zipfile

    package = Path(language.__file__).parent
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in (package / "__init__.py", package / "language.py", *package.glob("locale/*/*/*.mo")):
            archive.write(path, Path("mcilib") / path.relative_to(package))
    probe = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'all.zip')!r}); from mcilib import language; "
        "assert 'all.zip' in language.__file__; print(language.Words('de')('yes'))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", probe], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("ja\n", "")
