"""Which tests must notice that an option or control does nothing: mutant (see `mutation.py`) -> tests. Where the command
line only hands an option on, one test shows that it does, and those of the next mutant what comes of it."""

from __future__ import annotations

from mutation import NOT_OF_A_FOLDER

_RUN = "tests/cli/test_run_options.py"
_RUNS = "tests/cli/test_run.py"
_RECEIVE = "tests/cli/test_receive.py"
_GRANT = "tests/cli/test_grant_and_status.py"
_COLLECTOR = "tests/capture/test_collector.py"
_ADAPTS = "tests/capture/test_adaptation.py"
_SPOOL = "tests/delivery/test_spool_limits.py"
_UPLOADER = "tests/delivery/test_uploader.py"
_HTTP = "tests/delivery/test_http_way.py"
_S3 = "tests/delivery/test_objectstore.py"
_SOURCES = "tests/sources/test_options_reach.py"


def _handed_on(test: str, *names: str) -> dict[str, tuple[str, ...]]:
    return {name: (f"{_RUN}::{test}[{name}-file]",) for name in names}


def _control(command: str, *rows: str) -> dict[str, tuple[str, ...]]:
    """A control, asked for in each way; `rows` are those of `tests/support/controls.py` that play it."""
    tests = {"api": "test_api", "running": "test_command_line", "folder": "test_without_an_agent"}
    return {
        f"{command}@{way}": tuple(
            f"tests/proof/test_controls_table.py::{test}[{row}]" for row in rows or (command,)
        )
        for way, test in tests.items()
        if way != "folder" or command not in NOT_OF_A_FOLDER
    }


def _clock_and_interval(cls: str) -> dict[str, tuple[str, ...]]:
    return {
        f"{cls}(clock)": (f"{_SOURCES}::test_times_are_those_of_the_clock[pynput-{cls}]",),
        f"{cls}(read_interval_s)": (f"{_SOURCES}::test_the_read_interval_is_kept[xrecord-{cls}]",),
    }


