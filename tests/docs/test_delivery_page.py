"""The page of outcomes says what the code does."""

from __future__ import annotations

from documents import ROOT

from mcilib.delivery.retry import OUTCOME_TABLE


def test_the_page_has_the_table_of_outcomes() -> None:
    page = (ROOT / "docs/reference/delivery.md").read_text()
    section = page.partition("## What an answer means")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert rows == [
        f"| {r.answer} | {r.outcome.name} | {r.batches} | {r.next_attempt} | {r.counter} |"
        for r in OUTCOME_TABLE
    ]
