"""Agents, a bad network, nginx with TLS and two receivers, and everything that can go wrong between them.

    python tests/chaos/run.py [SECONDS] [--seed N] [--keep]

    agents -> relay (resets, hang-ups, black holes, slow lorises) -> nginx, TLS (429, 503, 413, portal page, redirect,
    504, answers that trickle) -> two receivers that are killed -> one store on a disk that fills up

The agents are two processes with ten spools and uploaders each; they are killed now and then too. Their clock runs 30
times as fast, so that limits per minute and waits of the server take seconds. In the end the faults stop, the agents
drain, and it must hold: every batch whose `commit` returned is in the store once, its bytes equal, or a counter of its
spool says why not; every request to delete is carried out. The last line says how many batches and faults there were. Exit code 1: it did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "support")]

from bad_network import KINDS as NETWORK_FAULTS  # noqa: E402
from bad_network import BadNetwork  # noqa: E402
from nginx import Nginx  # noqa: E402
from ports import free_ports  # noqa: E402

from mcilib.delivery.control import delete_request  # noqa: E402
from mcilib.delivery.http import HttpTransport  # noqa: E402
from mcilib.delivery.spool import DirectorySpool  # noqa: E402
from mcilib.delivery.uploader import Uploader  # noqa: E402
from mcilib.events import Move  # noqa: E402
from mcilib.protocols import SealedBatch  # noqa: E402
from mcilib.testing.fakes import example_batch, example_grant  # noqa: E402

PROCESSES, AGENTS = 2, 10
SPEED = 30
"""How much faster the agents' clock runs."""
TIMEOUT_S = 1.0
"""Of a request: black holes would take the whole time else."""
MOST = 4
"""Times the seconds that it may take until each kind of fault has struck, on a machine that is slow."""
DRAIN_S = 60.0
NONSENSE_RATIO = 0.005
"""Of what is committed is no batch at all: the receiver refuses it, and its neighbours must get through."""
ASK_RATIO = 0.1
"""How often a request to delete is committed beside the batches, for a participant that nobody is."""
BODY_MAX_BYTES = 2_000
"""Of a request that meets the 413: several batches are halved, a large one alone is refused for good."""

# --- agents: run in processes of their own ------------------------------------------------------------------


class FastClock:
    def monotonic_ns(self) -> int:
        return time.monotonic_ns() * SPEED

    def wall_ns(self) -> int:
        return time.time_ns()

    def suspended_ns(self) -> int:
        return 0


class Agent(threading.Thread):
    """Commits and uploads until `finish` is set, then drains. Says what it does on standard output."""

    def __init__(self, folder: Path, url: str, ca_file: str, seed: int, finish: threading.Event) -> None:
        super().__init__()
        self._folder, self._finish = folder, finish
        self._random = random.Random(seed)
        self._grant = example_grant()
        self._transport = HttpTransport(url, ca_file=ca_file, timeout_s=TIMEOUT_S)

    def run(self) -> None:
        try:
            with DirectorySpool(self._folder) as spool:
                uploader = Uploader(spool, self._transport, clock=FastClock(), random=self._random)
                uploader.start()
                self._live(spool, uploader)
                self._drain(spool, uploader)
                uploader.stop()
                now = spool.statistics()
            said = uploader.statistics()
            counts = {"committed": now.committed_batches, "delivered": now.delivered_batches}
            counts |= {"waiting": now.waiting_batches, "requests": said.requests}
            say(
                "end",
                self._folder.name,
                json.dumps({**counts, "lost": dict(now.lost), "last": said.last_detail}),
            )
        except BaseException as error:
            say("failed", self._folder.name, f"{type(error).__name__}: {error}")
            raise

    def _live(self, spool: DirectorySpool, uploader: Uploader) -> None:
        while not self._finish.is_set():
            for _ in range(self._random.randint(1, 4)):
                batch = spool.commit(self._seal)
                say("committed", self._folder.name, batch.batch_id)
                uploader.notify()
            if self._random.random() < ASK_RATIO:
                participant = uuid.UUID(int=self._random.getrandbits(128)).hex
                spool.commit_control(delete_request(participant, participant))
                say("asked", self._folder.name, participant)
            uploader.flush(2.0)
            self._finish.wait(self._random.uniform(0.2, 1.0))

    def _drain(self, spool: DirectorySpool, uploader: Uploader) -> None:
        until_s = time.monotonic() + DRAIN_S
        while (spool.waiting() or spool.controls()) and time.monotonic() < until_s:
            uploader.flush(5.0)
            time.sleep(0.05)

    def _seal(self, sequence: int) -> SealedBatch:
        events = [
            Move(n * 7_000_000, self._random.randrange(1920), self._random.randrange(1080))
            for n in range(self._size())
        ]
        batch = example_batch(sequence, events=events, grant=self._grant)
        if self._random.random() < NONSENSE_RATIO:
            batch = SealedBatch(batch.batch_id, sequence, bytes(len(batch.data)))
        say("sealed", self._folder.name, batch.batch_id, hashlib.sha256(batch.data).hexdigest())
        return batch

    def _size(self) -> int:
        return self._random.choice((1, 5, 20, 60, 150, 900))


