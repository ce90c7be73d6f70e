"""Computer-use events from people who agreed to it, batched and delivered.

The file list is the path of the data::

    sources -> consent (gate) -> format (batch) -> delivery (spool, uploader) ==> receiver -> reader

`import mcilib` loads this module only: every public name is imported when it is first used, and nothing
starts before `Collector.start`.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

TYPE_CHECKING = False  # as typing's, which takes 8 ms to import; type checkers know the name

if TYPE_CHECKING:
    from mcilib.collector import Collector as Collector
    from mcilib.collector import FlushResult as FlushResult
    from mcilib.consent import Grant as Grant
    from mcilib.delivery.folder import FolderTransport as FolderTransport
    from mcilib.delivery.http import HttpTransport as HttpTransport
    from mcilib.delivery.objectstore import ObjectStoreTransport as ObjectStoreTransport
    from mcilib.delivery.objectstore import S3Credentials as S3Credentials
    from mcilib.delivery.spool import DirectorySpool as DirectorySpool
    from mcilib.delivery.uploader import Uploader as Uploader
    from mcilib.errors import BatchFormatError as BatchFormatError
    from mcilib.errors import ConfigError as ConfigError
    from mcilib.errors import ControlError as ControlError
    from mcilib.errors import DeliveryError as DeliveryError
    from mcilib.errors import DisplayError as DisplayError
    from mcilib.errors import GrantError as GrantError
    from mcilib.errors import McilibError as McilibError
    from mcilib.errors import NoAgent as NoAgent
    from mcilib.errors import SealError as SealError
    from mcilib.errors import SourceError as SourceError
    from mcilib.errors import SpoolError as SpoolError
    from mcilib.errors import StoreError as StoreError
    from mcilib.errors import TraceError as TraceError
    from mcilib.events import Display as Display
    from mcilib.events import Event as Event
    from mcilib.events import Focus as Focus
    from mcilib.events import Gap as Gap
    from mcilib.events import KeyPress as KeyPress
    from mcilib.events import KeyRelease as KeyRelease
    from mcilib.events import Layout as Layout
    from mcilib.events import Move as Move
    from mcilib.events import Press as Press
    from mcilib.events import Release as Release
    from mcilib.events import Scroll as Scroll
    from mcilib.privacy import KeyDetail as KeyDetail
    from mcilib.reader import Reader as Reader
    from mcilib.recorder import Recorder as Recorder
    from mcilib.sources.display import DisplaySource as DisplaySource
    from mcilib.sources.keyboard import KeyboardSource as KeyboardSource
    from mcilib.sources.pointer import PointerSource as PointerSource
    from mcilib.sources.replay import ReplaySource as ReplaySource
    from mcilib.sources.window import WindowSource as WindowSource
    from mcilib.statistics import Health as Health
    from mcilib.statistics import Statistics as Statistics

_MODULE_OF = {
    "Collector": "collector",
    "FlushResult": "collector",
    "Grant": "consent",
    "HttpTransport": "delivery.http",
    "FolderTransport": "delivery.folder",
    "ObjectStoreTransport": "delivery.objectstore",
    "S3Credentials": "delivery.objectstore",
    "DirectorySpool": "delivery.spool",
    "Uploader": "delivery.uploader",
    "BatchFormatError": "errors",
    "ConfigError": "errors",
    "ControlError": "errors",
    "DeliveryError": "errors",
    "DisplayError": "errors",
    "GrantError": "errors",
    "McilibError": "errors",
    "NoAgent": "errors",
    "SealError": "errors",
    "SourceError": "errors",
    "SpoolError": "errors",
    "StoreError": "errors",
    "TraceError": "errors",
    "Display": "events",
    "Event": "events",
    "Focus": "events",
    "Gap": "events",
    "KeyPress": "events",
    "KeyRelease": "events",
    "Layout": "events",
    "Move": "events",
    "Press": "events",
    "Release": "events",
    "Scroll": "events",
    "KeyDetail": "privacy",
    "Reader": "reader",
    "Recorder": "recorder",
    "DisplaySource": "sources.display",
    "KeyboardSource": "sources.keyboard",
    "PointerSource": "sources.pointer",
    "ReplaySource": "sources.replay",
    "WindowSource": "sources.window",
    "Health": "statistics",
    "Statistics": "statistics",
}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> object:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module 'mcilib' has no attribute {name!r}") from None
    value: object = getattr(import_module(f"mcilib.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
