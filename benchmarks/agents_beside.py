"""Agents side by side, each with an X server, a server and a counted network of its own, and what each costs.

nothing       no agent: what the X server itself takes
bare          pynput's mouse.Listener and keyboard.Listener with empty callbacks; keeps nothing, sends nothing
naive         pynput, one JSON object per event, a POST every 5 s over a new connection
fair          pynput, short JSON lines with whole milliseconds and the class of a key, gzip, a POST a minute over one
              connection
mcilib ...    `mcilib run` and `mcilib receive`, in a state of the machine that is emulated below it (files of /sys,
              D-Bus services): `mains`, `battery` and `saver` (on battery), `unmetered`, `metered`, and `allowed`
              (metered, with an allowance of bytes per hour)
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import agent_cost
import capture_cost
from rig import (
    MCILIB,
    PYTHON,
    Process,
    cost,
    grant,
    memory_mib,
    process_cpu_s,
    receiver,
    remark,
    steady_display,
    written_bytes,
)
from wires import tls_bytes, wires
from working_day import HEIGHT_PX, WIDTH_PX, Day, replay

from mcilib.config import Settings
from mcilib.events import event_count
from mcilib.policy.state import Metered
from mcilib.reader import Reader, coverage, timeline
from mcilib.testing.laptop import EmulatedLaptop, missing_parts
from mcilib.testing.xvfb import VirtualDisplay

NOTHING, BARE, NAIVE, FAIR, OURS = "nothing", "bare", "naive", "fair", "mcilib"
STATES = ("mains", "battery", "saver", "unmetered", "metered", "allowed")
ALLOWED_BYTES_PER_HOUR = 300 * 1024
ALLOWANCE = "metered_bytes_per_hour"
"""The option's key, in whatever section it stands."""

REST_S = 2.0
"""After the last event, until all have read it."""

_LISTEN = """\
import json, signal, sys, threading, time
from pynput import keyboard, mouse
lock, events, stop = threading.Lock(), [], threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
def keep(kind, **more):
    event = made(kind, more)
    with lock: events.append(event)
def run(every_s):
    listeners = [
        mouse.Listener(on_move=lambda x, y, *_: keep("move", x=x, y=y),
            on_click=lambda x, y, b, down, *_: keep("press" if down else "release", x=x, y=y, button=b.name),
            on_scroll=lambda x, y, dx, dy, *_: keep("scroll", x=x, y=y, dx=dx, dy=dy)),
        keyboard.Listener(on_press=lambda k, *_: keep("key_press", key=named(k)),
            on_release=lambda k, *_: keep("key_release", key=named(k)))]
    for listener in listeners: listener.start()
    for listener in listeners: listener.wait()
    print("ready", flush=True)
    while not stop.wait(every_s):
        send()
    send()
    import os; os._exit(0)
def taken():
    global events
    with lock: sending, events = events, []
    return sending
"""

NAIVE_CODE = f"""\
{_LISTEN}
import urllib.request
def made(kind, more): return {{"timestamp": time.time(), "kind": kind, **more}}
def named(key): return str(key)
def send():
    if sending := taken():
        body = json.dumps(sending).encode()
        request = urllib.request.Request(sys.argv[1] + "/events", body, {{"Content-Type": "application/json"}})
        urllib.request.urlopen(request).read()
run(5)
"""

FAIR_CODE = f"""\
{_LISTEN}
import gzip, http.client
began_s = time.time()
def made(kind, more): return {{"t": round((time.time() - began_s) * 1e3), "kind": kind, **more}}
def named(key):
    char = getattr(key, "char", None)
    if char is None: return getattr(key, "name", "other")
    return "letter" if char.isalpha() else "digit" if char.isdigit() else "punctuation"
connection = http.client.HTTPConnection(sys.argv[1].removeprefix("http://"))
def send():
    if sending := taken():
        lines = "\\n".join([json.dumps(event, separators=(",", ":")) for event in sending])
        connection.request("POST", "/events", gzip.compress(lines.encode(), 6), {{"Content-Encoding": "gzip"}})
        connection.getresponse().read()
run(60)
"""

