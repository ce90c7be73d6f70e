"""Mutates the test vectors, blindly but with the checksum made right, and checks what must hold for any bytes.

    python tests/fuzz/mutate.py [--each 20000 | --seconds 60] [--seed N] [--jobs N] [VECTOR...]

Same seed, same mutants, whatever the number of jobs. Each process works in no more memory than the document promises. An input
for which something does not hold is left in build/fuzz, and the way to run it again is said.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent / "support")]

import hostile  # noqa: E402

from mcilib.errors import BatchFormatError  # noqa: E402

FOUND = ROOT / "build" / "fuzz"
IDENTITIES = hostile.vector_keys()


def names() -> list[str]:
    return sorted(path.stem for path in hostile.VECTORS.glob("*.mcib"))


def keep(data: bytes) -> str:
    """Leaves an input where it can be looked at, under the name that libFuzzer gives it; says how it is run again."""
    FOUND.mkdir(parents=True, exist_ok=True)
    path = FOUND / f"crash-{hashlib.sha1(data).hexdigest()}"
    path.write_bytes(data)
    shown = path.relative_to(ROOT)
    return f"the input is in {shown}; again: make fuzz ARGS={shown}"


def mutate(name: str, each: int, seed: int, until: float | None = None) -> Counter[str]:
    """Checks mutants of one vector; counts what became of them."""
    mutants = hostile.Mutants((hostile.VECTORS / f"{name}.mcib").read_bytes(), IDENTITIES, recipients())
    rng = random.Random(f"{seed} {name}")
    became: Counter[str] = Counter()
    for _ in range(each):
        data = mutants.one(rng)
        try:
            refusal = hostile.refusal_of(data, IDENTITIES)
        except Exception as error:
            error.add_note(f"a mutant of {name}: {keep(data)}")
            raise
        kind = "damaged" if isinstance(refusal, BatchFormatError) else "sealed" if refusal else "read"
        became[kind] += 1
        if until is not None and time.monotonic() > until:
            break
    return became


def recipients() -> tuple[str, ...]:
    import pyrage

    return tuple(str(pyrage.x25519.Identity.from_str(key).to_public()) for key in IDENTITIES[:2])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vectors", nargs="*", metavar="VECTOR", help="names, without .mcib; all by default")
    parser.add_argument("--each", type=int, default=20_000, help="mutants of each vector")
    parser.add_argument("--seconds", type=float, help="stop after this time, whatever is left")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    until = None if options.seconds is None else time.monotonic() + options.seconds
    work = partial(mutate, each=options.each, seed=options.seed, until=until)
    chosen = options.vectors or names()
    became: Counter[str] = Counter()
    # A process of its own for each: `fork` would hand on what the parent holds, and with it the room that is left.
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), hostile.limit_memory) as pool:
        waiting = [pool.submit(work, name) for name in chosen]
        try:
            for done in as_completed(waiting):
                became += done.result()
        except Exception as error:
            pool.shutdown(wait=False, cancel_futures=True)
            traceback.print_exception(error)
            return 1
    print(
        f"{became.total()} mutants of {len(chosen)} vectors: "
        + ", ".join(f"{n} {k}" for k, n in sorted(became.items()))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
