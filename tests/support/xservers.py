"""X servers whose displays can be turned, resized and plugged in: Xephyr, and Xorg without hardware."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import randrange

from mcilib.testing.xvfb import VirtualDisplay

DUMMY_DRIVER = Path("/usr/lib/xorg/modules/drivers/dummy_drv.so")

_XORG = "/usr/lib/xorg/Xorg"
"""Not `Xorg`, which Debian makes a wrapper that asks for a console."""

_CONFIG = """
Section "ServerFlags"
    Option "AutoAddDevices" "false"
EndSection
Section "Device"
    Identifier "none"
    Driver "dummy"
    VideoRam 65536
EndSection
"""

MODE = ["m1", "63.5", "1024", "1072", "1176", "1328", "768", "771", "775", "798"]


def xrandr(*words: str) -> None:
    """On the display that `DISPLAY` names."""
    subprocess.run(["xrandr", *words], check=True, capture_output=True, timeout=20)


@contextmanager
def xephyr(inside: VirtualDisplay) -> Iterator[str]:
    """The name of a display in a window of another."""
    with _server(["Xephyr", "-noreset", "-screen", "800x600", "-resizeable"], inside.environ()) as name:
        yield name


@contextmanager
def xorg(folder: Path) -> Iterator[str]:
    """The name of a display with several outputs, the first of them 1024x768."""
    config = folder / "xorg.conf"
    config.write_text(_CONFIG)
    executable = _XORG if os.path.exists(_XORG) else shutil.which("Xorg") or "Xorg"
    options = ["-config", str(config), "-noreset", "-novtswitch", "-sharevts", "-nolisten", "tcp"]
    with _server([executable, *options, "-logfile", str(folder / "xorg.log")], dict(os.environ)) as name:
        yield name


@contextmanager
def xvfb(*options: str) -> Iterator[str]:
    """The name of one that is started otherwise than `VirtualDisplay` does."""
    with _server(["Xvfb", "-noreset", "-nolisten", "tcp", *options], dict(os.environ)) as name:
        yield name


@contextmanager
def _server(command: list[str], environment: dict[str, str]) -> Iterator[str]:
    number = randrange(30_000, 32_000)
    readable, writable = os.pipe()
    process = subprocess.Popen(
        [command[0], f":{number}", "-displayfd", str(writable), *command[1:]],
        env=environment, pass_fds=[writable], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    os.close(writable)
    try:
        with os.fdopen(readable, "rb", buffering=0) as ready:
            said = b""  # all of it: closed before, the pipe would kill the server
            while not said.endswith(b"\n"):
                piece = ready.read(64) if select.select([ready], [], [], 15)[0] else b""
                assert piece, f"{command[0]} does not serve"
                said += piece
        yield f":{number}"
    finally:
        process.terminate()
        process.wait(10)