_CODE = {BARE: agent_cost.BARE, NAIVE: NAIVE_CODE, FAIR: FAIR_CODE}


@dataclass(frozen=True)
class Agent:
    """One of those that are compared. One that is `traced` runs under strace and gives only its number of fsyncs."""

    kind: str
    state: str = ""
    traced: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}{' ' if self.state else ''}{self.state}"


@dataclass
class Running:
    """An agent that captures. Without a process there is none: only its X server."""

    agent: Agent
    display: VirtualDisplay
    folder: Path
    process: Process | None = None

    @property
    def batches(self) -> Path:
        return self.folder / "batches"

    @property
    def trace(self) -> Path:
        return self.folder / "fsyncs"


def agents(kinds: Sequence[str], states: Sequence[str], *, traced: bool) -> list[Agent]:
    ours = [Agent(OURS, state) for state in states]
    twins = [Agent(OURS, state, traced=True) for state in states] if traced else []
    return [*map(Agent, kinds), *ours, *twins]


# --- one run ------------------------------------------------------------------------------------------------


def side_by_side(
    compared: Sequence[Agent], warm_up: Day, day: Day, folder: Path, upload_s: float
) -> tuple[dict[str, dict[str, Any]], float]:
    """All agents hear `warm_up`, whose first events import and allocate, and then `day`: what that costs each, and how
    late the latest event was injected, in seconds."""
    with ExitStack() as stack:
        remark(f"starting {len(compared)} X servers and their agents ...")
        places = [stack.enter_context(place(agent, folder / str(n))) for n, agent in enumerate(compared)]
        ports = [stack.enter_context(server(one)) for one in places]
        network = stack.enter_context(wires(ports))
        laptops = {
            state: stack.enter_context(laptop(state))
            for state in dict.fromkeys(agent.state for agent in compared if agent.state)
        }
        for one, port in zip(places, network.ports, strict=True):
            started = start(one, f"http://127.0.0.1:{port}", laptops.get(one.agent.state, {}), upload_s)
            one.process = stack.enter_context(started) if started is not None else None
        for one in places:
            if one.process is not None:
                one.process.line("Collecting" if one.agent.kind == OURS else "ready")
        displays = [one.display for one in places]
        replay(warm_up, displays, lambda _: None)
        time.sleep(REST_S)
        before, began_s = [counters(one) for one in places], time.time()
        late_s = replay(day, displays, lambda left: remark(f"{left / 60:.1f} minutes left ..."))
        time.sleep(REST_S)
        after = [counters(one) for one in places]
        injected = warm_up.counts() + day.counts()
        told = [told_plan(one) for one in places]
        found = {
            one.agent.name: spent(one, first, last) for one, first, last in zip(places, before, after, strict=True)
            if not one.agent.traced
        }  # fmt: skip
        for one in places:
            if one.agent.traced and one.process is not None:
                one.process.end()
                found[one.agent.name]["fsyncs"] = fsyncs(one.trace, one.process.pid, began_s)
        for one, carried, plan in zip(places, network.counts(), told, strict=True):
            if not one.agent.traced:
                add_sent(found[one.agent.name], one, carried, injected, plan)
    return found, late_s


@contextmanager
def place(agent: Agent, folder: Path) -> Iterator[Running]:
    with steady_display(WIDTH_PX, HEIGHT_PX) as display:
        running = Running(agent, display, folder)
        running.batches.mkdir(parents=True)
        if agent.kind == OURS:
            grant(running.batches / "state")
        yield running


@contextmanager
def server(one: Running) -> Iterator[int]:
    """The port of its receiver; 0: it takes one of the wires' own."""
    if one.agent.kind != OURS:
        yield 0
        return
    with receiver(one.batches / "store") as endpoint:
        yield int(endpoint.rpartition(":")[2].rstrip("/"))