_saying = threading.Lock()


def say(*words: str) -> None:
    with _saying:  # one write, so that a kill cuts no line in two
        os.write(1, (" ".join(words) + "\n").encode())


def run_agents(folder: Path, url: str, ca_file: str, seed: int) -> None:
    """Until standard input ends; then all drain."""
    finish = threading.Event()
    agents = [Agent(folder / f"agent{n}", url, ca_file, seed + n, finish) for n in range(AGENTS)]
    for agent in agents:
        agent.start()
    sys.stdin.read()
    finish.set()


class AgentProcess:
    """The process, started again whenever it is killed; what its agents said is kept."""

    def __init__(self, folder: Path, url: str, ca_file: Path, seed: int) -> None:
        self._arguments = [str(folder), url, str(ca_file)]
        self._seed = seed
        self.sealed: dict[str, tuple[str, str]] = {}
        """Id -> agent, SHA-256."""
        self.committed: dict[str, str] = {}
        """Id -> agent: those whose `commit` returned."""
        self.asked: set[str] = set()
        """Pseudonyms in the requests to delete whose `commit_control` returned."""
        self.ends: dict[str, dict[str, Any]] = {}
        self.failures: list[str] = []
        self._name, self._log = folder.name, folder.with_suffix(".log")
        self.start()

    def start(self) -> None:
        self._seed += 1000
        command = [sys.executable, str(HERE / "run.py"), "--agents", *self._arguments, str(self._seed)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._reader = threading.Thread(target=self._read, args=(self._process,))
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            word, agent, *rest = line.rstrip("\n").split(" ", 3 if line.startswith("sealed") else 2)
            agent = f"{self._name}/{agent}"
            if word == "sealed":
                self.sealed[rest[0]] = (agent, rest[1])
            elif word == "committed":
                self.committed[rest[0]] = agent
            elif word == "asked":
                self.asked.add(rest[0])
            elif word == "end":
                self.ends[agent] = json.loads(rest[0])
            else:
                self.failures.append(f"{agent}: {' '.join(rest)}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def finish(self) -> None:
        """Nothing is committed any more."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self) -> None:
        try:
            self._process.wait(DRAIN_S + 30)
        except subprocess.TimeoutExpired:
            self.failures.append(f"{self._name}: it did not end")
        self.kill()


# --- receivers ----------------------------------------------------------------------------------------------

SERVE = """
import sys
from mcilib.receiver import serve
more = {"device_requests": 100_000} if "device_requests" in serve.__kwdefaults__ else {}
serve(sys.argv[1], port=int(sys.argv[2]), on_ready=lambda url: print(url, flush=True), **more)
"""


class Receiver:
    def __init__(self, store: Path, port: int) -> None:
        self._command = [sys.executable, "-P", "-c", SERVE, str(store), str(port)]
        self.start()

    def start(self) -> None:
        """Returns when it listens; on a full disk it tries again until there is room."""
        while True:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            assert self._process.stdout is not None
            if self._process.stdout.readline():
                return
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def small_disk(folder: Path, seconds: float) -> Iterator[bool]:
    """Makes `folder` a disk of its own that can be filled; False where that is not allowed."""
    folder.mkdir()
    size = f"size={64 + 2 * int(seconds)}m"  # what arrives takes 0.6 MB a second
    command = ["mount", "-t", "tmpfs", "-o", size, "none", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


# --- nginx --------------------------------------------------------------------------------------------------


FAULTS = {
    "429": "429",
    "503": "503",
    "413": "413",
    "504": "504",
    "portal": "200",
    "redirect": "302",
    "trickle": "",
}
"""Kinds, and the status that shows that one struck. 413: only a large request meets it. 504: the request is carried
out all the same. trickle: the answer comes at 20 bytes a second."""


def front(port: int, receivers: list[int], ratio: float) -> str:
    """The `http` block. `ratio` of the requests meet a fault, each kind as often."""
    shares = "".join(f"{100 * ratio / len(FAULTS):.2f}% {kind};" for kind in FAULTS)
    return f"""
    log_format fault "$fault $status $upstream_status";
    access_log faults.log fault;
    split_clients $request_id $fault {{ {shares if ratio else ""} * none; }}
    upstream receivers {{ {"".join(f"server 127.0.0.1:{receiver} max_fails=0;" for receiver in receivers)} }}
    proxy_connect_timeout 1s;
    proxy_read_timeout 10s;
    proxy_set_header Host $host;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate server.pem;
        ssl_certificate_key server.pem;
        location / {{
            if ($fault != none) {{ rewrite ^ /fault/$fault last; }}
            proxy_pass http://receivers$request_uri;
        }}
        location = /fault/429 {{ internal; add_header Retry-After 5 always; return 429; }}
        location = /fault/503 {{ internal; return 503; }}
        location = /fault/413 {{
            internal; client_max_body_size {BODY_MAX_BYTES}; proxy_pass http://receivers$request_uri;
        }}
        location = /fault/portal {{
            internal; default_type text/html; return 200 "<html><h1>Welcome to our hotel</h1></html>";
        }}
        location = /fault/redirect {{ internal; return 302 https://127.0.0.1:{port}/login; }}
        location = /fault/504 {{ internal; proxy_read_timeout 1ms; proxy_pass http://receivers$request_uri; }}
        location = /fault/trickle {{ internal; limit_rate 20; proxy_pass http://receivers$request_uri; }}
    }}
    """


def faults_of(folder: Path) -> Counter[str]:
    """How often each kind struck, by nginx's own account."""
    found: Counter[str] = Counter()
    for line in (folder / "faults.log").read_text().splitlines():
        fault, status, upstream = line.split(" ", 2)
        if fault != "none" and status in (FAULTS[fault], FAULTS[fault] or status):
            found[fault] += 1
        elif fault == "none" and upstream == "503":
            found["disk full"] += 1
    return found


# --- the whole ----------------------------------------------------------------------------------------------


class Trouble(threading.Thread):
    """Kills receivers and agents and fills the disk, at random moments, until `finish`."""

    def __init__(
        self, receivers: list[Receiver], agents: list[AgentProcess], disk: Path | None, seed: int
    ) -> None:
        super().__init__()
        self.faults: Counter[str] = Counter()
        self._receivers, self._agents, self._disk = receivers, agents, disk
        self._random = random.Random(seed)
        self._over = threading.Event()

    def finish(self) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        what = [self._kill_receiver] * 4 + [self._kill_agents] + [self._fill] * 2 * (self._disk is not None)
        while not self._over.wait(self._random.uniform(0.2, 1.5)):
            self._random.choice(what)()

    def _kill_receiver(self) -> None:
        receiver = self._random.choice(self._receivers)
        receiver.kill()
        self.faults["receiver killed"] += 1
        self._over.wait(self._random.uniform(0, 1))
        receiver.start()

    def _kill_agents(self) -> None:
        agents = self._random.choice(self._agents)
        agents.kill()
        self.faults["agents killed"] += 1
        agents.start()

    def _fill(self) -> None:
        assert self._disk is not None
        filler = self._disk / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
        self._over.wait(self._random.uniform(0.5, 1.5))
        filler.unlink()


def verdict(agents: list[AgentProcess], store: Path) -> tuple[Counter[str], list[str]]:
    """What the oracle counted, and what is wrong."""
    wrong = [failure for process in agents for failure in process.failures]
    copies: dict[str, list[Path]] = {}
    for path in (store / "batches").rglob("*.mcib"):
        copies.setdefault(path.stem.partition("-")[2], []).append(path)
    seen: Counter[str] = Counter(twice=sum(len(paths) - 1 for paths in copies.values()))
    missing: Counter[str] = Counter()
    for process in agents:
        seen["batches"] += len(process.committed)
        for batch_id, (_, digest) in process.sealed.items():
            data = [path.read_bytes() for path in copies.get(batch_id, ())]
            seen["changed"] += sum(hashlib.sha256(piece).hexdigest() != digest for piece in data)
        for batch_id, agent in process.committed.items():
            missing[agent] += batch_id not in copies
    done = {path.name for path in (store / "deleted").rglob("*")}
    asked = [hashlib.sha256(i.encode()).hexdigest() for process in agents for i in process.asked]
    seen["requests to delete"] = len(asked)
    seen["not carried out"] = len(set(asked) - done)
    seen["strange"] = len(copies.keys() - {i for process in agents for i in process.sealed})
    ends = {agent: end for process in agents for agent, end in process.ends.items()}
    for agent in sorted(missing.keys() | ends.keys()):
        end = ends.get(agent)
        if end is None:
            wrong.append(f"{agent}: it said nothing in the end")
            continue
        counted = sum(end["lost"].values())
        seen.update({f"counted as {cause}": count for cause, count in end["lost"].items() if count})
        seen["delivered"] += end["delivered"]
        seen["lost"] += max(0, missing[agent] - counted)
        if end["waiting"] or end["committed"] != end["delivered"] + counted:
            wrong.append(f"{agent}: {end}")
    wrong += [
        f"{what}: {seen[what]}"
        for what in ("lost", "twice", "changed", "strange", "not carried out")
        if seen[what]
    ]
    return seen, wrong


def missed(nginx: Nginx, network: BadNetwork, trouble: Trouble, mounted: bool) -> list[str]:
    """The kinds of faults that have not struck yet."""
    faults = faults_of(nginx.folder) + network.faults + trouble.faults
    kinds = {
        *FAULTS,
        *NETWORK_FAULTS,
        "receiver killed",
        "agents killed",
        *(("disk full",) if mounted else ()),
    }
    return sorted(kind for kind in kinds if not faults[kind])


def chaos(folder: Path, seconds: float, seed: int) -> int:
    import trustme

    ca_file, store = folder / "ca.pem", folder / "disk" / "store"
    with contextlib.ExitStack() as stack:
        mounted = stack.enter_context(small_disk(folder / "disk", seconds))
        port, *ports = free_ports(3)
        receivers = [Receiver(store, port) for port in ports]
        for receiver in receivers:
            stack.callback(receiver.kill)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(ca_file))
        (folder / "nginx").mkdir()
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
            str(folder / "nginx" / "server.pem")
        )
        nginx = stack.enter_context(Nginx(folder / "nginx", front(port, ports, ratio=0.35), port))
        network = BadNetwork(port, ratio=0.5, seed=seed)
        stack.callback(network.close)
        url = f"https://localhost:{network.port}"
        agents = [AgentProcess(folder / f"p{n}", url, ca_file, seed + 100 * n) for n in range(PROCESSES)]
        for process in agents:
            stack.callback(process.kill)
        trouble = Trouble(receivers, agents, folder / "disk" if mounted else None, seed)
        trouble.start()
        most_s = time.monotonic() + MOST * seconds
        stack.callback(trouble.finish)
        time.sleep(seconds)
        while (missing := missed(nginx, network, trouble, mounted)) and time.monotonic() < most_s:
            time.sleep(1)
        trouble.finish()
        network.calm()
        nginx.reload(front(port, ports, ratio=0.0))
        for process in agents:
            process.finish()
        for process in agents:
            process.wait()
        seen, wrong = verdict(agents, store)
        faults = faults_of(nginx.folder) + network.faults + trouble.faults
        if not mounted:
            print("chaos: no disk was filled: mounting one needs root")
        wrong += [f"no fault of this kind struck: {kind}" for kind in missing]
        for line in wrong:
            print(f"chaos: {line}")
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))
        rest = ", ".join(
            f"{count} {what}" for what, count in sorted(seen.items()) if what.startswith("counted")
        )
        print(
            f"chaos: {seconds:g} s, seed {seed}: {seen['batches']} batches, {seen['requests to delete']} requests to delete; faults: {told}; {rest or '0 counted as lost'}; "
            f"lost {seen['lost']}, twice {seen['twice']}"
        )
        return 1 if wrong else 0


def main() -> int:
    if sys.argv[1:2] == ["--agents"]:
        place, url, ca_file, seed = sys.argv[2:]
        run_agents(Path(place), url, ca_file, int(seed))
        return 0
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", nargs="?", type=float, default=60.0)
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10_000), help="of the faults' kinds and moments"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder for a look")
    given = parser.parse_args()
    if shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
        print("chaos: nginx is not installed (`make setup` installs it where it may)", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="mcilib-chaos-"))
    try:
        return chaos(folder, given.seconds, given.seed)
    finally:
        if given.keep:
            print(f"chaos: kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
