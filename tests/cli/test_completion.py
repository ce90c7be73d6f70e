"""`mcilib config` and `mcilib completion`: what they print works."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Run, refused


def test_config_prints_the_example_and_the_schema(mcilib: Run) -> None:
    assert mcilib("config").stdout == mcilib("config", "--example").stdout
    assert "[batch]\n" in mcilib("config", "--example").stdout
    assert json.loads(mcilib("config", "--schema").stdout)["properties"]["batch"]["properties"]["max_age_s"]
    refused(mcilib("config", "--example", "--schema"), 2, "not allowed with")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_scripts_are_valid(
    shell: str, mcilib: Run, here: Path, needs: Callable[..., None]
) -> None:
    done = mcilib("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    (here / "script").write_text(done.stdout)
    needs(shell)
    subprocess.run([shell, "-n", "script"], check=True, timeout=20)


def complete(script: str, words: list[str]) -> list[str]:
    """What a real bash offers for the last word."""
    ask = f"""
source /dev/stdin
COMP_WORDS=({" ".join(shlex.quote(w) for w in words)})
COMP_CWORD={len(words) - 1}
COMP_LINE="${{COMP_WORDS[*]}}"
COMP_POINT=${{#COMP_LINE}}
spec=$(complete -p mcilib); function=${{spec##*-F }}; function=${{function%% *}}
$function mcilib {shlex.quote(words[-1])} {shlex.quote(words[-2])}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", ask], input=script, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split())


@pytest.mark.needs("bash")
def test_completion_in_a_real_bash(mcilib: Run, here: Path) -> None:
    (here / "afolder").mkdir()
    script = mcilib("completion", "bash").stdout
    assert complete(script, ["mcilib", "exp"]) == ["export"]
    assert complete(script, ["mcilib", "run", "--dr"]) == ["--drain"]
    assert complete(script, ["mcilib", "exempt", "--h"]) == ["--help", "--hours"]
    assert complete(script, ["mcilib", "exempt", "--reason", "med"]) == ["medical"]
    assert complete(script, ["mcilib", "exempt", "--scope", "ti"]) == ["titles"]
    assert complete(script, ["mcilib", "export", "--format", ""]) == ["jsonl", "parquet", "trajectory"]
    assert complete(script, ["mcilib", "run", "--key-detail", "t"]) == ["timing"]
    assert complete(script, ["mcilib", "status", "--state", "afo"]) == ["afolder"]
    assert complete(script, ["mcilib", "exemptions", "afo"]) == ["afolder"]
    assert complete(script, ["mcilib", "exemptions", "afolder", "a"]) == ["approve"]
    assert complete(script, ["mcilib", "exemptions", "afolder", "list", "--only", "p"]) == ["pending"]
    (here / "afile.key").touch()
    assert complete(script, ["mcilib", "run", "--rec"]) == ["--recipients"]
    for words in (
        ["run", "--recipients"],
        ["export", "--identity"],
        ["keygen", "-o"],
        ["inspect", "--identity"],
    ):
        assert "afile.key" in complete(script, ["mcilib", *words, "afi"])
