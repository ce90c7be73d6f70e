"""Every default number: its unit is in its name, its reason stands beside it. Nothing here is read twice.

Options of the same name in the configuration file and in the constructors override these.
"""

from __future__ import annotations

# --- capture -----------------------------------------------------------------------------------------------
BUFFER_EVENTS = 65_536
"""Events waiting for the recorder before new ones are dropped and counted: 80 s of an 800/s pointer, about
10 MB of small objects at worst."""

DRAIN_MARK_EVENTS = 1_000
"""Buffered events that wake the recorder early: about one wake-up a second at 1 kHz, and 150 kB held."""

READ_INTERVAL_S, READ_INTERVAL_CAP_S = 0.1, 1.0
"""Sleep between two reads of input that carries its own times: 10 wake-ups a second while there is input. Beyond the
cap a display that died would be noticed late."""

WINDOW_INTERVAL_S = 1.0
"""A window that changes its title or place again is told of this often: a title may be a clock, or a turning wheel."""

SOURCE_START_TIMEOUT_S = 5.0
"""How long `start()` waits for a source to hear input; a display that takes longer does not answer."""

SOURCE_STOP_TIMEOUT_S = 0.5
"""How long `stop()` waits for a source's thread: two sources, the recorder and the uploader fit in 2 s."""

SOURCE_DRAIN_S = 0.2
"""How much of that a source waits for events that the system has seen and not yet handed over: 1 ms as a rule."""

RECONNECT_FIRST_S, RECONNECT_CAP_S = 0.1, 2.0
"""Wait before a lost display is tried again: doubles from the first to the cap, which keeps the promise to be
back within 5 s."""

RECONNECT_GIVE_UP_S, RECONNECT_IDLE_S = 600.0, 60.0
"""After ten minutes without a display (a session that ended) it is tried once a minute only."""

WATCH_INTERVAL_S, WATCH_WINDOW_S = 2.0, 30.0
"""A display that freezes says nothing, so it is asked for a reply this often, but only for this long after the
last event: an idle machine is never woken."""

FREEZE_S = 2.0
"""A reply that takes longer than this is a gap. A busy display answers in milliseconds."""

# --- session -----------------------------------------------------------------------------------------------
SESSION_CONNECT_S = 0.5
"""How long `start()` waits for each of the two buses; they answer within 10 ms. Two fit in a second."""

SESSION_ANSWER_S = 5.0
"""How long a bus may take for an answer later, in a thread that nobody waits for, before it counts as lost."""

SESSION_RETRY_FIRST_S, SESSION_RETRY_CAP_S = 1.0, 60.0
"""Wait before a lost bus is tried again: doubles from the first to the cap."""

SESSION_STOP_TIMEOUT_S = 0.5
"""How long `stop()` waits for the session's thread, which ends at once unless it is in the host's callback."""

# --- batch -------------------------------------------------------------------------------------------------
BATCH_MAX_EVENTS = 5_000
"""A batch closes at this many rows: what a crash may lose at most, together with the age."""

BATCH_EVENTS_CAP = 65_536
"""The format holds no more rows in a batch."""

BATCH_AGE_CAP_S = 86_400.0
"""A day: an older open batch is a loss that waits to happen."""

BATCH_BYTES_CAP = 2 * 1024 * 1024
"""Half of what a frame may have: titles that nothing compresses still fit."""

BATCH_MAX_AGE_S = 60.0
"""A batch closes this long after its first event: the other half of what a crash may lose."""

TICK_NS = 1_000_000
"""Event times are kept to 1 ms: X11 gives no finer ones, and finer ones double the size."""

ZSTD_LEVEL = 5
"""0.03 us of CPU per event, and within 4 % of level 19; 12 would take 0.13 us more for 3 %."""

BATCH_MAX_BYTES = 1024 * 1024
"""A batch closes when its rows may take this much before compression: long titles fill it before the rows do,
and it stays far below what a payload may have."""

SCROLL_MERGE_NS = 50_000_000
"""Scroll steps of the same direction at most this far apart become one row with a count: a free-spinning
wheel gives 1,500."""

WALL_STEP_NS = 1_000_000_000
"""A wall clock that has stepped by more than this closes the batch, so that each has one true anchor."""

FRAME_MAX_BYTES = 4 * 1024 * 1024
"""A frame larger than this is refused: 5,000 events take 50 kB even when nothing compresses."""

PAYLOAD_MAX_BYTES = 8 * 1024 * 1024
"""What a frame may decompress to, whatever it claims; no larger than the largest window (RFC 8878 recommends 8 MiB)."""

HEADER_MAX_BYTES = 64 * 1024
"""A header takes about 100 bytes, and 6 for each key that it is sealed to."""

RECIPIENTS_MAX = 32
"""Keys that one batch is sealed to: each costs 98 bytes in every batch, and two are usual."""

SEAL_HEADER_MAX_BYTES = 4 * 1024
"""Of the age file in a sealed batch: 32 keys take 3.4 KiB. pyrage reads a header in quadratic time, so that one
of 32 KiB would hold the process for 8 s; this one for 0.1 s at the worst."""

SEAL_TRIES = 24
"""age pads its header with 13 to 182 random bytes. Of so many tries (3.7 ms of CPU) the smallest is kept: 66 bytes
less on average, some 5 % of what a minute of office work takes."""

