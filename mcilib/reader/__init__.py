"""Reads batches back, from a file, a spool or a receiver's store: as rows, as tables, and as what a person did."""

from mcilib.reader.actions import Action as Action
from mcilib.reader.actions import Break as Break
from mcilib.reader.actions import Click as Click
from mcilib.reader.actions import Drag as Drag
from mcilib.reader.actions import KeyRun as KeyRun
from mcilib.reader.actions import Motion as Motion
from mcilib.reader.actions import Place as Place
from mcilib.reader.actions import Scrolling as Scrolling
from mcilib.reader.arrow import arrow_schema as arrow_schema
from mcilib.reader.arrow import read_arrow as read_arrow
from mcilib.reader.arrow import to_arrow as to_arrow
from mcilib.reader.arrow import write_parquet as write_parquet
from mcilib.reader.events import Reader as Reader
from mcilib.reader.events import Row as Row
from mcilib.reader.export import Exported as Exported
from mcilib.reader.export import write_jsonl as write_jsonl
from mcilib.reader.path import PointerPath as PointerPath
from mcilib.reader.timeline import Boot as Boot
from mcilib.reader.timeline import ClockStep as ClockStep
from mcilib.reader.timeline import Hole as Hole
from mcilib.reader.timeline import Segment as Segment
from mcilib.reader.timeline import Totals as Totals
from mcilib.reader.timeline import coverage as coverage
from mcilib.reader.timeline import timeline as timeline
from mcilib.reader.trajectory import trajectory as trajectory
from mcilib.reader.trajectory import write_trajectory as write_trajectory
