"""The reference receiver: takes batches over HTTP, writes them durably, then gives the receipt.

`create_app` is the ASGI application, `serve` runs it, `FolderStore` or `ObjectStore` is where it keeps batches.
The protocol is `docs/spec/upload-protocol.md`. Needs the extra (`pip install 'mcilib[receiver]'`, for object
stores `'mcilib[receiver,s3]'`), loaded at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcilib.receiver.exemptions import Asked, Decided, ExemptionStore
from mcilib.receiver.folder import FolderStore
from mcilib.receiver.object_store import ObjectStore

# Not lazy, since module and function share a name and the import system would put the module here later.
from mcilib.receiver.serve import serve
from mcilib.receiver.store import BatchStore, Deletion

if TYPE_CHECKING:
    from mcilib.receiver.app import create_app as create_app

__all__ = [
    "create_app",
    "serve",
    "Asked",
    "BatchStore",
    "Decided",
    "Deletion",
    "ExemptionStore",
    "FolderStore",
    "ObjectStore",
]


def __getattr__(name: str) -> Any:
    if name != "create_app":
        raise AttributeError(f"module 'mcilib.receiver' has no attribute {name!r}")
    from mcilib.receiver.app import create_app

    globals()[name] = create_app
    return create_app
