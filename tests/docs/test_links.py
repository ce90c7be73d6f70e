"""Links lead somewhere, and what the documents name is there."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import documents
import pytest
from documents import ROOT, Document

import mcilib
from mcilib.cli._program import COMMANDS

ALL = documents.documents()
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

each_document = pytest.mark.parametrize("document", ALL, ids=lambda d: d.name)


@each_document
def test_links_resolve(document: Document) -> None:
    wrong = []
    for line, target in document.links():
        parts = urlsplit(target)
        if parts.scheme:  # another site: not asked, but never over plain HTTP, and never this machine
            if parts.scheme != "https":
                wrong.append(f"{document.name}:{line}: {target} is not https")
            continue
        path = document.folder / unquote(parts.path) if parts.path else ROOT / document.name
        if not path.exists():
            wrong.append(f"{document.name}:{line}: {target} does not exist")
        elif parts.fragment and path.suffix == ".md" and parts.fragment not in documents.read(path).anchors():
            wrong.append(f"{document.name}:{line}: {target} has no such heading")
    assert not wrong, "\n".join(wrong)


@each_document
def test_commands_and_targets_named_in_the_text_exist(document: Document) -> None:
    wrong = []
    for line, code in document.code_spans():
        if (match := re.match(r"make ([a-z-]+)", code)) and match[1] not in MAKE_TARGETS:
            wrong.append(f"{document.name}:{line}: no target {match[1]!r}")
        if (match := re.match(r"mcilib ([a-z]+)", code)) and match[1] not in COMMANDS:
            wrong.append(f"{document.name}:{line}: no command {match[1]!r}")
    assert not wrong, "\n".join(wrong)


@each_document
def test_names_of_the_library_in_the_text_exist(document: Document) -> None:
    """`Grant.ask` and the like: what is written as code and begins with a public name is there."""
    wrong = []
    for line, code in document.code_spans():
        match = re.match(r"([A-Z]\w+)\.([a-z_]\w*)", code)
        if match and match[1] in mcilib.__all__:
            owner = getattr(mcilib, match[1])
            fields = getattr(owner, "__dataclass_fields__", {})
            if not hasattr(owner, match[2]) and match[2] not in fields:
                wrong.append(f"{document.name}:{line}: {code}")
    assert not wrong, "\n".join(wrong)


def test_every_document_is_in_the_index() -> None:
    """Nothing under docs/ that docs/README.md does not lead to (decisions through their folder's list)."""
    index = next(d for d in ALL if d.name == "docs/README.md")
    linked = {
        (index.folder / urlsplit(target).path).resolve() for _, target in index.links() if target[0] != "#"
    }
    missing = [d.name for d in ALL if d.name.startswith("docs/") and (ROOT / d.name).resolve() not in linked]
    missing.remove("docs/README.md")
    assert not missing, f"not linked from docs/README.md: {missing}"


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
    for path in (ROOT / "docs/decisions").glob("[0-9]*.md"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]} "), f"{path.name}: its title begins with its number"
        for part in ("**Context.**", "**Decision.**", "**Rejected.**"):
            assert part in text, f"{path.name} has no {part}"