@contextmanager
def laptop(state: str) -> Iterator[dict[str, str]]:
    """The environment of a process on a machine in this state; an empty one where none can be emulated."""
    if missing := missing_parts():
        remark(f"no {state}: a laptop cannot be emulated here without {', '.join(missing)}")
        yield {}
        return
    with EmulatedLaptop(on_mains=state not in ("battery", "saver")) as emulated:
        emulated.saver(state == "saver")
        emulated.metered(Metered.YES if state in ("metered", "allowed") else Metered.NO)
        yield emulated.environment()


def start(one: Running, endpoint: str, machine: dict[str, str], upload_s: float) -> Process | None:
    agent, environ = one.agent, {**one.display.environ(), **machine}
    if agent.kind == NOTHING:
        return None
    if agent.kind != OURS:
        return Process([*PYTHON, "-c", _CODE[agent.kind], endpoint], env=environ)
    command = [*MCILIB, "run", "--state", str(one.batches / "state"), "--endpoint", endpoint]
    command += ["--sources", ",".join(capture_cost.SOURCES), "--upload-every", f"{upload_s:.0f}s"]
    if agent.state == "allowed" and (section := allowance_section()):
        config = one.folder / "allowed.toml"
        config.write_text(f"[{section}]\n{ALLOWANCE} = {ALLOWED_BYTES_PER_HOUR}\n")
        command += ["--config", str(config)]
    if agent.traced:
        # -D: the agent stays our child. The filter stops it at these two calls only.
        strace = ["strace", "-D", "-f", "--seccomp-bpf", "-q", "-ttt", "-o", str(one.trace)]
        command = [*strace, "-e", "trace=fsync,fdatasync", *command]
    return Process(command, env=environ)


def allowance_section() -> str | None:
    """Of the configuration file; None where there is no such option."""
    settings = Settings()
    for section in fields(settings):
        part = getattr(settings, section.name)
        if ALLOWANCE in getattr(type(part), "__dataclass_fields__", {}):
            return section.name
    return None


def can_trace() -> bool:
    return shutil.which("strace") is not None


# --- what it cost -------------------------------------------------------------------------------------------


def counters(one: Running) -> dict[str, float]:
    """So far, from outside. Wake-ups are those of the threads that are there."""
    so_far: dict[str, float] = {"x_server_cpu_s": process_cpu_s(one.display.pid)}
    if one.process is not None:
        pid = one.process.pid
        so_far |= {
            "cpu_s": process_cpu_s(pid),
            "wakeups": cost(pid).wakeups,
            "written_bytes": written_bytes(pid),
        }
    return so_far