ASSIGNED: dict[str, tuple[str, ...]] = {
    # --- the table of options, as the command line reads it ---
    **_handed_on(
        "test_options_of_the_collector",
        "agent.state", "batch.max_events", "batch.max_bytes", "batch.max_age_s", "batch.quanta_per_px",
        "batch.zstd_level", "spool.max_bytes", "spool.max_files", "spool.max_age_s", "spool.min_free_bytes",
        "upload.interval_s", "upload.max_request_bytes", "upload.hold_s", "upload.fallback_age_s",
    ),
    **{
        name: (f"{_RUN}::test_options_of_the_transport[drain0-{name}-file]",)
        for name in (
            "upload.endpoint", "upload.token_file", "upload.ca_file", "upload.client_cert", "upload.client_key",
            "upload.proxy", "upload.timeout_s",
        )
    },
    **_handed_on(
        "test_options_of_policies",
        "adapt.policies", "adapt.battery_low", "adapt.cpu_budget", "adapt.saver_tolerance_px",
        "adapt.metered_bytes_per_hour", "adapt.quiet_hours", "adapt.rules",
    ),
    "agent.sources": (f"{_RUN}::test_sources_and_key_detail",),
    "agent.key_detail": (f"{_RUN}::test_key_detail_none_leaves_the_keyboard_out",),
    "agent.window_detail": (f"{_RUNS}::test_a_title_is_kept_only_where_it_is_granted_and_asked_for",),
    "agent.backend": (f"{_RUN}::test_how_sources_hear",),
    "agent.read_interval_s": (f"{_RUN}::test_how_sources_hear",),
    "seal.recipients_file": (f"{_RUN}::test_recipients_are_read_again_each_time",),
    "receiver.host": (f"{_RECEIVE}::test_port_and_host",),
    "receiver.port": (f"{_RECEIVE}::test_port_and_host",),
    "receiver.token_file": (f"{_RECEIVE}::test_the_token_is_asked_for",),
    "receiver.tls_cert": (f"{_RECEIVE}::test_tls",),
    "receiver.tls_key": (f"{_RECEIVE}::test_tls",),
    "receiver.max_body_bytes": (f"{_RECEIVE}::test_the_file_and_flags_that_win",),
    "receiver.device_requests": (f"{_RECEIVE}::test_requests_of_one_device_are_limited",),
    "receiver.retention_days": (f"{_RECEIVE}::test_days_that_are_over_go",),
    **{
        f"grant.{key}": (f"{_GRANT}::test_each_flag_ends_up_in_the_grant",)
        for key in ("operator", "purpose", "scope", "policy", "expires")
    },
    "grant.language": ("tests/cli/test_status_words.py::test_a_grant_in_the_language_of_who_is_asked",),
    "receiver.operator_token_file": (f"{_RECEIVE}::test_the_operators_token",),
    "consent.pause_cap_s": (
        "tests/cli/test_decisions.py::test_a_pause_is_no_longer_than_the_operator_allows",
    ),
    "consent.policy_file": (
        "tests/cli/test_decisions.py::test_a_required_policy_that_cannot_be_read",
    ),
    # --- Collector ---
    **{f"Collector({name})": (f"tests/capture/test_control_options.py::test_{name}",) for name in (
        "indicator", "on_control", "pause_cap_s", "policy", "channel", "language",
    )},
    "Collector(transport)": (f"{_COLLECTOR}::test_flush_delivers_everything",),
    "Collector(recipients)": ("tests/capture/test_sealing.py::test_nothing_in_clear_touches_the_disk_and_delivery_does_not_open_it",),
    "Collector(batch_max_events)": (f"{_COLLECTOR}::test_batch_max_events",),
    "Collector(batch_max_bytes)": (f"{_COLLECTOR}::test_batch_max_bytes",),
    "Collector(batch_max_age_s)": (f"{_COLLECTOR}::test_batch_max_age",),
    "Collector(quanta_per_px)": (f"{_COLLECTOR}::test_quanta_per_px",),
    "Collector(zstd_level)": (f"{_COLLECTOR}::test_zstd_level",),
    "Collector(spool_max_bytes)": (f"{_COLLECTOR}::test_spool_max_bytes",),
    "Collector(spool_max_files)": (f"{_COLLECTOR}::test_spool_max_files",),
    "Collector(spool_max_age_s)": (f"{_COLLECTOR}::test_spool_max_age",),
    "Collector(spool_min_free_bytes)": (f"{_SPOOL}::test_a_collector_can_be_told_to_leave_less_free",),
    "Collector(upload_interval_s)": (f"{_COLLECTOR}::test_upload_interval",),
    "Collector(max_request_bytes)": (f"{_COLLECTOR}::test_max_request_bytes",),
    "Collector(policies)": (f"{_ADAPTS}::test_the_default_policies",),
    "Collector(resources)": (f"{_ADAPTS}::test_nothing_goes_over_a_metered_network_and_all_goes_afterwards",),
    "Collector(hold_s)": (f"{_COLLECTOR}::test_plan_and_hold_and_fallback_age",),
    "Collector(fallback_age_s)": (f"{_COLLECTOR}::test_plan_and_hold_and_fallback_age",),
    "Collector(session)": ("tests/capture/test_locked_session.py::test_locked_at_the_start",),
    "Collector(clock)": (f"{_SPOOL}::test_the_options_of_a_collector_are_those_of_its_spool",),
    # --- sources ---
    **_clock_and_interval("PointerSource"),
    **_clock_and_interval("KeyboardSource"),
    **_clock_and_interval("WindowSource"),
    **_clock_and_interval("DisplaySource"),
    **{
        f"{cls}(backend)": (f"{_SOURCES}::test_the_backend_is_the_one_that_was_named[xrecord-{cls}]",)
        for cls in ("PointerSource", "KeyboardSource")
    },
    "PointerSource(motion)": ("tests/sources/test_backends.py::test_motion_can_be_off_from_the_start",),
    "KeyboardSource(detail)": ("tests/sources/test_keyboard.py::test_detail_timing_says_when_and_not_which",),
    "WindowSource(titles)": ("tests/sources/test_window_titles.py::test_titles",),
    "ReplaySource(speed)": ("tests/sources/test_replay.py::test_its_own_pace_and_others",),
    "ReplaySource(detail)": ("tests/sources/test_replay.py::test_keyboard_rows_keep_classes_only",),
    "ReplaySource(clock)": ("tests/sources/test_replay.py::test_times_are_those_of_the_clock",),
    # --- spool ---
    "DirectorySpool(max_bytes)": (f"{_SPOOL}::test_max_bytes_evicts_as_many_as_it_takes",),
    "DirectorySpool(max_files)": (f"{_SPOOL}::test_max_files_evicts_the_oldest_and_counts_it",),
    "DirectorySpool(max_age_s)": (f"{_SPOOL}::test_a_batch_expires_after_max_age_and_is_counted_as_that",),
    "DirectorySpool(min_free_bytes)": (f"{_SPOOL}::test_the_floor_is_at_most_a_tenth_of_the_disk",),
    "DirectorySpool(intact)": (f"{_SPOOL}::test_the_options_of_a_collector_are_those_of_its_spool",),
    "DirectorySpool(clock)": (f"{_SPOOL}::test_a_batch_expires_after_max_age_and_is_counted_as_that",),
    "DirectorySpool(boot)": (f"{_SPOOL}::test_a_day_asleep_and_a_day_off_are_days",),
    # --- uploader and transports ---
    "Uploader(may_send)": (f"{_UPLOADER}::test_may_send_is_asked_before_each_attempt_and_keeps_everything",),
    "Uploader(plan)": (f"{_UPLOADER}::test_a_plan_without_data",),
    "Uploader(interval_s)": ("tests/delivery/test_lifecycle.py::test_uploads_go_on_when_the_wall_clock_steps",),
    "Uploader(max_request_bytes)": (f"{_UPLOADER}::test_max_request_bytes_parts_the_requests",),
    "Uploader(attempts)": (f"{_UPLOADER}::test_attempts_bound_the_tries_of_one_request",),
    "Uploader(hold_s)": (f"{_UPLOADER}::test_hold_s_is_how_long_a_batch_rests_here_also_for_a_flush",),
    "Uploader(fallback_age_s)": (f"{_UPLOADER}::test_fallback_age_s_sends_what_the_plan_would_keep_for_ever",),
    "Uploader(schedule_file)": (f"{_UPLOADER}::test_what_the_server_said_survives_a_restart",),
    "Uploader(endpoint)": (f"{_UPLOADER}::test_what_the_server_said_survives_a_restart",),
    "Uploader(on_decision)": ("tests/delivery/test_decisions.py::test_time_and_words_are_told_too",),
    "Uploader(on_carried_out)": ("tests/delivery/test_decisions.py::test_a_deletion_is_told_as_carried_out_and_never_as_decided",),
    "Uploader(clock)": ("tests/delivery/test_lifecycle.py::test_what_is_held_for_a_day_arrives_after_a_day",),
    "Uploader(random)": ("tests/delivery/test_outcomes.py::test_back_off_grows_with_each_failure_and_the_third_is_told",),
    "HttpTransport(token)": ("tests/delivery/test_http.py::test_the_request_is_as_the_protocol_says",),
    "HttpTransport(token_file)": (f"{_HTTP}::test_token_file_is_read_again_for_each_request",),
    "HttpTransport(ca_file)": ("tests/delivery/test_http.py::test_a_trusted_certificate",),
    "HttpTransport(truststore)": (f"{_HTTP}::test_truststore_takes_the_systems_store",),
    "HttpTransport(client_cert)": (f"{_HTTP}::test_a_device_shows_its_certificate",),
    "HttpTransport(client_key)": (f"{_HTTP}::test_a_device_shows_its_certificate",),
    "HttpTransport(proxy)": (f"{_HTTP}::test_a_proxy_that_is_not_there_is_named",),
    "HttpTransport(timeout_s)": ("tests/delivery/test_http.py::test_a_server_that_hangs_costs_the_timeout",),
    "ObjectStoreTransport(endpoint)": (f"{_S3}::test_the_prefix",),
    "ObjectStoreTransport(region)": (f"{_S3}::test_what_goes_over_the_wire",),
    "ObjectStoreTransport(ca_file)": (f"{_S3}::test_a_certificate_must_be_trusted",),
    "ObjectStoreTransport(timeout_s)": (f"{_S3}::test_a_black_hole_takes_one_timeout_however_much_waits",),
    # --- controls ---
    **_control("pause"),
    **_control("resume"),
    **_control("exempt", "exempt a kind"),
    **_control("unexempt"),
    **_control("forget"),
    **_control("hold"),
    **_control("inspect"),
    **_control("withdraw"),
    **_control("flush"),
    **_control("regrant"),
    **_control("ask"),
    **_control("answered"),
    **{f"status@{way}": ("tests/proof/test_controls_table.py::test_status",) for way in ("api", "running")},
}  # fmt: skip
