"""The catalogue of what participants read: it is what the sources say, and each translation has all of it.

`make words` (this file run as a program) writes it again: the .pot from the sources, each .po with what is new in it
left empty and what is gone left out, each .mo from its .po.
"""

from __future__ import annotations

import ast
import io
import re
import string
from datetime import UTC, datetime
from gettext import GNUTranslations
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parents[2]
LOCALE = ROOT / "mcilib" / "locale"
POT = LOCALE / "mcilib.pot"
LANGUAGES = sorted(path.parents[1].name for path in LOCALE.glob("*/LC_MESSAGES/mcilib.po"))

#: As in `mcilib.language`: `tr("...")`, `tr.many("one", "more", n)`, `marked("...")`.
KEYWORDS = {"tr": None, "marked": None, "many": (1, 2)}
_HEADER = "# What participants read. Written by `make words`; translations are under the licence of mcilib.\n"
_ALWAYS_OTHER = re.compile(
    r'^"(Project-Id-Version|Report-Msgid-Bugs-To|Language-Team|POT-Creation-Date|PO-Revision-Date|Generated-By|Last-Translator): .*\n',
    re.MULTILINE,
)
_LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)  # no other day, so that only words change a file


def extracted() -> Catalog:
    catalog = Catalog(project="mcilib", version="", charset="utf-8", creation_date=_LONG_AGO)
    found = extract_from_dir(
        ROOT / "mcilib",
        [("**.py", "python")],
        keywords=KEYWORDS,
        comment_tags=("Translators:",),
        strip_comment_tags=True,
    )
    for name, _line, message, comments, context in sorted(found, key=lambda one: (one[0], one[1])):
        catalog.add(message, None, [(f"mcilib/{name}", 0)], auto_comments=comments, context=context)
    return catalog


def as_text(catalog: Catalog) -> str:
    catalog.header_comment = _HEADER.strip()
    file = io.BytesIO()
    write_po(file, catalog, width=110, include_lineno=False, ignore_obsolete=True)
    return _ALWAYS_OTHER.sub("", file.getvalue().decode())


def read(language: str) -> Catalog:
    with open(LOCALE / language / "LC_MESSAGES" / "mcilib.po", "rb") as file:
        catalog = read_po(file, locale=language)
    catalog.creation_date = catalog.revision_date = _LONG_AGO
    return catalog


def merged(language: str) -> Catalog:
    catalog = read(language)
    catalog.update(extracted(), no_fuzzy_matching=True, update_creation_date=False)
    return catalog


def compiled(catalog: Catalog) -> bytes:
    file = io.BytesIO()
    write_mo(file, catalog)
    return file.getvalue()


def forms(text: object) -> list[str]:
    """One for each number, or the only one; empty what is not translated."""
    parts = text if isinstance(text, tuple | list) else (text,)
    return [str(part or "") for part in parts]


def texts(message: Message) -> list[str]:
    return forms(message.id) + forms(message.string)


def messages(catalog: Catalog) -> list[Message]:
    return [message for message in catalog if message.id]


def test_the_template_is_what_the_sources_say() -> None:
    assert POT.read_text(encoding="utf-8") == as_text(extracted()), "run `make words`"


def test_no_text_stands_where_it_is_not_found() -> None:
    """Whoever extracts texts may not look into f-strings: Python before 3.12 does not."""
    said = {text for message in messages(extracted()) for text in texts(message)}
    missing = []
    for path in (ROOT / "mcilib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("tr", "tr.many", "marked"):
                told = [one.value for one in node.args if isinstance(one, ast.Constant)]
                missing += [
                    f"{path.name}: {text}" for text in told if isinstance(text, str) and text not in said
                ]
    assert not missing


def test_there_is_something_in_it() -> None:
    said = {text for message in messages(extracted()) for text in texts(message)}
    assert {"Who collects:", "Recording has begun", "you have withdrawn", "{n} batches"} <= said
    assert LANGUAGES == ["de"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_is_whole(language: str) -> None:
    catalog, template = read(language), extracted()
    assert {m.id for m in messages(catalog)} == {m.id for m in messages(template)}, "run `make words`"
    assert not catalog.obsolete
    empty = [message.id for message in messages(catalog) if message.fuzzy or not all(texts(message))]
    assert not empty, f"to be translated: {empty}"
    path = LOCALE / language / "LC_MESSAGES" / "mcilib.po"
    assert path.read_text(encoding="utf-8") == as_text(merged(language)), "run `make words`"


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_commands_and_line_ends_are_those_of_the_original(language: str) -> None:
    for message in messages(read(language)):
        one = forms(message.id)[-1]
        for told in forms(message.string):
            assert fields(told) == fields(one), (one, told)
            assert re.findall("`[^`]*`", told) == re.findall("`[^`]*`", one), (one, told)
            assert told[-1:].isspace() == one[-1:].isspace(), (one, told)
            assert told.replace("\n", "").isprintable(), told


def fields(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_read_at_run_time_is_the_translation(language: str) -> None:
    path = LOCALE / language / "LC_MESSAGES" / "mcilib.mo"
    with open(path, "rb") as file:
        shipped = GNUTranslations(file)
    for message in messages(read(language)):
        said, told = forms(message.id), forms(message.string)
        if len(said) == 2:
            assert {shipped.ngettext(said[0], said[1], number) for number in range(200)} == set(told)
        else:
            assert shipped.gettext(said[0]) == told[0]
    assert path.read_bytes() == compiled(read(language)), "run `make words`"


#: In what participants read, a sentence is short. The two longest are the scopes of a grant.
WORDS_MAX = 32


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_sentences_are_short(language: str) -> None:
    for message in messages(extracted() if language == "en" else read(language)):
        for text in filter(None, texts(message)):
            for sentence in re.split(r"[.:;]\s", text):
                assert len(sentence.split()) <= WORDS_MAX, sentence


if __name__ == "__main__":
    POT.write_text(as_text(extracted()), encoding="utf-8")
    for name in LANGUAGES:
        folder = LOCALE / name / "LC_MESSAGES"
        (folder / "mcilib.po").write_text(as_text(merged(name)), encoding="utf-8")
        (folder / "mcilib.mo").write_bytes(compiled(read(name)))
        missing = sum(not all(texts(message)) for message in messages(read(name)))
        print(f"{name}: {len(messages(read(name)))} texts, {missing} to be translated")