def spent(one: Running, before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """Between the two, and until the end: the agent is ended, so that all that it holds is written or sent, and that is
    part of its CPU too."""
    found: dict[str, Any] = {"cpu_s": 0.0, "wakeups": 0, "written_bytes": 0, "fsyncs": 0}
    found |= {name: after[name] - before[name] for name in after}
    if one.process is None:
        return found
    found["memory_mib"] = memory_mib(one.process.pid)
    if one.agent.kind == OURS:
        found["fsyncs"] = None  # its traced twin tells
    if one.agent.kind != BARE:
        one.process.finish()
        found["cpu_s"] = process_cpu_s(one.process.pid) - before["cpu_s"]
        found["end_cpu_s"] = found["cpu_s"] - (after["cpu_s"] - before["cpu_s"])
        found["written_bytes"] = written_bytes(one.process.pid) - before["written_bytes"]
    return found


def fsyncs(trace: Path, pid: int, began_s: float) -> int | None:
    """Since a moment (Unix time). None when strace has not written that the process ended: it could not trace it."""
    for _ in range(50):
        lines = trace.read_text(errors="replace").splitlines() if trace.exists() else []
        told = [line.split(maxsplit=2) for line in lines]
        if any(number == str(pid) and said.startswith("+++") for number, _, said in told):
            calls = [said for _, at_s, said in told if float(at_s) >= began_s]
            return sum(said.startswith(("fsync(", "fdatasync(")) for said in calls)
        time.sleep(0.1)
    return None


def told_plan(one: Running) -> dict[str, Any] | None:
    """The plan in force, as `mcilib status --json` tells it; None where there is none."""
    if one.agent.kind != OURS or one.agent.traced:
        return None
    command = [*MCILIB, "status", "--state", str(one.batches / "state"), "--json"]
    plan = json.loads(subprocess.check_output(command)).get("plan")
    return plan and {"levers": plan["levers"], "reasons": plan["reasons"]}


def add_sent(
    found: dict[str, Any],
    one: Running,
    carried: dict[str, Any],
    injected: Counter[str],
    plan: dict[str, Any] | None,
) -> None:
    """What went over its wire; what still waits; whether all that was injected is there, and the state was followed."""
    causes = carried["causes"]
    wire = sum(cause["up"] + cause["down"] for cause in causes.values())
    found |= {
        "connections": carried["connections"],
        "causes": causes,
        "requests": sum(cause["requests"] for cause in causes.values()),
        "wire_bytes": wire,
        "tls_bytes": tls_bytes(carried),
        "waiting_bytes": 0,
        "due_bytes": wire,
    }
    if one.agent.kind in (NAIVE, FAIR):
        found["missing"] = capture_cost.missing(injected, carried["kinds"])
    if one.agent.kind == OURS:
        waiting = sum(file.stat().st_size for file in (one.batches / "state").rglob("*.mcib"))
        found |= {"waiting_bytes": waiting, "due_bytes": wire + waiting, **stored(one, injected)}
        in_force = plan or (found["plans"] or [{}])[-1]
        found |= {"plan": plan, "not_followed": not_followed(one.agent.state, in_force.get("levers", {}))}


def stored(one: Running, injected: Counter[str]) -> dict[str, Any]:
    """From the batches that were received and those that wait: plans in force, what is missing, what was thinned."""
    kept, plans = Counter[str](), list[dict[str, Any]]()
    for batch in Reader(one.batches).batches():
        for event in batch.events:
            kept[event.kind] += event_count(event)
        plan = {"levers": dict(batch.metadata.levers), "reasons": list(batch.metadata.reasons)}
        if not plans or {name: plans[-1][name] for name in plan} != plan:
            plans.append({**plan, "batches": 0})
        plans[-1]["batches"] += 1
    coalesced = thinned = 0
    dropped = Counter[str]()
    for totals in coverage(timeline(Reader(one.batches))).values():
        coalesced, thinned = coalesced + totals.coalesced, thinned + totals.thinned
        dropped.update(totals.dropped)
    accounted = {**kept, "move": kept["move"] + coalesced + thinned}
    asked_for = Counter(injected)
    if any(plan["levers"].get("motion") == "none" for plan in plans):
        del asked_for["move"]  # the system does not deliver them meanwhile: nobody but us can count them
    return {
        "plans": plans,
        "stored": dict(kept),
        "coalesced": coalesced,
        "thinned": thinned,
        "dropped": dict(dropped),
        "not_delivered": 0 if "move" in asked_for else injected["move"] - accounted["move"],
        "missing": capture_cost.missing(asked_for, accounted),
    }


def not_followed(state: str, levers: Mapping[str, Any]) -> str | None:
    """Why a plan is not one of this state, in words; None: it is."""
    held_back = levers.get("upload") in ("control", "none")
    frugal = "read_interval_s" in levers and "batch_age_s" in levers
    followed = {
        "mains": not frugal and not held_back,
        "battery": frugal,
        "saver": frugal and held_back,
        "unmetered": not held_back and "bytes_per_hour" not in levers,
        "metered": held_back,
        "allowed": levers.get("bytes_per_hour") == ALLOWED_BYTES_PER_HOUR,
    }[state]
    return None if followed else f"the plan in force was {dict(levers) or 'the usual one'}"
