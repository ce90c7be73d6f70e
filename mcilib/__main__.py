"""`python -m mcilib`: the same as the command `mcilib`."""

import sys

from mcilib.cli import main

if __name__ == "__main__":
    sys.exit(main())
