"""An X server whose clock is not ours: one on another machine. Here a real one that is told another time by the
C library, which begins far away, runs fast, and turns over at 32 bits while the test runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest
from waiting import until

from mcilib import Move, PointerSource
from mcilib.testing.fakes import ListSink
from mcilib.testing.xvfb import VirtualDisplay

SHIFT_C = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, out);
    if (failed || (id != CLOCK_MONOTONIC && id != CLOCK_MONOTONIC_COARSE)) return failed;
    long long begin = atoll(getenv("SHIFT_BEGIN_NS")), at = atoll(getenv("SHIFT_AT_NS"));
    long long run = out->tv_sec * 1000000000LL + out->tv_nsec - begin;
    long long now = at + run + run / 1000000 * atoll(getenv("SHIFT_PPM"));
    out->tv_sec = now / 1000000000LL;
    out->tv_nsec = now % 1000000000LL;
    return 0;
}
"""


@pytest.fixture(scope="module")
def shift(tmp_path_factory):
    """The shared object that shifts a process's clock."""
    folder = tmp_path_factory.mktemp("shift")
    (folder / "shift.c").write_text(SHIFT_C)
    built = folder / "shift.so"
    command = [
        shutil.which("gcc") or "gcc",
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        built,
        folder / "shift.c",
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return built


@pytest.mark.alone
@pytest.mark.needs("gcc")
@pytest.mark.parametrize("at_s", [3_000_000_000 / 1e3, 2**32 / 1e3 - 1], ids=["far", "turns"])
def test_its_times_are_mapped_to_ours(shift, monkeypatch, backend, at_s):
    """Within 2 ms on the way of an event, 400 ppm fast, and read as late as ever."""
    began_ns = time.monotonic_ns()
    monkeypatch.setenv("SHIFT_BEGIN_NS", str(began_ns))
    monkeypatch.setenv("SHIFT_AT_NS", str(int(at_s * 1e9)))
    monkeypatch.setenv("SHIFT_PPM", "400")
    with monkeypatch.context() as preload:
        preload.setenv("LD_PRELOAD", str(shift))
        display = VirtualDisplay()
        display.start()
    try:
        monkeypatch.setenv("DISPLAY", display.environ()["DISPLAY"])
        sink, source = ListSink(), PointerSource(read_interval_s=0.25)
        source.start(sink)
        assert source.clock == "x11"
        injected = []
        for n in range(200):
            before_ns = time.monotonic_ns()
            display.move(100 + n, 100)
            display.sync()
            injected.append((before_ns, time.monotonic_ns()))
            time.sleep(0.01)
        until(lambda: len(sink.events) == 200)
        source.stop()
    finally:
        display.stop()
    assert os.environ.get("LD_PRELOAD") is None
    moves = [event for event in sink.events if isinstance(event, Move)]
    late = [
        max(before_ns - event.t_ns, event.t_ns - after_ns, 0) / 1e6
        for (before_ns, after_ns), event in zip(injected, moves, strict=True)
    ]
    assert sorted(late)[int(0.98 * len(late))] <= 2, f"at worst {max(late):.1f} ms off"
