"""What capture costs in power saver, beside a bare pynput listener, and how much of the motion it keeps.

Not run by itself: see adaptation.py.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import agent_cost
import agents_beside
import capture_cost
import working_day
from laptop_day import moving, unaccounted
from rig import grant, receiver, remark, settle, steady_display

from mcilib.testing.laptop import EmulatedLaptop
from mcilib.testing.xvfb import VirtualDisplay

SAVER = "in power saver"
RATES_HZ = (125, 1000)
AIMS = {"125 Hz": 0.10, "1000 Hz": 0.06}
"""Times the bare listener's CPU per event, at most."""
KEPT_S = 1.0
"""At least: of a shorter path most are ends, which are all kept."""


def run(folder: Path, rounds: int, seconds: float, seed: int) -> dict[str, Any]:
    folder.mkdir(parents=True)
    grant(folder / "state")

    def works(seconds: float) -> dict[str, working_day.Day]:
        return {
            f"{rate_hz} Hz{'' if presses else ', moves alone'}": moving(
                rate_hz, seconds, seed, presses=presses
            )
            for rate_hz in RATES_HZ
            for presses in (True, False)
        }

    with (
        EmulatedLaptop(on_mains=False) as laptop,
        steady_display(working_day.WIDTH_PX, working_day.HEIGHT_PX) as display,
        receiver(folder / "store") as endpoint,
    ):
        laptop.saver(True)
        place = capture_cost.Place(display, folder, endpoint, laptop.environment())
        loads: dict[str, capture_cost.Play] = {
            name: partial(play, work=work) for name, work in works(seconds).items()
        }
        result = capture_cost.against_bare(SAVER, place, loads, rounds)
        remark("adaptation, saver: what is kept ...")
        result["kept"] = {
            name: kept(place, folder / f"kept {number}", work)
            for number, (name, work) in enumerate(works(max(seconds, KEPT_S)).items())
        }
    wrong = [words for one in result["kept"].values() for words in one["wrong"]]
    return {**result, "wrong": wrong}


def play(display: VirtualDisplay, work: working_day.Day) -> Counter[str]:
    working_day.replay(work, [display], lambda _: None)
    return work.counts()


def kept(place: capture_cost.Place, folder: Path, work: working_day.Day) -> dict[str, Any]:
    """One load into an agent of its own, whose batches all stay on the device."""
    batches = folder / "batches"
    batches.mkdir(parents=True)
    grant(batches / "state")
    place.display.move(*working_day.START)
    place.display.sync()
    flags = ["--sources", ",".join(capture_cost.SOURCES)]
    with agent_cost.running(
        "mcilib", place.display, batches, place.endpoint, *flags, machine=place.machine
    ) as process:
        working_day.replay(work, [place.display], lambda _: None)
        settle(process.pid)
        process.finish()
    injected = work.counts()
    running = agents_beside.Running(agents_beside.Agent(agents_beside.OURS, "saver"), place.display, folder)
    found = agents_beside.stored(running, injected)
    files = sum(file.stat().st_size for file in batches.rglob("*.mcib"))
    levers = found["plans"][-1]["levers"] if found["plans"] else {}
    not_followed = agents_beside.not_followed("saver", levers)
    wrong = unaccounted(found) + ([not_followed] if not_followed else [])
    return {
        "kept_ratio": found["stored"].get("move", 0) / injected["move"],
        "bytes_per_event": files / injected.total(),
        "wrong": wrong,
    }
