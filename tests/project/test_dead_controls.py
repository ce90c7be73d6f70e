"""Every option and every control has tests that notice when it does nothing. `make dead-controls` tries them all; here
only that none is left out, and that a mutant is what it says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEAD = Path(__file__).parent / "dead"


@pytest.fixture(scope="module")
def table() -> dict[str, list[str]]:
    """Mutants, and what is assigned; read in a process of its own, as their modules have everyday names."""
    code = "import json, assigned, mutation; print(json.dumps([mutation.mutants(), assigned.ASSIGNED]))"
    done = run(code)
    import json

    names, assigned = json.loads(done)
    assert len(set(names)) == len(names)
    missing, strange = set(names) - set(assigned), set(assigned) - set(names)
    assert not missing, f"name the tests that notice: {sorted(missing)}"
    assert not strange, f"there is no such option or control any more: {sorted(strange)}"
    return {str(name): list(tests) for name, tests in assigned.items()}


def run(code: str, mutant: str = "") -> str:
    environ = {**os.environ, "PYTHONPATH": str(DEAD), "MCILIB_DEAD": mutant, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environ, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@cache
def functions(path: Path) -> frozenset[str]:
    return frozenset(
        node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
    )


def test_each_has_a_test_that_is_there(table: dict[str, list[str]]) -> None:
    wrong = [name for name, tests in table.items() if not tests]
    for name, tests in table.items():
        for test in tests:
            path, _, function = test.partition("::")
            if not (ROOT / path).is_file() or function.partition("[")[0] not in functions(ROOT / path):
                wrong.append(f"{name}: {test}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("mutant", "code", "said"),
    [
        ("upload.hold_s", "from mcilib.config import Settings as S; print(S().override({'upload.hold_s': 5.0}).upload.hold_s)", "0.0"),
        ("", "from mcilib.config import Settings as S; print(S().override({'upload.hold_s': 5.0}).upload.hold_s)", "5.0"),
        ("WindowSource(titles)", "from mcilib import WindowSource as W; print(W(titles=True).titles)", "False"),
        ("", "from mcilib import WindowSource as W; print(W(titles=True).titles)", "True"),
        ("hold@api", "from mcilib import Collector as C; print(C.hold(None, 5))", "None"),
        ("hold@running", "from mcilib.consent.dispatch import carry_out as c; print(c(type('Collector', (), {})(), 'hold', {'hold_s': 5}))", "{'hold_s': 5}"),
        ("hold@folder", "from mcilib.consent.dispatch import carry_out as c; print(c(None, 'hold', {'hold_s': 5}))", "{'hold_s': 5}"),
    ],
)  # fmt: skip
def test_a_mutant_is_what_it_says(mutant: str, code: str, said: str) -> None:
    assert run(code, mutant) == said


def test_a_mutant_that_no_test_misses_is_said_to_live() -> None:
    code = (
        "import trial; trial.ASSIGNED = {'upload.hold_s': ('tests/project/test_import.py', )}; "
        "print(trial.attempt('upload.hold_s').fate)"
    )
    assert run(code) == "lives"
