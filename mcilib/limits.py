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

# --- buses of the system -------------------------------------------------------------------------------------
BUS_CONNECT_S = 0.5
"""How long `start()` waits for each bus and those it asks there; they answer within 10 ms. Two fit in a second."""

BUS_ANSWER_S = 5.0
"""How long an answer may take later, in a thread that nobody waits for, before who owes it counts as lost."""

BUS_RETRY_FIRST_S, BUS_RETRY_CAP_S = 1.0, 60.0
"""Wait before a lost bus is tried again: doubles from the first to the cap."""

BUS_STOP_TIMEOUT_S = 0.5
"""How long `stop()` waits for the thread of a watch, which ends at once unless it is in the host's callback."""

# --- consent -------------------------------------------------------------------------------------------------
PAUSE_S, PAUSE_CAP_S, PAUSE_LONGEST_CAP_S = 900.0, 1_800.0, 86_400.0
"""A pause without a duration; the longest one by default, 30 minutes; and the longest that an operator may allow."""

NOTE_TIMEOUT_S, LINE_TIMEOUT_S = 0.8, 0.2
"""How long a note of the desktop may take, and how long a terminal that takes no line is waited for: a second together.
A note is shown after 10 ms; 0.1 s when the service of notes has to be started first."""

RESUMED_TIMEOUT_S = 3.0
"""How long the answer to `mcilib resume` waits until the participant was told and the sources hear: a note and a line
that take their time, and a source that starts in 0.1 s; the command waits 15 s for it."""

NOTICE_PART_MAX_CHARS = 120
"""Of who collects, and of what for, in a note: two lines of it."""

PAUSE_LOOK_S = 60.0
"""While something is to begin again by itself, how often at least it is looked whether it may: a machine that slept
meanwhile goes on at most so much later than promised. 30 wake-ups in the longest pause."""

EXEMPT_APP_MAX_BYTES, EXEMPT_PARTS_MAX = 128, 32
"""Of one program's name in an exemption; of programs or hours in one. A request of a screen's length fits."""

EXEMPTION_NOTE_MAX_BYTES = 2_000
"""A screen full of text: it fits into a control record with all the rest."""

EXEMPTIONS_MAX = 100
"""Kept on the device; those that are over go first."""

CONTROLS_MAX_BYTES = 4 * 1024 * 1024
"""Of what the participant has decided: 100 exemptions with the longest notes, answers and names, written in ASCII, take
2.5 MB."""

ASKED_MAX_BYTES = 2_000
"""Of a question put to the participant: a screen full of text."""

JOURNAL_MAX_BYTES = 16 * 1024 * 1024
"""Of the batch journal: some 80,000 batches, half a year of office work. Beyond it the older half goes."""

DELETE_IDS_MAX = 450
"""Batches that one control record asks to delete: 35 bytes each, within `CONTROL_MAX_BYTES`."""

EXEMPTION_CAP_S = 3_650 * 86_400.0
"""An exemption that ends ends within ten years, as a grant does."""

FORGET_CAP_S = 30 * 86_400.0
"""How far back `forget` reaches: beyond it is `withdraw`."""

EXCLUSION_EDGE_S = 0.5
"""So close to a program that is exempt, before and after, nothing is kept: a window manager tells of a new window some
5 to 100 ms late, and who saw it types on."""

FOCUS_TOLD_S = 1.5
"""So late at most a window source tells of another window: it reads once a second at the least often, and a busy
machine takes half of one more. Until then, while a program is exempt, events wait."""

FOCUS_HISTORY = 1_000
"""Changes of the window in use that are remembered while a program is exempt: hours of work. What is older is taken to
have been near one."""

# --- control channel -----------------------------------------------------------------------------------------
CHANNEL_MESSAGE_MAX_BYTES, CHANNEL_DEPTH_MAX = 64 * 1024, 16
"""Of one request or answer: a note of a screen's length takes 2 kB, a hundred exemptions 40. Nothing in it is nested
deeper than five."""