# --- spool -------------------------------------------------------------------------------------------------
SPOOL_MAX_BYTES = 50 * 1024 * 1024
"""Weeks of office work at 1-2 kB a minute. The oldest batch is evicted, and counted, beyond it."""

SPOOL_MAX_FILES = 20_000
"""Two weeks of one batch a minute; keeps the folder quick to list."""

SPOOL_MAX_AGE_S = 14 * 86_400.0
"""Two weeks without a receiver: a holiday. Older batches are evicted, and counted, at the next commit."""

SPOOL_MIN_FREE_BYTES = 64 * 1024 * 1024
"""With less than this free on the disk, old batches make room: the host needs it more."""

SPOOL_FULL_EVICT_RATIO = 0.1
"""Of the waiting batches, the part that a full disk costs before a batch stays in memory."""

SPOOL_CLOCK_GAP_CAP_S = 7 * 86_400.0
"""Most that batches age between two boots, whatever the wall clock says: a step of years evicts nothing."""

CONTROL_MAX_BYTES = 16 * 1024
"""Of one control record: 400 batch ids."""

BAD_MAX_BYTES, BAD_MAX_AGE_S = 1024 * 1024, 86_400.0
"""Of damaged or refused batches together, and how long each is kept for a look."""

BAD_MAX_FILES = 5
"""Damaged or refused batches kept for a look; older ones are removed."""

MEMORY_MAX_EVENTS = 40_000
"""Rows held in memory while the spool cannot be written, 6 MB or so; beyond it the oldest batch is lost and
counted."""

SPOOL_RETRY_S = 30.0
"""How often a spool that could not be written is tried again while batches wait in memory."""

# --- delivery ----------------------------------------------------------------------------------------------
UPLOAD_INTERVAL_S = 3_600.0
"""One upload an hour: a first request over TLS costs more than a minute's batch."""

UPLOAD_INTERVAL_CAP_S = 30 * 86_400.0
"""A month: the spool's own age and size limits come first."""

REQUEST_TIMEOUT_S = 10.0
"""For one request, connect and read each."""

REQUEST_MAX_BYTES = 1024 * 1024
"""Batches are put into one request up to this size."""

REQUEST_ATTEMPTS = 3
"""Attempts for one request in quick succession, before the outer schedule takes over."""

ATTEMPT_WAIT_FIRST_S, ATTEMPT_WAIT_CAP_S = 0.2, 5.0
"""Waits between those attempts: random up to a bound that doubles from the first to the cap."""

BACKOFF_FIRST_S, BACKOFF_CAP_S, BACKOFF_INTERVAL_RATIO = 30.0, 4 * 3_600.0, 0.75
"""After the n-th failed upload in a row the next comes at U(0, min(cap, first * 2^n)), where first is no less than this
part of the interval: a fleet of hourly agents that all come back within a minute is an outage of its own."""

RETRY_AFTER_CAP_S = 24 * 3_600.0
"""No server may silence a device for more than a day."""

RESPONSE_MAX_BYTES = 64 * 1024
"""Of an answer nothing beyond this is read."""

REJECTS_IN_A_ROW = 3
"""This many requests refused as bad in a row point to the set-up, not to the batches: stop and keep."""

HOLD_CAP_S = 7 * 86_400.0
"""Longest that batches may be held on the device for a look: half of what the spool keeps."""

FALLBACK_AGE_S, FALLBACK_AGE_CAP_S = 7 * 86_400.0, 365 * 86_400.0
"""A batch older than this goes out though the plan would wait: "metered for ever" must not mean "never"."""

REQUESTS_PER_WINDOW, REQUEST_WINDOW_S = 15, 60.0
"""No more requests than this in any such time, whatever goes wrong."""

RETRY_BUDGET_RATIO, RETRY_BUDGET_BURST = 0.1, 3
"""Attempts after the first are at most this part of all requests, and this many at once: a fleet that retries
everything three times triples an outage."""

GONE_WAIT_S = 86_400.0
"""After a receiver has said that the programme has ended, a restart asks it again no sooner."""

STOP_TIMEOUT_S = 2.0
"""`stop()` and the end of `mcilib run` take no longer than this."""

STOP_RESERVE_S = 0.5
"""Of that, kept for closing what the uploader used: it gets what capture and this leave of the 2 s."""

FLUSH_TIMEOUT_S = 10.0
"""How long `flush()` waits for the upload by default."""

# --- receiver ----------------------------------------------------------------------------------------------
RECEIVER_PORT = 8750
"""Free of registered services."""

RECEIVER_MAX_BODY_BYTES = 8 * 1024 * 1024
"""A request body beyond this is refused with 413 while it arrives."""

RECEIVER_DEVICE_REQUESTS, RECEIVER_DEVICE_WINDOW_S = 60, 60.0
"""Requests of one device in such a time; beyond it 429. The upload protocol promises a device 15."""

RECEIVER_RETENTION_DAYS_CAP = 36_500
"""A hundred years."""

# --- consent -----------------------------------------------------------------------------------------------
RETENTION_DAYS = 365
"""How long the operator may keep the data unless the grant says otherwise."""
