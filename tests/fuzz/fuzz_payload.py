"""Coverage-guided fuzzing of the decoder, below the checksum. `make fuzz` runs it.

    python tests/fuzz/fuzz_payload.py [--seconds 60] [INPUT...]

An input is the content of a payload (one MessagePack map), or a frame when it begins with `MCIB`. What must hold is in `hostile.check`:
either it is refused in words, or what is read can be written and reads the same again. With INPUT, only these files are run.
Where atheris is not installed the same checks are fed with blind mutations of the corpus. New inputs that reach new code
are kept in build/fuzz/corpus, and so is what an earlier run found.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORPUS = HERE / "corpus"
FOUND = ROOT / "build" / "fuzz"
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

try:
    import atheris
except ImportError:
    atheris = None

if atheris is None:
    import hostile
else:
    with atheris.instrument_imports(include=["mcilib"]):
        import hostile
from mutate import keep  # noqa: E402

IDENTITIES = hostile.vector_keys()
MAX_BYTES = 4_096
"""Of an input that is made: what small inputs reach is nearly all there is, and they are fast."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="*", type=Path, metavar="INPUT", help="run only these files")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    if options.inputs:
        for path in options.inputs:
            one_input(path.read_bytes())
        print(f"fuzz: {len(options.inputs)} inputs: what must hold does")
        return 0
    found = FOUND / "corpus"
    found.mkdir(parents=True, exist_ok=True)
    if atheris is None:
        return blindly(options.seconds)
    # libFuzzer ends the process itself: 0 when nothing was found.
    arguments = [
        f"-max_total_time={options.seconds}",
        f"-max_len={MAX_BYTES}",
        f"-artifact_prefix={FOUND}/",
        "-rss_limit_mb=512",
        "-timeout=20",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], *arguments, str(found), str(CORPUS)], one_input)
    atheris.Fuzz()
    return 0


def one_input(data: bytes) -> None:
    hostile.check(data, IDENTITIES)


def blindly(seconds: int) -> int:
    """Mutates the corpus without looking at coverage."""
    print("fuzz: atheris cannot be had for this Python; mutating the corpus without looking at coverage")
    corpus = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    seed = time.time_ns()
    rng, end, runs = random.Random(seed), time.monotonic() + seconds, 0
    hostile.limit_memory()
    while time.monotonic() < end:
        data = hostile.mutated(rng, rng.choice(corpus))
        try:
            one_input(data)
        except Exception:
            print(f"fuzz: {keep(data)}")
            raise
        runs += 1
    print(f"fuzz: {runs} inputs, seed {seed}: what must hold does")
    return 0


if __name__ == "__main__":
    sys.exit(main())