CHANNEL_PROVE_S = 1.0
"""So long a connection may take to prove that it knows the secret: two short messages, 1 ms as a rule."""

CHANNEL_UNPROVEN_MAX = 64
"""Connections that have not proven it yet; one more, and the oldest is closed. 4 MiB at the very worst."""

CHANNEL_ACCEPT_AT_ONCE, CHANNEL_BACKLOG = 16, 128
"""New connections taken in one go, between looks at those that are there; and those that the system lets wait."""

CHANNEL_REQUESTS_MAX = 16
"""Commands carried out at the same time, each in a thread of its own; one more is refused. A person gives one."""

CHANNEL_REST_S = 1.0
"""Where the process has no file descriptor left for a new connection, it is tried again so much later."""

CHANNEL_TIMEOUT_S = 10.0
"""How long who asks waits for the answer by default: that is milliseconds, and a flush's own time-out."""

CHANNEL_TRIES, CHANNEL_TRY_WAIT_S = 5, 0.02
"""How often who asks tries again when it was hung up on before it said anything, and how long it waits for that: its
place was taken by others, or the agent ends just now."""

CHANNEL_STOP_TIMEOUT_S = 0.5
"""How long `stop()` waits for the channel's thread and for commands that are carried out."""

# --- resources -----------------------------------------------------------------------------------------------
NETWORK_DEVICES_MAX = 64
"""Of so many devices NetworkManager is asked whether it manages them. The machine's own come first in its list, those
of containers, of which there may be thousands, after them."""

LOOK_INTERVAL_S = 60.0
"""What no service tells (free disk, heat, a battery without UPower) is looked up at most this often, by whoever is
awake: it changes slowly, and a look costs about a millisecond."""

DISCHARGE_CAP_W = 1_000.0
"""No battery of a computer gives more; a driver that says so is not believed."""

TRIP_LEAST_C, TRIP_CAP_C = 40.0, 150.0
"""Trip points outside of this are placeholders of firmware (0, -273, 255) and not believed."""

CRITICAL_MARGIN_C = 5.0
"""So near to its critical trip point, at which the kernel switches it off, a machine counts as about to."""

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

# --- plan --------------------------------------------------------------------------------------------------
TOLERANCE_CAP_PX = 1024.0
"""Half a usual screen: beyond it a path says nothing."""

TICK_CAP_NS = 1_000_000_000
"""A second: beyond it the order of a click and a key would be all that is left of time."""

REST_NS = 100_000_000
"""Between two rows of the pointer that are further apart it rests; nearer ones are joined by a straight line."""

PULSE_S, PULSE_WINDOW_S = 1.0, 8.0
"""While there is input, what the library takes of a core is measured over this long or longer, in two samples at least
of which the costliest does not count. A sample longer than the second says nothing."""

PULSE_SAMPLE_S, PULSE_EVENTS, PULSE_LIGHT_S = 0.25, 200, 1.5
"""A sample is as long as the first and has so many events, or it is as long as the last. It costs 50 to 90 us, which on
battery, four times a second whatever comes, would be a sixth of all."""

PLAN_HISTORY = 20
"""Changes of the plan that are remembered: about two working days of them."""

BATTERY_LOW_RATIO, BATTERY_BAND_RATIO = 0.15, 0.05
"""Below the first a battery is low; it is so until it has risen by the second: a reading that wavers by a
point or two changes nothing. Systems warn between 10 and 20 %."""

BATTERY_READ_INTERVAL_S = 0.75
"""On battery: at most 1.3 reads a second instead of 10. Twenty minutes of work cost 0.22 of what a bare listener takes
at 0.25 s and 0.13 at 0.5 s: each wake-up costs 150 to 250 us, whatever it reads."""

FRUGAL_BATCH_AGE_S = 300.0
"""On battery and in power saver: a fifth of the flushes of the disk. A crash may lose so much."""

