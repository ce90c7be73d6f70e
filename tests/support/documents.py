"""The project's documents: their code blocks, headings and links, as a reader of Markdown sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^( {0,3})(`{3,}|~{3,})\s*([\w+-]*)[^`]*$")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^\s)>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_CODE_SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")


@dataclass(frozen=True)
class Block:
    """One fenced block. `line` is that of its first line of text, from 1."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Document:
    """One Markdown file, by its path from the root of the tree."""

    name: str
    blocks: tuple[Block, ...]
    prose: tuple[tuple[int, str], ...]
    """(line number, text) of all that stands in no block."""

    @property
    def folder(self) -> Path:
        return (ROOT / self.name).parent

    def links(self) -> Iterator[tuple[int, str]]:
        for number, text in self.prose:
            for match in _LINK.finditer(_CODE_SPAN.sub("``", text)):
                yield number, match[1]

    def code_spans(self) -> Iterator[tuple[int, str]]:
        for number, text in self.prose:
            for match in _CODE_SPAN.finditer(text):
                yield number, match[2].strip()

    def anchors(self) -> set[str]:
        """The fragments that GitHub makes of headings."""
        found: set[str] = set()
        for _, text in self.prose:
            if match := _HEADING.match(text):
                words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[2]).replace("`", "")
                slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
                candidates = [slug, *(f"{slug}-{n}" for n in range(1, 20))]
                found.add(next(c for c in candidates if c not in found))
        return found


def documents() -> list[Document]:
    """Every Markdown file that a reader of the project comes across."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
    paths += ROOT.glob("requirements/*.md")
    return [read(path) for path in sorted(paths)]


def read(path: Path) -> Document:
    name = path.relative_to(ROOT).as_posix()
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    fence, language, begun, lines, indent = "", "", 0, [""], 0
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = _FENCE.match(text)
        if fence:
            if match and match[2].startswith(fence) and not match[3]:
                blocks.append(Block(name, begun, language, "\n".join(lines) + "\n"))
                fence = ""
            else:
                lines.append(text[indent:] if not text[:indent].strip() else text)
        elif match:
            fence, language, begun, lines, indent = match[2], match[3], number + 1, [], len(match[1])
        else:
            prose.append((number, text))
    assert not fence, f"{name}:{begun}: the block does not end"
    return Document(name, tuple(blocks), tuple(prose))
