"""The kernel's side of an emulated machine: a process that owns a umockdev test bed and does as it is told.

Run as a script under `LD_PRELOAD=libumockdev-preload.so.0`, with devices (umockdev's text form) in its first
argument and folders in the others. It writes the root of the test bed, then reads one JSON list a line and answers
each with a line: `["set", PATH, NAME, VALUE]`, `["tell", PATH, ACTION]` (an uevent), `["own", PID]`. When its input
ends it kills what it owns and removes the test bed and the folders: nothing outlives the process that started it.
Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
from contextlib import suppress


def main() -> None:
    bed = ctypes.CDLL("libumockdev.so.0")
    text, pointer = ctypes.c_char_p, ctypes.c_void_p
    bed.umockdev_testbed_new.restype = pointer
    bed.umockdev_testbed_get_root_dir.argtypes, bed.umockdev_testbed_get_root_dir.restype = [pointer], text
    bed.umockdev_testbed_add_from_string.argtypes = [pointer, text, pointer]
    bed.umockdev_testbed_set_attribute.argtypes = [pointer, text, text, text]
    bed.umockdev_testbed_uevent.argtypes = [pointer, text, text]
    add = bed.umockdev_testbed_add_from_string
    functions = {
        "set": bed.umockdev_testbed_set_attribute,
        "tell": bed.umockdev_testbed_uevent,
    }
    devices, *folders = sys.argv[1:]
    testbed = bed.umockdev_testbed_new()
    root = bed.umockdev_testbed_get_root_dir(testbed).decode()
    owned: list[int] = []
    try:
        if devices:
            add(testbed, devices.encode(), None) or sys.exit("umockdev cannot read these devices")
        _say(root)
        for line in sys.stdin:
            order, *arguments = json.loads(line)
            if order == "own":  # held by a descriptor: its number may be another's by then
                owned.append(os.pidfd_open(*arguments))
            else:
                path, *rest = (argument.encode() for argument in arguments)
                functions[order](testbed, b"/sys" + path, *rest)
            _say("done")
    finally:
        for process in owned:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
        for folder in (root, *folders):
            shutil.rmtree(folder, ignore_errors=True)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for whoever started it, who closes the input
    main()