SAVER_READ_INTERVAL_S = 1.0
"""In power saver, and when it is hot: one wake-up a second."""

SAVER_TOLERANCE_PX = 8.0
"""Half of a small icon (16 px): what was pointed at stays clear. At 1 kHz a path within 8 px took 0.1 bytes
an event."""

METERED_BYTES_PER_HOUR, METERED_BYTES_PER_HOUR_CAP = 0, 1024 * 1024 * 1024
"""Nothing on a network that is paid for by the byte unless somebody allows it. 300 KiB are more than
two hours of office work at 1-2 kB a minute."""

CPU_BUDGET_RATIO, CPU_BUDGET_LOW_RATIO = 0.02, 0.001
"""Of one core, over a second: about twice what input at 1 kHz costs, so that it holds only against what was
not foreseen. The second is the least that may be asked for: a tenth of that input."""

CPU_LADDER_READ_S = (0.25, 0.25, 0.5, 0.5, 0.5)
CPU_LADDER_TOLERANCE_PX = (4.0, 16.0)
CPU_LADDER_COST_RATIO = (0.8, 0.7, 0.6, 0.55, 0.2)
"""The steps below the full plan: longer reads, a path within 4 and within 16 px, where the pointer rested,
no motion; and what each costs of what the full plan costs, measured at 1 kHz (0.80, 0.68, 0.60, 0.61, 0.16; at
125 Hz 0.57, 0.61, 0.45, 0.42, 0.35). Wrong by 1.4 it still settles at once, see decision 0019."""

CPU_AIM_RATIO, CPU_CALM_RATIO = 0.9, 0.7
"""Of the budget: what a step down aims at, and what the next step up must be thought to cost at most.
Between them lies the room for noise."""

CPU_SETTLE_S = 0.7
"""After a step what was measured so soon holds too much of what was before. The next measurement, a second
later, counts: to wait for one more would let a load that trebles stay above the budget by more than half
over 5 s."""

CPU_HOLD_FIRST_S, CPU_HOLD_CAP_S = 60.0, 3_600.0
"""So long it must have been calm, in time with input, before a step up; doubled by each one that had to be
taken back: at most one in the three minutes after a load has changed, and no more than one an hour in the
end."""

CPU_SAMPLE_CAP_S = 3.0
"""Of the time between two measurements no more counts as calm: the rest was without input."""

PLAN_DUE_CAP_S = 900.0
"""Where the time of the day counts, it is looked at once in so long at least: a machine that slept does not notice
that a window has ended, since the clock of its timers stood still. Nothing wakes for it where it does not."""

POLICY_DUE_MIN_S, POLICY_DUE_CAP_S = 1.0, 7 * 86_400.0
"""A policy that wants to be asked again at once would keep the machine awake; a week is the longest of a
weekly window."""

RULE_MAX_CHARACTERS = 200
"""A rule's text is the reason that travels with a batch, which has room for 256 bytes."""

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

REQUESTS_TIMEOUT_S = 3.0
"""How long `start()` sends what was asked of the receiver before it says that the grant is void: a request or two on a
slow line, while the host waits. `stop()` of the uploader comes on top, 0.5 s."""

FLUSH_TIMEOUT_S = 10.0
"""How long `flush()` waits for the upload by default."""

# --- impact ------------------------------------------------------------------------------------------------
LEDGER_DAYS = 31
"""Days kept one by one, today among them: a month to look back on, 7 KiB at most."""

LEDGER_WAIT_S = 0.1
"""For another thread that writes the impact file: it takes a millisecond, or the disk hangs."""

LEDGER_SAVE_S = 600.0
"""How often the ledger is written while somebody is awake: 40 KiB an hour at most, unflushed. A crash loses so much
of the accounting and nothing else."""

MACHINE_MEASURE_S = 1_200.0
"""Two readings of the machine's energy further apart are not compared: a RAPL counter of 262 kJ turns over once in 29
minutes at 150 W."""

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
