"""What must not be recorded is nowhere: not in the agent's memory, its files, on the wire or in the store. And the same
search finds the same canary where it may be."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from canary import Canary, in_bytes, in_folder, in_memory
from commands import Background, run
from hosts import Host, Nursery
from waiting import until
from wire import Wire
from xwindows import Manager

from mcilib.consent import Grant
from mcilib.format.batch import Batch
from mcilib.reader import Reader
from mcilib.testing.fakes import example_grant
from mcilib.testing.xvfb import VirtualDisplay

pytestmark = pytest.mark.x11


def places(pid: int, state: Path, wire: Wire, store: Path, canary: Canary) -> dict[str, set[str]]:
    """Where it is, and in which forms."""
    found = {
        "memory": in_memory(pid, canary).forms,
        "state": in_folder(state, canary).forms,
        "wire": in_bytes(bytes(wire.asked), canary).forms | in_bytes(bytes(wire.answered), canary).forms,
        "store": in_folder(store, canary).forms,
    }
    return {place: forms for place, forms in found.items() if forms}


@pytest.fixture
def canary(xserver: VirtualDisplay) -> Canary:
    return Canary.of(xserver)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def record(display: VirtualDisplay, canary: Canary) -> None:
    """Somebody types it and moves the pointer over its places."""
    canary.type(display)
    canary.point(display)
    time.sleep(0.15)  # several reads of the sources


# --- the search itself ---


def _written(canary: Canary) -> dict[str, tuple[str, bytes]]:
    """How it could lie somewhere -> the form that it is, and the bytes."""
    text, codes = canary.text, canary.codes
    made = {
        "utf-8": ("text", text.encode()),
        "utf-16": ("text", text.encode("utf-16-le")),
        "utf-32": ("text", text.encode("utf-32-be")),
        "half of it": ("text", text[8:].encode()),
        "events of X in a row": (
            "keycodes",
            b"".join(struct.pack("=BBxxI24x", 2, code, 7) for code in codes),
        ),
        "replies of RECORD, press and release": (
            "keycodes",
            b"".join(struct.pack("=32xBBxxI24x", kind, code, 7) for code in codes for kind in (2, 3)),
        ),
        "input events of Linux": (
            "keycodes",
            b"".join(struct.pack("=QQHHI", 9, 8, 1, code, 1) for code in codes),
        ),
        "places in events of X": (
            "places",
            b"".join(struct.pack("=20xhh8x", x, y) for x, y in canary.places),
        ),
        "floats": ("places", b"".join(struct.pack("<dd", x, y) for x, y in canary.places)),
        "y alone": ("places", b"".join(struct.pack("<q", y) for _, y in canary.places)),
    }
    for size, kind in ((1, "B"), (2, "H"), (4, "I"), (8, "Q")):
        made[f"keysyms of {size}"] = ("text", struct.pack(f"<16{kind}", *map(ord, text)))
        made[f"keycodes of {size}"] = ("keycodes", struct.pack(f"<16{kind}", *codes))
    for size, kind in ((2, "h"), (4, "i"), (8, "q")):
        made[f"places of {size}"] = (
            "places",
            struct.pack(f"<12{kind}", *(v for at in canary.places for v in at)),
        )
    return made


def test_the_search_knows_every_form(canary: Canary) -> None:
    noise = random.Random(7).randbytes(10_000)
    for how, (form, data) in _written(canary).items():
        assert in_bytes(noise + data + noise, canary).forms == {form}, how
    assert in_bytes(noise, canary).forms == set()


# --- where it may be, it is found -------------------------------------------------------------------------------


def test_what_a_host_keeps_is_found(
    xserver: VirtualDisplay, nursery: Nursery, wire: Wire, store: Path, state: Path, canary: Canary
) -> None:
    """A source of the test's own keeps characters and tells them, which none of the library's does."""
    example_grant().save(state)
    host = nursery.host(
        state=str(state), url=wire.url, display=xserver.display, sources=["telltale", "pointer"]
    )
    host.call("start")
    record(xserver, canary)
    host.call("commit")
    here = places(host.pid, state, wire, store, canary)
    assert host.call("flush")["delivered"]
    there = places(host.pid, state, wire, store, canary)
    host.end()
    assert "objects of text" in here["memory"]
    assert here["state"] >= {"text", "places"}
    assert "wire" not in here
    assert there["wire"] >= {"text", "places"}
    assert there["store"] >= {"text", "places"}
    assert "state" not in there


def test_what_is_granted_passes_and_no_more(
    xserver: VirtualDisplay, nursery: Nursery, wire: Wire, store: Path, state: Path, canary: Canary
) -> None:
    """An ordinary agent, at key detail class: places everywhere, what was typed nowhere. That it heard the keys at all
    shows in what Python leaves of them in freed memory for a while; the buffer that they were read into is wiped."""
    example_grant().save(state)
    host = nursery.host(state=str(state), url=wire.url, display=xserver.display)
    host.call("start")
    record(xserver, canary)
    host.call("commit")
    here = places(host.pid, state, wire, store, canary)
    assert host.call("flush")["delivered"]
    there = places(host.pid, state, wire, store, canary)
    host.end()
    assert here["state"] == {"places"}
    assert there["wire"] == there["store"] == {"places"}
    for found in (here, there):
        assert not found.get("memory", set()) & {"text", "keycodes", "objects of text", "objects of keysyms"}
    keys = [e for b in batches_of(store, state) for e in b.events if e.kind == "key_press"]
    assert len(keys) == len(canary.text), "it heard them"


@pytest.mark.parametrize("granted", [True, False])
def test_a_title_is_found_only_where_it_is_granted(
    granted: bool,
    xserver: VirtualDisplay,
    nursery: Nursery,
    wire: Wire,
    store: Path,
    state: Path,
    canary: Canary,
) -> None:
    example_grant("apps", *(["titles"] if granted else [])).save(state)
    manager = Manager()
    try:
        host = nursery.host(state=str(state), url=wire.url, display=xserver.display, titles=granted)
        host.call("start")
        manager.use(manager.open("Editor", f"letter {canary.text} to nobody"))
        until(
            lambda: host.call("statistics")["capture"]["captured"].get("focus", 0) >= 2,
            what="the window is told",
        )
        host.call("commit")
        here = places(host.pid, state, wire, store, canary)
        assert host.call("flush")["delivered"]
        there = places(host.pid, state, wire, store, canary)
        host.end()
    finally:
        manager.retire()
    wanted = {"text"} if granted else None
    assert (here.get("memory"), here.get("state"), there.get("wire"), there.get("store")) == (wanted,) * 4


# --- where it may not be, it is not: the same search on the same display ----------------------------------------

#: Controls under which nothing of keys and pointer is captured, and what undoes them.
OFF: dict[str, tuple[str, dict[str, object], str]] = {
    "paused": ("pause", {"duration_s": 900}, "resume"),
    "everything exempt": (
        "request_exemption", {"scope": {"everything": True}, "reason_class": "other"}, "withdraw_exemption"
    ),
    "hours exempt": (
        "request_exemption", {"scope": {"hours": ["mon-sun 00:00-24:00"]}, "reason_class": "personal"}, "withdraw_exemption"
    ),
    "kinds exempt": (
        "request_exemption", {"scope": {"scopes": ["keys", "pointer"]}, "reason_class": "legal"}, "withdraw_exemption"
    ),
    "asked": ("ask", {"why": "another policy"}, "answered"),
}  # fmt: skip


@pytest.mark.parametrize("name", OFF)
def test_nothing_while_it_is_off(
    name: str, xserver: VirtualDisplay, nursery: Nursery, wire: Wire, store: Path, state: Path
) -> None:
    """In no form, in memory neither: nobody listens. A second canary, typed when it is on again, is found."""
    control, arguments, undo = OFF[name]
    example_grant().save(state)
    host = nursery.host(state=str(state), url=wire.url, display=xserver.display)
    host.call("start")
    answer = host.call(control, **arguments)
    hidden, shown = Canary.of(xserver), Canary.of(xserver)
    record(xserver, hidden)
    assert places(host.pid, state, wire, store, hidden) == {}
    host.call(undo, **({"exemption_id": answer["exemption"]} if undo == "withdraw_exemption" else {}))
    until_heard(host, xserver)
    record(xserver, shown)
    assert host.call("flush")["delivered"]
    assert places(host.pid, state, wire, store, hidden) == {}
    found = places(host.pid, state, wire, store, shown)
    host.end()
    assert found["wire"] == found["store"] == {"places"}


def test_nothing_of_a_program_that_is_exempt(
    xserver: VirtualDisplay, nursery: Nursery, wire: Wire, store: Path, state: Path
) -> None:
    """Which program it is can only be told from its window, so keys and places pass through memory, and are dropped."""
    example_grant("keys", "pointer", "apps").save(state)
    hidden = Canary.of(xserver)
    manager = Manager()
    try:
        host = nursery.host(state=str(state), url=wire.url, display=xserver.display)
        manager.use(manager.open("Vault", "secrets"))
        host.call("start")
        host.call("request_exemption", scope={"apps": ["Vault"]}, reason_class="confidential")
        record(xserver, hidden)
        host.call("flush")
        found = places(host.pid, state, wire, store, hidden)
        host.end()
    finally:
        manager.retire()
    found.get("memory", set()).difference_update({"places", "objects of keycodes"})
    assert {place for place, forms in found.items() if forms} == set()
    assert [e for b in batches_of(store, state) for e in b.events if e.kind in ("move", "key_press")] == []


@pytest.mark.parametrize("paused", [False, True])
def test_the_agent_of_the_command_line(
    paused: bool, xserver: VirtualDisplay, wire: Wire, store: Path, state: Path, canary: Canary
) -> None:
    """`mcilib run` and `mcilib pause`, as people use them."""
    example_grant().save(state)
    agent = Background("run", "--state", state, "--endpoint", wire.url)
    try:
        agent.line("Collecting.")
        if paused:
            assert run("pause", "5m", "--state", state).returncode == 0
        record(xserver, canary)
        run("flush", "--state", state)
        found = places(agent.process.pid, state, wire, store, canary)
        agent.end()
    finally:
        if agent.process.poll() is None:
            agent.kill()
    if paused:
        assert found == {}
    else:
        assert found["store"] == found["wire"] == {"places"}
        assert not found.get("memory", set()) & {"text", "keycodes", "objects of text"}


def until_heard(host: Host, display: VirtualDisplay) -> None:
    def heard() -> bool:
        display.move(5, 5)
        display.move(6, 6)
        display.sync()
        time.sleep(0.03)
        return bool(host.call("statistics")["capture"]["captured"].get("move"))

    until(heard, what="it is captured again")


def batches_of(store: Path, state: Path) -> Iterator[Batch]:
    """Of the participant whose state folder that is, wherever they lie."""
    participant = Grant.load(state).participant
    for path in (store, state / "spool"):
        yield from (batch for batch in Reader(path).batches() if batch.header.participant == participant)
