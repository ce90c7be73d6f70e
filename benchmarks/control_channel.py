"""How long a command to a running agent takes through the control channel, and what it costs while nobody asks.

A process that is nothing but a channel, and this one that asks it: each round trip checks the folder, reads the
secret, connects, proves both sides and carries an empty command out in a thread of its own. Beside it, in turns with
it, the least that a Unix socket can do: connect, four bytes there and back, hang up. Then the same command while 200
connections come that say nothing. Then silence: what the channel's process wakes and uses. Linux only.
"""

from __future__ import annotations

import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rig import PYTHON, Process, arguments, cost, machine, process_cpu_s, show, table

from mcilib.channel.client import ask

ROUNDS, QUICK_ROUNDS = 2_000, 50
SILENCE_S, QUICK_SILENCE_S = 30.0, 1.0
STRANGERS = 200
AGENT = """
import socket, sys, threading
from mcilib.channel.server import ControlServer

bare = socket.socket(socket.AF_UNIX)
bare.bind(sys.argv[1] + "/bare.sock")
bare.listen()

def echo():
    while True:
        client, _ = bare.accept()
        with client:
            client.send(client.recv(4))

server = ControlServer(sys.argv[1], lambda name, arguments: {})
server.start()
threading.Thread(target=echo, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def bare(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / "bare.sock"))
        connection.send(b"ping")
        connection.recv(4)


def timed_ms(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return (time.perf_counter() - began_s) * 1e3


def summary(times_ms: list[float]) -> dict[str, float]:
    ordered = sorted(times_ms)
    return {"median_ms": statistics.median(ordered), "p99_ms": ordered[int(len(ordered) * 0.99)]}


def strangers(folder: Path) -> list[float]:
    """Of one command after each ten new connections, all of which stay."""
    times_ms, held = [], []
    for number in range(STRANGERS):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(folder / "control.sock"))
        held.append(connection)
        if number % 10 == 9:
            times_ms.append(timed_ms(lambda: ask(folder, "nothing")))
    for connection in held:
        connection.close()
    return times_ms


def run(rounds: int, silence_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mc") as name:
        folder = Path(name)
        with Process([*PYTHON, "-c", AGENT, name]) as agent:
            agent.line("ready")
            ask(folder, "nothing")
            before_s = process_cpu_s(agent.pid)
            pairs = [
                (timed_ms(lambda: ask(folder, "nothing")), timed_ms(lambda: bare(folder)))
                for _ in range(rounds)
            ]
            after_s = process_cpu_s(agent.pid)
            crowd_ms = strangers(folder)
            time.sleep(2.0)  # the strangers' time is over
            began = cost(agent.pid)
            time.sleep(silence_s)
            ended = cost(agent.pid)
    return {
        "command": summary([pair[0] for pair in pairs]),
        "bare": summary([pair[1] for pair in pairs]),
        "agent_cpu_ms": (after_s - before_s) / rounds * 1e3,
        "in_a_crowd": summary(crowd_ms),
        "silence": {
            "seconds": silence_s,
            "wakeups": ended.wakeups - began.wakeups,
            "cpu_ms": (ended.cpu_s - began.cpu_s) * 1e3,
        },
    }


def text(result: dict[str, Any]) -> str:
    names = {
        "command": "a command",
        "bare": "a bare socket",
        "in_a_crowd": f"a command, {STRANGERS} strangers",
    }
    rows = [
        [words, f"{result[name]['median_ms']:.2f}", f"{result[name]['p99_ms']:.2f}"]
        for name, words in names.items()
    ]
    silence = result["silence"]
    return (
        table(["round trip", "median ms", "p99 ms"], rows)
        + f"\n\nCPU of the agent for a command, its bare socket included: {result['agent_cpu_ms']:.2f} ms."
        + f"\nIn {silence['seconds']:g} s without a command: {silence['wakeups']} wake-ups, "
        + f"{silence['cpu_ms']:.2f} ms of CPU."
    )


def main() -> int:
    args = arguments(__doc__).parse_args()
    result = run(*((QUICK_ROUNDS, QUICK_SILENCE_S) if args.quick else (ROUNDS, SILENCE_S)))
    show({"machine": machine(), **result}, text(result), as_json=args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
