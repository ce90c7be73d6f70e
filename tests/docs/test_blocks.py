"""Every code block of every document is run, in its document's order, or stands in `NOT_RUN` with a reason.

One document is one session: an empty folder, a virtual display on which somebody works, a port of its own.
What is changed on the way from the page to the machine is in `as_run`, and nowhere else.
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import commands
import documents
import pytest
import trustme
from documents import ROOT, Block, Document
from ports import free_port
from typed_input import somebody_works

from mcilib.testing.xvfb import VirtualDisplay

LAST_S = 30.0
"""No command of a document takes longer than this here."""

RECORDING_S = 1.0
"""How long programs that record until they are told to end may do so."""

#: Commands that are not run here, by what they begin with, and why.
NOT_RUN = {
    r"python3(\.\d+)? -m venv ": "makes an environment; the tests run in one already",
    r"\. \.venv/bin/activate": "as above",
    r"(\S+/)?pip install ": "installs packages",
    r"(sudo )?(systemctl|useradd|install) ": "changes the machine's services",
    r"curl .*example\.org": "its receiver is not on this machine (the reference one is tested in tests/receiver)",
    r"(\S+/)?python3? benchmarks/": "takes minutes: `make bench`",
    r"(mcilib|aws) .*s3://": "its object store is not on this machine (one is in tests/cli/test_endpoints.py)",
    r"mcilib demo": "is `make demo`, which has tests of its own",
}

#: Parts of the system that a document uses.
TOOLS = {"docs/how-to/seal.md": ("age", "cmp")}

#: Languages of blocks that no machine runs.
NOT_CODE = {"text", "diff"}


def test_every_block_says_what_it_is() -> None:
    known = NOT_CODE | {"python", "console", "sh", "toml", "ini", "json"}
    strange = [
        f"{b}: {b.language!r}" for d in documents.documents() for b in d.blocks if b.language not in known
    ]
    assert not strange, f"say what it is (`text` for what is no code): {strange}"


def test_indented_code_hides_nothing() -> None:
    """Code that is only indented is run by nobody: pages use fences, elsewhere it may name `make` targets."""
    wrong = []
    for document in documents.documents():
        before = ""
        for line, text in document.prose:
            indented = re.match(r" {4,}(?![-*] |\d+\. )\S", text) and not before.strip()
            if indented and (document.name == "README.md" or document.name.startswith("docs/")):
                wrong.append(f"{document.name}:{line}: put it into a fence")
            match = re.match(r" {4,}make ([a-z-]+)", text)
            if match and match[1] not in make_targets():
                wrong.append(f"{document.name}:{line}: no target {match[1]!r}")
            before = text
    assert not wrong, "\n".join(wrong)


def test_no_reason_is_left_over() -> None:
    """Each reason for not running something is still needed."""
    lines = [
        command
        for document in documents.documents()
        for block in document.blocks
        if block.language in ("console", "sh")
        for command, _ in commands_of(block)
    ]
    unused = [pattern for pattern in NOT_RUN if not any(re.match(pattern, line) for line in lines)]
    allowed = {
        p for p in unused if "benchmarks" in p or "demo" in p
    }  # docs/performance.md may name them or not
    assert set(unused) == allowed, unused


def make_targets() -> list[str]:
    return re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def commands_of(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a block, each with the output that the block shows for it.

    `$ ` begins a command, a backslash at the end of a line continues it, every other line is output. A block
    without any `$ ` is all commands.
    """
    text = re.sub(r"\\\n\s*", "", block.text)
    lines = text.splitlines()
    if not any(line.startswith("$ ") for line in lines):
        yield from ((line, "") for line in lines if line.strip() and not line.startswith("#"))
        return
    assert lines[0].startswith("$ "), f"{block}: output before the first command"
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command.split("  # ")[0].strip(), output.strip("\n")


def as_run(command: str, port: int) -> str:
    """A command as it is run here: on a port of its own, and recording for seconds rather than minutes."""
    command = re.sub(r"\b8750\b", str(port), command)
    if re.match(r"mcilib receive (?!.*--port )", command):
        words = command.removesuffix("&").rstrip()
        command = f"{words} --port {port}{' &' if command.endswith('&') else ''}"
    return re.sub(r"--for \d+[smh]\b", "--for 2s", command)


