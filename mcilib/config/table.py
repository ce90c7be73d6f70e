"""The table of all options: section, key, type, range, default, flag and one sentence each."""

# ruff: noqa: RUF009  (`_option` returns a dataclass field, which the rule cannot see)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mcilib import limits
from mcilib.config.option import DAY_S, Option
from mcilib.consent import SCOPES
from mcilib.format.metadata import QUANTA_MAX_PER_PX
from mcilib.privacy import KeyDetail

SOURCES = tuple(dict.fromkeys(source for scope in SCOPES.values() for source in scope.sources))
KEY_DETAILS = tuple(detail.name.lower() for detail in KeyDetail)
WINDOW_DETAILS = ("app", "title")
POLICIES = ("battery", "network", "saver", "thermal", "cpu")
BACKENDS = ("auto", "xrecord", "pynput")
_MIB = 1024 * 1024


_METAVARS = {
    "path": "FILE", "text": "TEXT", "choice": "NAME", "names": "NAMES", "duration": "TIME", "seconds": "TIME",
    "count": "N", "bytes": "BYTES", "number": "N", "texts": "TEXTS",
}  # fmt: skip


def _option(kind: str, words: str, default: Any = None, **more: Any) -> Any:
    return field(
        default=default,
        metadata={"option": Option(kind, words, default=default, **{"metavar": _METAVARS[kind], **more})},
    )


def _window(text: str) -> object:
    from mcilib.policy.hours import Window  # for a file that has some: it takes 20 ms to import

    return Window.parse(text)


