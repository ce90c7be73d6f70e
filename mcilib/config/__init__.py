"""One TOML file for everything that has an option.

`table` is the one place that lists them. From it come the reading of the file, the flags of the command line,
the JSON schema, the example file and the table in docs/reference/configuration.md.
"""

import os

from mcilib.config.option import Option, as_duration, parse_duration
from mcilib.config.table import OPTIONS, SECTIONS, Settings

__all__ = ["OPTIONS", "SECTIONS", "Option", "Settings", "as_duration", "load", "parse_duration"]


def load(path: str | os.PathLike[str]) -> Settings:
    """As `mcilib.config.read.load`; what reads TOML is imported when there is some to read."""
    from mcilib.config import read

    return read.load(path)
