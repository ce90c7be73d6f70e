"""Reads batches back, from a file, a spool or a receiver's store: as rows in order of time, or exported."""

from mcilib.reader.events import Reader as Reader
from mcilib.reader.events import Row as Row
from mcilib.reader.export import Exported as Exported
from mcilib.reader.export import write_jsonl as write_jsonl
from mcilib.reader.export import write_parquet as write_parquet
