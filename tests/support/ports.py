"""Ports that a test names before somebody listens on them."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

_NOBODYS = range(10_000, 32_000)
"""Below those that systems give out by themselves (from 32,768 or 49,152 on): no connection and no server that takes any
free port gets one of these in the meantime."""

_random = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 on which nobody listens, and nobody will by chance."""
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            port = _random.choice(_NOBODYS)
            try:
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            ports.append(port)
    return ports


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
