"""Python runs this at its start when the folder is in PYTHONPATH, in a test's own process and in each that it starts."""

import os

if os.environ.get("MCILIB_DEAD"):
    import mutation

    mutation.install(os.environ["MCILIB_DEAD"])