class Session:
    """What one document's reader has on the screen: a folder, the commands that run in the background."""

    def __init__(self, folder: Path, display: VirtualDisplay) -> None:
        self.folder, self.display = folder, display
        self.port = free_port()
        tools = folder.parent / "bin"
        tools.mkdir()
        shim = tools / "mcilib"
        shim.write_text(f'#!/bin/sh\nexec {shlex.join(commands.COMMAND)} "$@"\n')
        shim.chmod(0o755)
        self.environ = {
            **{name: value for name, value in os.environ.items() if name != "MCILIB_STATE"},
            "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder.parent / "home"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "default",
        }
        (folder.parent / "home").mkdir(parents=True, exist_ok=True)
        self.background: list[tuple[str, subprocess.Popen[str]]] = []
        self.working = ExitStack()
        self._give_certificates()

    def _give_certificates(self) -> None:
        """The files that a document takes for granted: a certificate for this machine, and who signed it."""
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(self.folder / "ca.pem")
        for n, blob in enumerate(certificate.cert_chain_pems):
            blob.write_to_path(self.folder / "cert.pem", append=n > 0)
        certificate.private_key_pem.write_to_path(self.folder / "key.pem")

    def run(self, block: Block) -> None:
        """Runs one block, whatever it is. Fails with its place in the document."""
        match block.language:
            case "python":
                self.python(block)
            case "console" | "sh":
                found = list(commands_of(block))
                assert found, f"{block} is empty"
                for command, shown in found:
                    self.command(block, command, shown)
            case "toml":
                check_toml(self, block)
            case "ini":
                check_unit(block)
            case "json":
                json.loads(block.text)

    # --- commands -------------------------------------------------------------------------------------------

    def command(self, block: Block, command: str, shown: str) -> None:
        for pattern, _reason in NOT_RUN.items():
            if re.match(pattern, command):
                return
        if match := re.match(r"make ([a-z-]+)", command):  # running it here would run this test in itself
            assert match[1] in make_targets(), f"{block}: no target {match[1]!r} in the Makefile"
            return
        line = as_run(command, self.port)
        if line.endswith("&"):
            self._in_background(block, line.removesuffix("&").strip())
            return
        said, code = self._to_its_end(line)
        assert "Traceback" not in said, f"{block}: {line}\n{said}"
        assert code == 0, f"{block}: {line} ended with {code}\n{said}"
        if shown:
            assert matches(shown, said), f"{block}: {line}\nsays\n{said}\nnot\n{shown}"

    def _in_background(self, block: Block, line: str) -> None:
        """A receiver, or an agent; on its display somebody works as long as it runs."""
        process = subprocess.Popen(
            ["sh", "-c", f"exec {line}"], cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.background.append((f"{block}: {line}", process))
        assert process.stdout is not None
        ready = "Collecting" if line.startswith("mcilib run") else "Receiving at"
        said = ""
        while ready not in said:
            more = process.stdout.readline()
            assert more, f"{block}: {line}\n{said}"
            said += more
        if line.startswith("mcilib run"):
            self.working.enter_context(somebody_works(self.display))

    def _to_its_end(self, line: str) -> tuple[str, int]:
        """Runs a command with somebody at its terminal, who says yes, works, and presses Ctrl-C in the end."""
        ours, theirs = pty.openpty()
        with ExitStack() as stack:
            stack.callback(os.close, ours)
            process = subprocess.Popen(
                ["sh", "-c", line], cwd=self.folder, env=self.environ, stdin=theirs,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            os.close(theirs)
            if re.match(r"mcilib grant\b", line):
                os.write(ours, b"yes\n")
            if re.match(r"mcilib run\b(?!.*--drain)", line):
                stack.enter_context(somebody_works(self.display))
                if "--for" not in line:
                    return self._until_told(process)
            out, _ = process.communicate(timeout=LAST_S)
        return out.decode(), process.returncode

    def _until_told(self, process: subprocess.Popen[bytes]) -> tuple[str, int]:
        assert process.stdout is not None
        said = b""
        while b"Collecting" not in said:
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                break
            said += piece
        time.sleep(RECORDING_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=LAST_S)
        return (said + out).decode(), process.returncode

    def end(self) -> None:
        """Ctrl-C for what still runs in the background."""
        self.working.close()
        for name, process in self.background:
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=LAST_S)
            assert process.returncode == 0, f"{name} ended with {process.returncode}\n{out}"

    # --- Python ---------------------------------------------------------------------------------------------

    def python(self, block: Block, before: str = "") -> str:
        """Runs a block: as the file that its first line names, or as a script; gives what it prints."""
        match = re.match(r"# ([a-z_]+\.py)\b", block.text)
        path = self.folder / (match[1] if match else f"line_{block.line}.py")
        path.write_text(re.sub(r"\b8750\b", str(self.port), block.text))
        if path.name == "conftest.py":
            return ""
        command = [sys.executable, str(path)]
        if path.name.startswith("test_"):
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "--rootdir=.",
                path.name,
            ]
        elif before:
            command = [
                sys.executable,
                "-c",
                f"{before}\nimport runpy\nrunpy.run_path({str(path)!r}, run_name='__main__')",
            ]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        with ExitStack() as stack:
            stack.callback(process.kill)
            if re.search(r"(Pointer|Keyboard)Source\(", block.text):
                stack.enter_context(somebody_works(self.display))
            said = self._answer(process, block)
            out, err = process.communicate(timeout=LAST_S)
        said += out.decode()
        assert process.returncode == 0, f"{block} ended with {process.returncode}\n{said}\n{err.decode()}"
        for word in ("Traceback", "Warning"):
            assert word not in err.decode(), f"{block}\n{err.decode()}"
        return said

    def _answer(self, process: subprocess.Popen[bytes], block: Block) -> str:
        """Says yes to a grant, presses Enter where a block waits for it, and sends SIGTERM where it says so."""
        assert process.stdin is not None
        assert process.stdout is not None
        keys = process.stdin

        def say_yes() -> None:
            keys.write(b"yes\n")
            keys.flush()

        def press_enter() -> None:
            time.sleep(RECORDING_S)
            keys.write(b"\n")
            keys.flush()

        def terminate() -> None:
            time.sleep(RECORDING_S)
            process.terminate()

        answers: list[tuple[bytes, Callable[[], None]]] = []
        if "Grant.ask(" in block.text:
            answers.append((b"Type yes", say_yes))
        if "input(" in block.text:
            answers.append((b"Enter", press_enter))
        elif "SIGTERM" in block.text:
            answers.append((b"ecording", terminate))
        said = b""
        for prompt, act in answers:
            while prompt not in said:
                piece = os.read(process.stdout.fileno(), 4096)
                if not piece:
                    return said.decode()
                said += piece
            act()
        return said.decode()


