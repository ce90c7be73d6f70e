"""What an agent sends while somebody works: requests and bytes by cause, on networks that are free and that are not.

Twenty active minutes of a person (bursts of typing, pointing at 125 Hz with rests, clicks, scrolling, drags, short
pauses) are replayed in real time, through XTEST, into an X server (Xvfb) for each of these agents, side by side:

  naive              pynput, one JSON object per event, a POST every 5 s over a new connection
  fair               pynput, JSON lines with gzip, a POST a minute over one connection
  mcilib unmetered   `mcilib run` (pointer, keyboard, displays, windows), `mcilib receive`, an upload every 10 minutes
  mcilib metered     the same on a network that is paid for by the byte: data waits
  mcilib allowed     the same, with 300 KiB an hour allowed (`metered_bytes_per_hour`)

The state of the network is emulated below the library (a NetworkManager on a bus of its own). All talk plain HTTP on
loopback through a relay that counts what TCP carries in both directions: headers, bodies, answers. What TLS 1.3 would
add stands beside it: a handshake for each connection (measured once, with one certificate) and 22 bytes a record. What
waits on the disk at the end is told too, and is part of the aims: one day it goes.

Ends with 1 when something injected is not stored (moves that were thinned count as stored), or when a state was not
followed; never because of a cost. The aims, printed with what was found, are 1/20 of the naive and 1/3 of the fair
agent's bytes, what waits included.

Needs Linux, Xvfb, umockdev, upower, python3-dbusmock and dbus-daemon; strace for the fsyncs. Takes as long as
`--minutes` says, and half a minute more.
"""

from __future__ import annotations

import sys

from agents_beside import FAIR, NAIVE, OURS
from impact import Aim, main

STATES = ("unmetered", "metered", "allowed")
AIMS = [
    Aim("due_bytes", f"{OURS} {state}", rival, ratio)
    for state in STATES
    for rival, ratio in ((NAIVE, 1 / 20), (FAIR, 1 / 3))
]

if __name__ == "__main__":
    sys.exit(main(__doc__, (NAIVE, FAIR), STATES, AIMS, "What agents send"))
