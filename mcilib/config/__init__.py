"""One TOML file for everything that has an option.

`table` is the one place that lists them. From it come the reading of the file, the flags of the command line,
the JSON schema, the example file and the table in docs/reference/configuration.md.
"""

from mcilib.config.option import Option, as_duration, parse_duration
from mcilib.config.read import load
from mcilib.config.table import OPTIONS, SECTIONS, Settings

__all__ = ["OPTIONS", "SECTIONS", "Option", "Settings", "as_duration", "load", "parse_duration"]
