"""What a participant types wrong, and what they read in their language, where no agent runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Run, refused

from mcilib.participant import Participant


@pytest.mark.parametrize(
    ("hours", "why"),
    [
        ("mon-fri 25:00-13:00", "no weekly hours: a time is 00:00 to 23:59"),
        ("mon 12:00-12:00", "no weekly hours: it begins when it ends; a whole day is 00:00-24:00. Give them"),
        ("foo 12:00-13:00", "no weekly hours: 'foo' is no day"),
        ("at night", "no weekly hours: must be such as"),
    ],
)
def test_hours_that_are_none_are_told_in_a_sentence(mcilib: Run, granted: Path, hours: str, why: str) -> None:
    refused(mcilib("exempt", "--state", granted, "--hours", hours, "--reason", "other"), 2, why)


def test_why_it_stays_off_is_told_in_the_language_of_who_resumes(
    mcilib: Run, granted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGUAGE", "de")
    assert mcilib("exempt", "--state", granted, "--everything", "--reason", "other").returncode == 0
    said = mcilib("resume", "--state", granted).stdout
    assert "alles ist ausgenommen" in said
    assert "exempt" not in said


def test_one_of_two_exemptions_taken_back_does_not_say_that_it_is_captured(
    mcilib: Run, granted: Path
) -> None:
    for _ in range(2):
        mcilib("exempt", "--state", granted, "--scope", "keys", "--reason", "other")
    first = Participant.read_state(granted).exemptions[0].exemption_id
    said = mcilib("exempt", "--state", granted, "--withdraw", first).stdout
    assert "captured again, unless the grant or something else keeps it off" in said
