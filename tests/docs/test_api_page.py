"""docs/reference/api.md names what is public, all of it and nothing else."""

from __future__ import annotations

import re
from importlib import import_module

from documents import ROOT

import mcilib


def names_under(heading: str) -> list[str]:
    """The names in the first column of the tables under a heading."""
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    part = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `([\w.]+)[^`]*` \| (.+) \|$", part, re.MULTILINE)
    assert all(words.strip() for _, words in rows), "each name has its line"
    return [name for name, _ in rows]


def defined_in(module_name: str) -> set[str]:
    module = import_module(module_name)
    own = {n for n, value in vars(module).items() if getattr(value, "__module__", None) == module_name}
    return {name for name in own if not name.startswith("_")}


def test_the_package() -> None:
    names = names_under("mcilib")
    assert len(names) == len(set(names))
    assert set(names) == set(mcilib.__all__)


def test_testing() -> None:
    for module in ("fakes", "conformance", "plugin", "xvfb"):
        names = names_under(f"mcilib.testing.{module}")
        assert set(names) == defined_in(f"mcilib.testing.{module}"), module


def test_seams() -> None:
    assert set(names_under("mcilib.protocols")) == defined_in("mcilib.protocols")


def test_policy() -> None:
    import mcilib.policy

    assert names_under("mcilib.policy") == mcilib.policy.__all__


def test_reader_and_receiver() -> None:
    import mcilib.reader
    import mcilib.receiver

    assert set(names_under("mcilib.receiver")) == set(mcilib.receiver.__all__)
    public = {n for n, v in vars(mcilib.reader).items() if hasattr(v, "__module__") and not n.startswith("_")}
    assert set(names_under("mcilib.reader")) == public
