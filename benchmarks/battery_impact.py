"""What an agent takes from a battery while somebody works: CPU, wake-ups, disk and network, by the machine's state.

Twenty active minutes of a person (bursts of typing, pointing at 125 Hz with rests, clicks, scrolling, drags, short
pauses) are replayed in real time, through XTEST, into an X server (Xvfb) for each of these agents, side by side:

  nothing          no agent: what the X server itself takes
  bare             pynput's two listeners with empty callbacks
  naive            pynput, one JSON object per event, a POST every 5 s
  fair             pynput, JSON lines with gzip, a POST a minute
  mcilib mains     `mcilib run` (pointer, keyboard, displays, windows) and `mcilib receive`, an upload every 10 minutes
  mcilib battery   the same on battery
  mcilib saver     the same on battery with the power saver on

The state is emulated below the library (files of /sys, upowerd and other services on a bus of their own). Everything is
read from outside, in /proc and on the wire: CPU and wake-ups of all threads, and the CPU of the end, when all that is
held is written or sent. Fsyncs are those of a second agent in the same state, under strace. Energy is an estimate, from
one set of coefficients, in which CPU and network of all agents count the same.

Ends with 1 when something injected is not stored (moves that were thinned count as stored: the coverage of the
batches tells how many), or when a state was not followed; never because of a cost. The aims, printed with what was
found, are on battery 1/8 of the bare listener's CPU, and 1/20 and 1/3 of the naive and the fair agent's bytes, what
waits included.

Needs Linux, Xvfb, umockdev, upower, python3-dbusmock and dbus-daemon; strace for the fsyncs. Takes as long as
`--minutes` says, and half a minute more. CPU seconds count, not time: other work on the machine makes them larger for
all, and is warned of.
"""

from __future__ import annotations

import sys

from agents_beside import BARE, FAIR, NAIVE, NOTHING
from impact import BATTERY_AIMS, main

if __name__ == "__main__":
    sys.exit(
        main(
            __doc__,
            (NOTHING, BARE, NAIVE, FAIR),
            ("mains", "battery", "saver"),
            BATTERY_AIMS,
            "What agents take from a battery",
        )
    )
