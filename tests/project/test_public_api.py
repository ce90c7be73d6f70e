"""The public face as text. A change in `api.txt` is a change for users: CONTRIBUTING.md says how to make one.

The text is taken from the source (as written, so that it is the same on every Python); `make api` writes it.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

SNAPSHOT = Path(__file__).with_name("api.txt")
PUBLIC_MODULES = (
    "mcilib",
    "mcilib.protocols",
    "mcilib.policy",
    "mcilib.reader",
    "mcilib.receiver",
    "mcilib.testing.fakes",
    "mcilib.testing.conformance",
    "mcilib.testing.plugin",
    "mcilib.testing.laptop",
    "mcilib.testing.xvfb",
)


def snapshot() -> str:
    lines: list[str] = []
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        lines += [f"# {module_name}", ""]
        for name in sorted(public_names(module)):
            lines += [*describe(module, name), ""]
    return "\n".join(lines).rstrip() + "\n"


def public_names(module: ModuleType) -> list[str]:
    named = getattr(module, "__all__", None)
    if named is not None:
        return [name for name in named if name != "__version__"]
    # Without __all__: what the module itself defines as a class or function.
    own = (n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__)
    return [name for name in own if not name.startswith("_")]


def describe(module: ModuleType, name: str) -> list[str]:
    value = getattr(module, name)
    home = sys.modules.get(getattr(value, "__module__", None) or "", module)
    node = definition(home, getattr(value, "__name__", name)) or definition(home, name)
    if isinstance(value, ModuleType):
        return [f"module {name}"]
    if isinstance(node, ast.ClassDef) and inspect.isclass(value):
        return describe_class(name, value)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [function_line(name, node)]
    if node is not None:
        return [ast.unparse(node)]
    return [f"{name}: {type(value).__name__}"]


def definition(module: ModuleType, name: str) -> ast.stmt | None:
    """The statement at a module's top level that defines a name."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return node
        if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
            return node
        if type(node).__name__ == "TypeAlias" and ast.unparse(node).startswith(f"type {name} "):
            return node
    return None


def describe_class(name: str, cls: type[Any]) -> list[str]:
    """The class line, then its members and those it inherits from private classes of the package."""
    members: dict[str, str] = {}
    head = ""
    for base in cls.__mro__:
        private = base.__name__.startswith("_")
        if base is not cls and not (base.__module__.startswith("mcilib") and private):
            continue
        node = definition(sys.modules[base.__module__], base.__name__)
        assert isinstance(node, ast.ClassDef), f"{base} is not defined at its module's top level"
        if base is cls:
            arguments = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
            decorators = "".join(f"@{ast.unparse(d)} " for d in node.decorator_list)
            head = f"{decorators}class {name}" + (f"({arguments})" if arguments else "")
        for key, line in class_members(node):
            members.setdefault(key, line)
    return [head, *(f"    {line}" for line in members.values())]


def class_members(node: ast.ClassDef) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = " ".join(f"@{ast.unparse(d)}" for d in item.decorator_list)
            if is_public(item.name) and "overload" not in marks:
                found.append((item.name, f"{marks} {function_line(item.name, item)}".strip()))
        elif isinstance(item, ast.AnnAssign | ast.Assign):
            target = ast.unparse(item.targets[0] if isinstance(item, ast.Assign) else item.target)
            if is_public(target):
                found.append((target, ast.unparse(item)))
    return found


def is_public(name: str) -> bool:
    return not name.startswith("_") or name in (
        "__init__",
        "__enter__",
        "__exit__",
        "__iter__",
        "__len__",
        "__call__",
    )


def function_line(name: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{kind} {name}({ast.unparse(node.args)}){returns}"


def test_the_public_api_is_the_one_written_down() -> None:
    expected = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    difference = list(
        difflib.unified_diff(expected, snapshot().splitlines(), "api.txt", "the code", lineterm="")
    )
    assert not difference, "\n".join(
        [
            "The public API has changed. If that is meant: deprecate what goes away (CONTRIBUTING.md),",
            "name it in CHANGELOG.md, run `make api`, and commit the new api.txt.",
            *difference,
        ]
    )


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
    print(f"written: {SNAPSHOT.name}")
