"""Where the keys of a TOML document stand: for any document that is one."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mcilib.config.toml_lines import toml_lines

bare_keys = st.text("abcdefXYZ0189_-", min_size=1, max_size=6)
keys = st.one_of(
    bare_keys,
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=6).map(json.dumps),
    st.text('abc.[]{}=#" ', max_size=6).map(lambda t: f"'{t}'"),
)
scalars = st.one_of(
    st.integers(-99, 99).map(str),
    st.sampled_from(
        ["true", "1.5e3", "1979-05-27 07:32:00", "'[x] # = '", '"a\\"b]}"', "'''\n[a]\nb = 1\n'''"]
    ),
    st.sampled_from(['"""\n\\"""x = 1\n[z]""""', "''''''", '""""""', "'''a''''", '"\\\\"']),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: "[ # ]\n" + ",\n".join(v) + " ]"),
        st.lists(st.tuples(keys, inner), max_size=3).map(
            lambda p: "{" + ", ".join(f"{k} = {v}" for k, v in p) + "}"
        ),
    ),
    max_leaves=5,
)
statements = st.one_of(
    st.tuples(st.lists(keys, min_size=1, max_size=2), values).map(lambda t: f"{' . '.join(t[0])} = {t[1]}"),
    st.lists(keys, min_size=1, max_size=2).map(lambda k: f"[ {'.'.join(k)} ]  # ] = x"),
    st.lists(keys, min_size=1, max_size=1).map(lambda k: f"[[{'.'.join(k)}]]"),
    st.sampled_from(["", "  # [c] x = 1", "\t"]),
)


def paths_of(value: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found = {path} if path else set()
    for key, inner in value.items() if isinstance(value, dict) else ():
        found |= paths_of(inner, (*path, key))
    for item in value if isinstance(value, list) else ():
        found |= paths_of(item, path)
    return found


@given(st.lists(statements, max_size=8))
def test_whatever_the_document_every_key_is_found_where_it_stands(parts: list[str]) -> None:
    good: list[str] = []
    for part in parts:  # keep what still makes a document
        try:
            tomllib.loads("\n".join([*good, part]))
        except tomllib.TOMLDecodeError:
            continue
        good.append(part)
    text = "\n".join(good)
    lines = toml_lines(text)
    assert set(lines) == paths_of(tomllib.loads(text))
    # The document up to the line before a key's does not have it; up to the end of its statement it does.
    starts = [1 + sum(p.count("\n") + 1 for p in good[:n]) for n in range(len(good))]
    for n, (start, part) in enumerate(zip(starts, good, strict=True)):
        new = paths_of(tomllib.loads("\n".join(good[: n + 1]))) - paths_of(tomllib.loads("\n".join(good[:n])))
        for path in new:
            assert start <= lines[path] <= start + part.count("\n")
