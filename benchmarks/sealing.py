"""What sealing a batch adds in bytes and in CPU, and how long the worst header that is read keeps the process.

For one to three recipients: bytes added to a batch of 1,000 bytes with one try (what age itself gives) and as
mcilib seals, the smallest of several; process time of sealing and of opening, best of several rounds.

Then headers of age files of the worst kind (as many empty stanzas as fit), which pyrage takes quadratic time to
read: up to the size that mcilib refuses to look at. Needs the extra `seal`.
"""

from __future__ import annotations

import base64
import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import pyrage
from rig import arguments, machine, remark, show, spread, table

from mcilib import limits
from mcilib.format.seal import generate, seal, unseal

BATCH = bytes(1_000)
HEADERS_BYTES = (1024, 4096, 8192, 16_384)


def sealing(recipients: int, times: int) -> dict[str, Any]:
    keys = [generate() for _ in range(recipients)]
    names = [name for _, name in keys]
    ours = [len(seal(BATCH, names)) - len(BATCH) for _ in range(times)]
    public = [pyrage.x25519.Recipient.from_str(name) for name in names]
    once = [len(pyrage.encrypt(BATCH, public)) - len(BATCH) for _ in range(4 * times)]
    sealed = seal(BATCH, names)
    return {
        "recipients": recipients,
        "added_bytes": mean(ours),
        "added_bytes_one_try": mean(once),
        "seal_us": cpu_us(lambda: seal(BATCH, names), times),
        "open_us": cpu_us(lambda: unseal(sealed, [keys[-1][0]]), times),
    }


def mean(sizes: list[int]) -> dict[str, float]:
    return {**spread(sizes), "mean": round(statistics.mean(sizes), 1)}


def cpu_us(work: Callable[[], object], times: int, rounds: int = 5) -> float:
    def one_round() -> float:
        began_s = time.process_time()
        for _ in range(times):
            work()
        return time.process_time() - began_s

    return round(min(one_round() for _ in range(rounds)) / times * 1e6, 1)


def worst_header(size: int) -> dict[str, Any]:
    """Asks pyrage itself, without the look that mcilib takes first."""
    mac = base64.b64encode(bytes(32)).rstrip(b"=")
    stanza = b"-> a\n\n"
    data = b"age-encryption.org/v1\n" + stanza * (size // len(stanza)) + b"--- " + mac + b"\n" + bytes(64)
    identity = pyrage.x25519.Identity.generate()
    began_s = time.process_time()
    with contextlib.suppress(pyrage.DecryptError):
        pyrage.decrypt(data, [identity])
    return {
        "header_bytes": size,
        "read_ms": round((time.process_time() - began_s) * 1e3, 1),
        "refused_by_mcilib": size > limits.SEAL_HEADER_MAX_BYTES,
    }


def text(result: dict[str, Any]) -> str:
    def sizes(figure: dict[str, float]) -> str:
        return f"{figure['mean']:.0f} ({figure['low']:.0f}-{figure['high']:.0f})"

    rows = [
        [
            str(one["recipients"]), sizes(one["added_bytes"]), sizes(one["added_bytes_one_try"]),
            f"{one['seal_us']:.0f}", f"{one['open_us']:.0f}",
        ]
        for one in result["sealing"]
    ]  # fmt: skip
    headers = [
        [
            f"{one['header_bytes']:,}",
            f"{one['read_ms']:.0f}",
            "refused unread" if one["refused_by_mcilib"] else "read",
        ]
        for one in result["worst_headers"]
    ]
    return "\n\n".join(
        (
            table(["recipients", "bytes added", "with one try", "us to seal", "us to open"], rows),
            table(["header, bytes", "ms to read", "mcilib"], headers),
        )
    )


def main() -> None:
    args = arguments(__doc__).parse_args()
    times = 20 if args.quick else 2_000
    remark("sealing ...")
    result = {
        "machine": machine(),
        "sealing": [sealing(recipients, times) for recipients in (1, 2, 3)],
        "worst_headers": [worst_header(size) for size in HEADERS_BYTES[: 2 if args.quick else None]],
    }
    show(result, text(result), as_json=args.json)


if __name__ == "__main__":
    main()
