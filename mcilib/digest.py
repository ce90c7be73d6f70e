"""SHA-256 without OpenSSL: `hashlib` maps its 3.4 MiB into a process that digests a few hundred bytes a minute.

The interpreter's own implementation has another name in each release, and some builds leave it out: then it is that of
`hashlib` after all.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = ("_sha2", "_sha256", "hashlib")  # from Python 3.12 on, before, any


def _find() -> Any:
    for name in _MODULES[:-1]:
        try:
            return import_module(name).sha256
        except (ImportError, AttributeError):
            continue
    return import_module(_MODULES[-1]).sha256


_new = _find()


def sha256(data: bytes) -> bytes:
    """32 bytes. Any thread."""
    return bytes(_new(data).digest())