def matches(shown: str, said: str) -> bool:
    """Whether `said` is what a page shows, `...` standing for anything."""
    pattern = ".*".join(re.escape(part) for part in re.split(r"\.\.\.", shown))
    return re.search(pattern, said, re.DOTALL) is not None


# --- files ------------------------------------------------------------------------------------------------------


def check_toml(session: Session, block: Block) -> None:
    from mcilib.config import load

    path = session.folder / f"line_{block.line}.toml"
    path.write_text(block.text)
    load(path)


def check_unit(block: Block) -> None:
    """A unit of systemd: its sections, and a command line that mcilib accepts."""
    from mcilib.cli._program import make_parser

    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block.text)
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    words = shlex.split(unit["Service"]["ExecStart"])
    assert Path(words[0]).name == "mcilib"
    make_parser().parse_args(words[1:])


# --- the documents ----------------------------------------------------------------------------------------------

_TK = "tkinter"


def is_tk(block: Block) -> bool:
    return block.language == "python" and _TK in block.text


@pytest.mark.parametrize("document", [d for d in documents.documents() if d.blocks], ids=lambda d: d.name)
def test_blocks(
    document: Document, xserver: VirtualDisplay, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs(*TOOLS.get(document.name, ()))
    folder = tmp_path / "here"
    folder.mkdir()
    session = Session(folder, xserver)
    try:
        for block in document.blocks:
            if not is_tk(block):  # see test_tk_block
                session.run(block)
    finally:
        session.end()


TK_BLOCKS = [b for d in documents.documents() for b in d.blocks if is_tk(b)]

_PRESS = """
import tkinter
mainloop = tkinter.Tk.mainloop
def press(root, *texts):
    for child in root.winfo_children():
        if isinstance(child, tkinter.Button) and child["text"] in texts and child["state"] != "disabled":
            child.invoke()
            return
    root.after(50, press, root, *texts)
def worked(root, n=0):
    root.after(100, press, root, "Record")
    root.after(1500, press, root, "Stop")
    root.after(3000, lambda: root.tk.call(root.protocol("WM_DELETE_WINDOW")))
    mainloop(root)
tkinter.Tk.mainloop = worked
"""


@pytest.mark.skipif(importlib.util.find_spec(_TK) is None, reason="this Python was built without tkinter")
@pytest.mark.parametrize("block", TK_BLOCKS, ids=str)
def test_tk_block(block: Block, xserver: VirtualDisplay, tmp_path: Path) -> None:
    """As above; here a driver presses its buttons and closes its window."""
    from mcilib import Reader

    folder = tmp_path / "here"
    folder.mkdir()
    session = Session(folder, xserver)
    for earlier in next(d for d in documents.documents() if d.name == block.document).blocks:
        if earlier.language == "console":
            session.run(earlier)
    session.python(block, before=_PRESS)
    assert any(event.kind == "move" for event in Reader(folder / "state/spool").events())


# --- README ------------------------------------------------------------------------------------------------------


def test_readme_shows_code_that_runs_in_its_first_lines(xserver: VirtualDisplay, tmp_path: Path) -> None:
    readme = documents.read(ROOT / "README.md")
    block = next(b for b in readme.blocks if b.language == "python")
    assert block.line + len(block.text.splitlines()) <= 16, "the whole block lies in the first 15 lines"
    folder = tmp_path / "here"
    folder.mkdir()
    said = Session(folder, xserver).python(block)
    for event in ("Move(", "Press(", "Release(", "Scroll(", "KeyPress(", "KeyRelease("):
        assert event in said, event
    quickstart = (ROOT / "examples/quickstart.py").read_text(encoding="utf-8")
    assert quickstart.split('"""', 2)[2].strip() == block.text.strip(), (
        "examples/quickstart.py is the README's code"
    )


# --- the runner itself: a page that is wrong must not pass --------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "raise SystemExit(3)\n"),
        ("python", "import warnings\nwarnings.warn('old')\n"),
        ("python", "# test_it.py\ndef test_it():\n    assert False\n"),
        ("console", "$ mcilib status --no-such-flag\n"),
        ("console", "$ mcilib status --state nowhere\nGrant:   given\n"),
        ("console", "$ make no-such-target\n"),
        ("console", "$ false\n"),
    ],
)
def test_a_wrong_block_fails(language: str, text: str, xserver: VirtualDisplay, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    session = Session(folder, xserver)
    block = Block("a page", 1, language, text)
    with pytest.raises(AssertionError, match="a page:1"):
        session.run(block)


def test_what_a_page_shows() -> None:
    assert matches("a ... c\n...e", "a b c\nd\ne")
    assert not matches("a ... c", "a b d")
    assert not matches("1 batch (", "1 batch")


def test_what_is_changed_on_the_way() -> None:
    assert as_run("mcilib receive store &", 1234) == "mcilib receive store --port 1234 &"
    assert as_run("mcilib receive store --port 0", 1234) == "mcilib receive store --port 0"
    assert as_run("mcilib run --endpoint http://127.0.0.1:8750 --for 30s", 1234) == (
        "mcilib run --endpoint http://127.0.0.1:1234 --for 2s"
    )
