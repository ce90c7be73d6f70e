"""Synthetic traces, the same for the same seed: office pointing, a 1 kHz mouse, typing."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mcilib.events import Event, KeyPress, KeyRelease, Move, Press, Release, Scroll

MS = 1_000_000


def glide(random_: random.Random, start: tuple[int, int], samples: int) -> Iterator[tuple[int, int]]:
    """A movement of the hand: minimum jerk towards a random target, a little shaky, whole pixels."""
    x, y = start
    to_x, to_y = random_.randrange(1920), random_.randrange(1080)
    for n in range(1, samples + 1):
        part = n / samples
        way = part**3 * (10 - 15 * part + 6 * part**2)
        shake = random_.gauss(0, 0.7)
        yield round(x + (to_x - x) * way + shake), round(y + (to_y - y) * way + shake)


def pointer(seconds: float, rate_hz: int, seed: int) -> list[Event]:
    """Glides with rests between them, clicks and scrolling; the system samples at `rate_hz`."""
    random_ = random.Random(seed)
    events: list[Event] = []
    t_ns, spot, step_ns = 0, (960, 540), 1_000_000_000 // rate_hz
    while t_ns < seconds * 1e9:
        for place in glide(random_, spot, random_.randrange(rate_hz // 4, rate_hz)):
            t_ns += step_ns + random_.randrange(-MS // 4, MS // 4)
            if place != spot:
                spot = place
                events.append(Move(t_ns, *spot))
        t_ns += random_.randrange(40, 200) * MS
        if random_.random() < 0.6:
            button = "left" if random_.random() < 0.9 else "right"
            events += [
                Press(t_ns, *spot, button),
                Release(t_ns + random_.randrange(50, 120) * MS, *spot, button),
            ]
            t_ns += 120 * MS
        if random_.random() < 0.3:
            way = random_.choice((-1, 1))
            for _ in range(random_.randrange(2, 15)):
                t_ns += random_.randrange(12, 60) * MS
                events.append(Scroll(t_ns, *spot, 0, way))
        t_ns += int(random_.expovariate(1 / 1.5) * 1e9)  # reading, thinking
    return events


def typing(seconds: float, seed: int) -> list[Event]:
    """Words with rollover, spaces, corrections, pauses."""
    random_ = random.Random(seed)
    events: list[Event] = []
    t_ns = 0
    while t_ns < seconds * 1e9:
        for _ in range(random_.randrange(3, 12)):
            for key in ["letter"] * random_.randrange(2, 9) + [
                random_.choices(("space", "punctuation"), (9, 1))[0]
            ]:
                events += [KeyPress(t_ns, key), KeyRelease(t_ns + random_.randrange(60, 130) * MS, key)]
                t_ns += int(random_.lognormvariate(4.8, 0.4) * MS)
            if random_.random() < 0.2:
                for _ in range(random_.randrange(1, 5)):
                    events += [KeyPress(t_ns, "editing"), KeyRelease(t_ns + 80 * MS, "editing")]
                    t_ns += random_.randrange(120, 250) * MS
        t_ns += int(random_.expovariate(1 / 4) * 1e9)
    return sorted(events, key=lambda event: event.t_ns)