def _rule(text: str) -> object:
    from mcilib.policy.rules import Rule

    return Rule.parse(text)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What is captured, and where this device keeps it."""

    state: Path | None = _option(
        "path", "Folder of the grant and of the batches that wait.", flag="--state", metavar="DIR",
        fallback="MCILIB_STATE, else the platform's place",
    )  # fmt: skip
    sources: tuple[str, ...] | None = _option(
        "names", "What to capture; each needs its scope in the grant.", choices=SOURCES, flag="--sources",
        fallback="all that the grant covers",
    )  # fmt: skip
    key_detail: str = _option(
        "choice", "How much of a key is kept; never the typed character.", "class", choices=KEY_DETAILS,
        flag="--key-detail", metavar="DETAIL",
    )  # fmt: skip
    window_detail: str = _option(
        "choice", "How much of the window in use is kept; title needs the scope titles.", "app",
        choices=WINDOW_DETAILS, flag="--window-detail", metavar="DETAIL",
    )  # fmt: skip
    backend: str = _option(
        "choice", "What input is heard with; auto is xrecord on X11 and pynput elsewhere.", "auto", choices=BACKENDS,
    )  # fmt: skip
    read_interval_s: float = _option(
        "seconds", "Time between two reads of input with xrecord; each event keeps its own time.",
        limits.READ_INTERVAL_S, low=0, high=limits.READ_INTERVAL_CAP_S,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """When a batch closes. A crash loses at most the open batch."""

    max_events: int = _option(
        "count",
        "A batch closes at this many rows.",
        limits.BATCH_MAX_EVENTS,
        low=1,
        high=limits.BUFFER_EVENTS,
    )
    max_bytes: int = _option(
        "bytes", "A batch closes when its rows may take this much before compression.",
        limits.BATCH_MAX_BYTES, low=4096, high=limits.BATCH_BYTES_CAP,
    )  # fmt: skip
    max_age_s: float = _option(
        "seconds", "A batch closes this long after its first event.", limits.BATCH_MAX_AGE_S,
        low=1, high=3600, flag="--commit-every",
    )  # fmt: skip
    quanta_per_px: int = _option(
        "count", "Steps per pixel that coordinates are kept to; 256 where the system gives fractions.", 1,
        low=1, high=QUANTA_MAX_PER_PX,
    )  # fmt: skip
    zstd_level: int = _option(
        "count", "Effort of the compression: higher is smaller and costs more CPU.", limits.ZSTD_LEVEL,
        low=1, high=19,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SealSettings:
    """Who can open the batches. They are sealed before they touch the disk; without a key they are in clear."""

    recipients_file: Path | None = _option(
        "path", "File of age public keys to seal to, one a line; read again for each batch.",
        flag="--recipients", fallback="in clear",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """How much may wait on this device. Beyond it the oldest batch is evicted and counted as lost."""

    max_bytes: int = _option(
        "bytes", "All waiting batches together.", limits.SPOOL_MAX_BYTES, low=_MIB, high=1024 * 1024 * _MIB
    )
    max_files: int = _option(
        "count", "Number of waiting batches.", limits.SPOOL_MAX_FILES, low=1, high=1_000_000
    )
    max_age_s: float = _option(
        "seconds", "An older batch is evicted: so long may it wait for a receiver.", limits.SPOOL_MAX_AGE_S,
        low=3600, high=365 * DAY_S,
    )  # fmt: skip
    min_free_bytes: int = _option(
        "bytes", "While the disk has less free (at most a tenth of it), old batches make room.",
        limits.SPOOL_MIN_FREE_BYTES, low=0, high=1024 * 1024 * _MIB,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """Where batches go, and how often."""

    endpoint: str | None = _option(
        "text",
        "Where to: https (a receiver; http on loopback), file:///FOLDER or s3://BUCKET/PREFIX.",
        flag="--endpoint",
        metavar="URL",
        fallback="`run` needs it",
    )
    interval_s: float = _option(
        "seconds",
        "Time between uploads.",
        limits.UPLOAD_INTERVAL_S,
        low=1,
        high=7 * DAY_S,
        flag="--upload-every",
    )
    token_file: Path | None = _option(
        "path", "File whose first line is the token for the receiver; read again for each request.",
        flag="--token-file", fallback="no token",
    )  # fmt: skip
    ca_file: Path | None = _option(
        "path", "File of certificates (PEM) to trust instead of the system's.", flag="--ca-file",
        fallback="the system's",
    )  # fmt: skip
    client_cert: Path | None = _option(
        "path", "Certificate (PEM) by which this device shows who it is.", flag="--client-cert", fallback="none",
    )  # fmt: skip
    client_key: Path | None = _option(
        "path", "Its key (PEM), when it is not in the same file.", flag="--client-key", fallback="none",
    )  # fmt: skip
    proxy: str | None = _option(
        "text", "Proxy for https, http://[USER:PASSWORD@]HOST:PORT; empty: none.", flag="--proxy", metavar="URL",
        fallback="by HTTPS_PROXY and NO_PROXY",
    )  # fmt: skip
    timeout_s: float = _option(
        "seconds", "For one request: connecting, and waiting for the answer.", limits.REQUEST_TIMEOUT_S,
        low=1, high=300,
    )  # fmt: skip
    max_request_bytes: int = _option(
        "bytes", "Batches are put into one request up to this size.", limits.REQUEST_MAX_BYTES,
        low=16 * 1024, high=limits.RECEIVER_MAX_BODY_BYTES,
    )  # fmt: skip
    hold_s: float = _option(
        "seconds", "Batches rest on this device for so long before they go, for a look.", 0.0,
        low=0, high=limits.HOLD_CAP_S, flag="--hold",
    )  # fmt: skip
    fallback_age_s: float = _option(
        "seconds", "An older batch goes though battery or network would keep it back.", limits.FALLBACK_AGE_S,
        low=0, high=limits.FALLBACK_AGE_CAP_S,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdaptSettings:
    """What is lowered when the machine has little to spare."""

    policies: tuple[str, ...] = _option(
        "names", "Which policies hold.", POLICIES, choices=POLICIES, may_be_empty=True,
    )  # fmt: skip
    battery_low: float = _option(
        "number", "On battery below this part of full no data is sent, until it is 0.05 above.",
        limits.BATTERY_LOW_RATIO, low=0, high=1,
    )  # fmt: skip
    cpu_budget: float = _option(
        "number", "What mcilib may take of one processor core.", limits.CPU_BUDGET_RATIO,
        low=limits.CPU_BUDGET_LOW_RATIO, high=1,
    )  # fmt: skip
    saver_tolerance_px: float = _option(
        "number", "In power saver the pointer's path is kept within so many pixels.", limits.SAVER_TOLERANCE_PX,
        low=0, high=limits.TOLERANCE_CAP_PX,
    )  # fmt: skip
    metered_bytes_per_hour: int = _option(
        "bytes", "Data that may go in an hour over a network that is paid for by the byte; 0: none.",
        limits.METERED_BYTES_PER_HOUR, low=0, high=limits.METERED_BYTES_PER_HOUR_CAP, flag="--metered-bytes",
    )  # fmt: skip
    quiet_hours: tuple[str, ...] | None = _option(
        "texts", "When no data is sent, in local time.", check=_window, may_be_empty=True,
        flag="--quiet-hours", metavar="[DAYS] HH:MM-HH:MM", fallback="never",
    )  # fmt: skip
    rules: tuple[str, ...] | None = _option(
        "texts", "Rules of your own.", check=_rule, may_be_empty=True, metavar="CONDITION: LEVER VALUE",
        fallback="none",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ConsentSettings:
    """What the operator allows and requires."""

    pause_cap_s: float = _option(
        "seconds", "Longest pause that a participant may take at once.", limits.PAUSE_CAP_S,
        low=limits.PAUSE_CAP_S, high=limits.PAUSE_LONGEST_CAP_S, flag="--longest-pause",
    )  # fmt: skip
    policy_file: Path | None = _option(
        "path", "Text file with the policy that a grant must be for; `mcilib grant` shows it, `run` refuses another.",
        fallback="any",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """The receiver (`mcilib receive`)."""

    host: str = _option(
        "text",
        "Address to listen on; other than loopback needs a token and TLS.",
        "127.0.0.1",
        flag="--host",
        metavar="ADDRESS",
    )
    port: int = _option(
        "count",
        "Port to listen on; 0 takes a free one.",
        limits.RECEIVER_PORT,
        low=0,
        high=65_535,
        flag="--port",
    )
    token_file: Path | None = _option(
        "path", "File whose first line is the token that agents must send.", flag="--token-file",
        fallback="no token",
    )  # fmt: skip
    operator_token_file: Path | None = _option(
        "path", "File whose first line is the token of who decides exemptions over HTTP; not that of agents.",
        flag="--operator-token-file", fallback="none can",
    )  # fmt: skip
    tls_cert: Path | None = _option(
        "path", "Certificate chain (PEM).", flag="--tls-cert", fallback="plain HTTP on loopback"
    )
    tls_key: Path | None = _option("path", "Key of the certificate (PEM).", flag="--tls-key", fallback="none")
    max_body_bytes: int = _option(
        "bytes", "A larger request is refused while it arrives.", limits.RECEIVER_MAX_BODY_BYTES,
        low=1024, high=1024 * _MIB,
    )  # fmt: skip
    device_requests: int = _option(
        "count", "Requests of one device at once and in each minute; more get 429.",
        limits.RECEIVER_DEVICE_REQUESTS, low=1, high=1_000_000, flag="--device-requests",
    )  # fmt: skip
    retention_days: int | None = _option(
        "count", "Days of receipt that are older are removed, at the start and daily.",
        low=1, high=limits.RECEIVER_RETENTION_DAYS_CAP, flag="--retention-days", fallback="all are kept",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class GrantSettings:
    """What the participant is asked to agree to (`mcilib grant`)."""

    operator: str | None = _option(
        "text", "Who collects.", flag="--operator", metavar="NAME", fallback="must be given"
    )
    purpose: str | None = _option("text", "What for.", flag="--purpose", fallback="must be given")
    scope: tuple[str, ...] | None = _option(
        "names",
        "What may be collected.",
        choices=tuple(SCOPES),
        flag="--scope",
        metavar="SCOPES",
        fallback="must be given",
    )
    policy: Path | None = _option(
        "path",
        "Text file with the policy that is agreed to.",
        flag="--policy",
        fallback="a short text of our own",
    )
    language: str | None = _option(
        "text",
        "Language of the policy, and of the words around it where mcilib has it.",
        flag="--language",
        metavar="TAG",
        fallback="yours for the text of our own, else en",
    )
    expires: float | None = _option(
        "duration",
        "When the grant ends by itself.",
        low=1,
        high=3650 * DAY_S,
        flag="--expires",
        fallback="never",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All options, each with its default. `mcilib.config.load` reads them from a file."""

    agent: AgentSettings = AgentSettings()
    batch: BatchSettings = BatchSettings()
    seal: SealSettings = SealSettings()
    spool: SpoolSettings = SpoolSettings()
    upload: UploadSettings = UploadSettings()
    adapt: AdaptSettings = AdaptSettings()
    consent: ConsentSettings = ConsentSettings()
    receiver: ReceiverSettings = ReceiverSettings()
    grant: GrantSettings = GrantSettings()

    def override(self, values: Mapping[str, Any]) -> Settings:
        """A copy with `values` (by "section.key", already accepted) in place of its own."""
        by_section: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            section, _, key = name.partition(".")
            by_section.setdefault(section, {})[key] = value
        return replace(self, **{s: replace(getattr(self, s), **keys) for s, keys in by_section.items()})


_DEFAULTS = Settings()

#: section -> its sentence, in the order of the file.
SECTIONS: Mapping[str, str] = {
    f.name: str(type(getattr(_DEFAULTS, f.name)).__doc__) for f in fields(Settings)
}

#: "section.key" -> option, in the order of the file.
OPTIONS: Mapping[str, Option] = {
    f"{s}.{f.name}": replace(f.metadata["option"], section=s, key=f.name)
    for s in SECTIONS
    for f in fields(getattr(_DEFAULTS, s))
}
