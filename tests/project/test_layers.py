"""Imports only point down, and each foreign library lives in one place. Reads the code, imports nothing."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mcilib"

# From the bottom to the top. A name covers the module and everything below it; the longest name wins.
LAYERS: dict[str, tuple[str, ...]] = {
    "words": ("errors", "digest", "clock", "limits", "files", "language"),
    "contracts": ("events", "policy.state", "protocols", "statistics"),
    "pure": ("consent", "privacy", "policy", "sampler", "format", "delivery", "delivery.retry"),
    "effects": (
        "indicator",
        "sources",
        "resources",
        "delivery.spool",
        "delivery.http",
        "delivery.folder",
        "delivery.objectstore",
    ),
    "workers": (
        "batching",
        "guarding",
        "recorder",
        "capture",
        "governor",
        "erasure",
        "participant",
        "channel",
        "delivery.uploader",
        "controls",
    ),
    "collector": ("collector",),
    "edges": ("reader", "receiver", "cli", "config", "testing", "__main__"),
}
WINGS = ("sources", "resources", "delivery", "format")

# Modules (or packages, with a dot at the end) in which a foreign library may be imported.
HOMES: dict[str, tuple[str, ...]] = {
    "pynput": ("sources._pynput", "sources._xkeys"),  # its listeners; its table of keysyms
    "Xlib": ("sources._x11", "sources._xkeys", "sources.display", "testing."),
    "jeepney": ("resources.", "testing."),
    "psutil": ("resources.",),
    "Quartz": ("sources._darwin",),  # macOS: times of events, taps
    "Foundation": ("resources._macos",),  # macOS: low power mode, heat
    "Network": ("resources._macos",),  # macOS: what the network costs
    "libdispatch": ("resources._macos",),
    "HIServices": ("cli.",),  # macOS: may this program see input?
    "tenacity": ("delivery.uploader",),
    "zstandard": ("format.",),
    "msgpack": ("format.",),
    "pyrage": ("format.seal",),
    "urllib3": ("delivery._connection", "delivery.http"),
    "truststore": ("delivery._connection",),
    "obstore": ("delivery.objectstore", "receiver."),
    "starlette": ("receiver.",),
    "uvicorn": ("receiver.",),
    "pyarrow": ("reader.",),
    "shtab": ("cli.",),
    "pytest": ("testing.",),
}


@dataclass(frozen=True)
class Import:
    """`module` (without the leading "mcilib.") imports `target` (a full dotted name)."""

    module: str
    target: str
    line: int
    at_import: bool  # outside functions: happens as soon as the module is imported

    def __str__(self) -> str:
        return f"mcilib/{self.module.replace('.', '/')} line {self.line} imports {self.target}"


class _Imports(ast.NodeVisitor):
    """Collects imports, those inside functions too; `if TYPE_CHECKING:` does not count."""

    def __init__(self, module: str, is_package: bool) -> None:
        self.module = module
        self.package = module if is_package else module.rpartition(".")[0]
        self.depth = 0
        self.found: list[Import] = []

    def add(self, target: str, line: int) -> None:
        self.found.append(Import(self.module, target, line, self.depth == 0))

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def _function(self, node: ast.AST) -> None:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = ["mcilib", *filter(None, self.package.split("."))]
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        for alias in node.names:
            # The name may be a submodule or a thing in the module; both readings give the same layer,
            # except at the root, where only the name tells.
            self.add(
                f"{base}.{alias.name}" if base == "mcilib" or is_module(base, alias.name) else base,
                node.lineno,
            )

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func).rpartition(".")[2]
        if name in ("import_module", "__import__") and node.args:
            target = node.args[0]
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                self.add(target.value, node.lineno)
        self.generic_visit(node)


def is_module(base: str, name: str) -> bool:
    path = ROOT.joinpath(*base.split("."), name)
    return base.startswith("mcilib") and (path.with_suffix(".py").exists() or (path / "__init__.py").exists())


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def all_imports() -> list[Import]:
    found: list[Import] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        visitor = _Imports(module_name(path), path.name == "__init__.py")
        visitor.visit(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        found += visitor.found
    return found


def covering_name(module: str) -> str | None:
    """The longest name in LAYERS that covers a module."""
    names = [n for names in LAYERS.values() for n in names if module == n or module.startswith(n + ".")]
    return max(names, key=len, default=None)


def layer(module: str) -> int | None:
    name = covering_name(module)
    return next((rank for rank, names in enumerate(LAYERS.values()) if name in names), None)


def wing(module: str) -> str | None:
    first = module.partition(".")[0]
    return first if first in WINGS else None


def trespass(item: Import) -> str | None:
    """Why an import is not allowed, or None."""
    if item.target.partition(".")[0] != "mcilib":
        return None
    target = item.target.removeprefix("mcilib").removeprefix(".")
    if item.module == "":
        return "the root imports nothing of its own: every public name is looked up when first used"
    mine = layer(item.module)
    if target in ("", "__version__"):
        return None
    theirs = layer(target)
    top = len(LAYERS) - 1
    if theirs is None:
        # `from mcilib import Collector`: a name of the public face, which may lead anywhere.
        return None if mine == top else "only edges use the public face; import from the module itself"
    if mine is None:
        return None  # test_every_module_has_a_layer says it better
    layers = list(LAYERS)
    if theirs > mine:
        return f"{layers[mine]} may not import {layers[theirs]}"
    wings = {wing(item.module), wing(target)}
    if theirs == mine and len(wings) == 2 and None not in wings:
        return "wings do not import each other"
    return None


def at_home(item: Import, homes: tuple[str, ...]) -> bool:
    return any(
        item.module == home.rstrip(".") or (home.endswith(".") and item.module.startswith(home))
        for home in homes
    )


def test_there_is_something_to_read() -> None:
    assert len(all_imports()) > 50
    assert {"pynput", "urllib3", "msgpack", "zstandard"} <= {
        i.target.partition(".")[0] for i in all_imports()
    }


def test_every_module_has_a_layer() -> None:
    modules = {module_name(path) for path in PACKAGE.rglob("*.py")} - {""}
    homeless = sorted(m for m in modules if covering_name(m) is None)
    assert not homeless, f"give them a place in LAYERS and in the design: {homeless}"


def test_imports_only_point_down() -> None:
    trouble = [f"{item}: {why}" for item in all_imports() if (why := trespass(item))]
    assert not trouble, "\n".join(trouble)


def test_each_foreign_library_lives_in_one_place() -> None:
    trouble = []
    for item in all_imports():
        library = item.target.partition(".")[0]
        if library == "mcilib" or library in sys.stdlib_module_names:
            continue
        homes = HOMES.get(library)
        if homes is None:
            trouble.append(f"{item}: not a library that the project has chosen")
        elif not at_home(item, homes):
            trouble.append(f"{item}: it lives in {' and '.join(homes)}")
    assert not trouble, "\n".join(trouble)


@pytest.mark.parametrize(
    ("module", "target", "allowed"),
    [
        ("limits", "mcilib.errors", True),
        ("limits", "mcilib.events", False),
        ("events", "mcilib.limits", True),
        ("format.batch", "mcilib.events", True),
        ("format.batch", "mcilib.delivery.retry", False),
        ("delivery.retry", "mcilib.delivery.spool", False),
        ("delivery.spool", "mcilib.delivery.retry", True),
        ("delivery.spool", "mcilib.format.batch", True),
        ("delivery.spool", "mcilib.sources.pointer", False),
        ("sources.pointer", "mcilib.delivery.http", False),
        ("sources.pointer", "mcilib.consent", True),
        ("recorder", "mcilib.sources.pointer", True),
        ("recorder", "mcilib.collector", False),
        ("collector", "mcilib.delivery.uploader", True),
        ("collector", "mcilib.reader", False),
        ("collector", "mcilib.__version__", True),
        ("collector", "mcilib.Collector", False),
        ("cli.run", "mcilib.Collector", True),
        ("cli.run", "mcilib.receiver.app", True),
        ("", "mcilib.errors", False),
    ],
)
def test_the_rule_itself(module: str, target: str, allowed: bool) -> None:
    assert (trespass(Import(module, target, 1, True)) is None) is allowed


def test_imports_inside_functions_count_and_type_checking_does_not() -> None:
    visitor = _Imports("events", False)
    visitor.visit(
        ast.parse(
            "if TYPE_CHECKING:\n    import a\nelse:\n    import b\n"
            "def f():\n    from . import collector\n    from .sources import pointer\n"
            "    import_module('mcilib.reader')\n"
        )
    )
    assert {i.target for i in visitor.found} >= {"b", "mcilib.collector", "mcilib.reader"}
    assert "a" not in {i.target for i in visitor.found}
    assert all(i.at_import is (i.target == "b") for i in visitor.found)
