"""What ccproxy promises to survive and to refuse, and the tests that hold it to each promise.

The table is for readers: it leads from a requirement to its tests. That they exist is all that is tested here.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Dict, Set, Tuple

import pytest

# Promise: "module test", the module without its "test_".
PROMISES: Dict[str, Tuple[str, ...]] = {
    # --- settings ---------------------------------------------------------------------------------------------------
    "limits hold out of the box, and a wrong value is named": (
        "config who_sets_nothing_is_protected",
        "config a_wrong_value_is_named",
        "config a_wrong_value_in_the_environment_is_named",
        "readme the_defaults_in_the_readme_are_the_real_ones",
    ),
    # --- HTTP/1.1 ---------------------------------------------------------------------------------------------------
    "a request line is METHOD TARGET HTTP/1.x CRLF, a field is NAME: VALUE": ("server_framing refused",),
    "a few empty lines before a request are skipped": ("server_framing empty_lines_before_a_request_are_skipped",),
    "8 KiB of request line, 32 KiB and 100 fields of head, no more": (
        "server_framing the_limits_of_a_head",
        "server_framing the_status_tells_what_is_wrong",
    ),
    "what is no request is refused, and nothing else happens": ("any_input a_head", "any_input a_request"),
    "exactly one well-formed Host; no forward proxy": (
        "server_framing refused",
        "server_framing a_target_with_our_own_address_is_a_path",
    ),
    "content-length is digits, alone; transfer-encoding is chunked, alone": ("server_framing refused",),
    "chunked bodies, extensions and trailers are read": (
        "server_framing chunked_body",
        "server_framing chunk_extensions_and_trailers",
    ),
    "an incomplete request reaches no provider": (
        "server_framing an_incomplete_body_reaches_no_provider",
        "server_framing an_incomplete_head_is_no_request",
    ),
    "what is too large is refused before it is read, and the client sees the answer": (
        "server_framing too_large_is_answered_before_the_body",
        "server_framing too_large_in_chunks",
        "server_framing a_client_that_sends_first_and_reads_later_sees_the_413",
        "limits a_large_body_of_a_stranger_is_not_read",
    ),
    "no byte of a body is taken for a request": ("server_framing a_body_that_nobody_asked_for_is_read_over",),
    "pipelined and kept-alive requests are answered in order": (
        "server_framing pipelining",
        "server_framing keep_alive",
        "server_framing connection_close",
    ),
    "HTTP/1.0 gets no chunks and closes; HEAD has no body": (
        "server_framing http_1_0_stream",
        "server_framing http_1_0_closes",
        "server_framing head_has_no_body",
    ),
    "expectations are answered at once": (
        "server_framing expect_100_continue",
        "server_framing an_unknown_expectation_is_refused_at_once",
    ),
    "the status tells what is wrong": (
        "server_framing the_status_tells_what_is_wrong",
        "endpoints wrong_methods",
    ),
    "bad input shows nothing of the implementation": ("server_framing refused",),
    "nothing in a request writes into an answer's head": ("server_framing header_injection",),
    # --- what clients take up ---------------------------------------------------------------------------------------
    "one deadline for a head": ("limits a_head_has_one_deadline", "limits a_connection_that_says_nothing_is_closed"),
    "a body keeps moving": (
        "limits a_body_may_not_pause",
        "limits a_body_has_to_keep_moving",
        "limits a_slow_body_that_keeps_moving_is_read",
    ),
    "a reader keeps moving": ("limits a_reader_has_to_keep_moving", "limits a_client_that_reads_nothing_is_dropped"),
    "idle connections end": (
        "limits an_idle_connection_ends",
        "limits a_kept_connection_may_be_idle_for_longer",
        "limits idle_connections_make_room",
    ),
    "above MAX_CONNECTIONS: 529": ("limits above_max_connections_a_client_is_told",),
    "a thousand streams, two thousand idle connections, a fast /health": (
        "load a_thousand_streams_and_two_thousand_idle_connections",
        "concurrency a_burst_leaves_few_connections_behind",
    ),
    "threads, descriptors and memory return to what they were": (
        "load a_thousand_streams_and_two_thousand_idle_connections",
        "concurrency threads_return_to_their_number",
        "concurrency a_request_leaves_nothing_to_the_collector",
        "serve_process all_threads_share_one_heap",
        "recall what_is_forgotten_is_free_at_once",
        "recall what_was_used_longest_ago_is_forgotten",
        "demo it_keeps_no_prompts",
    ),
    "a long run would show what grows, and what was cut": ("soak what_is_not_well_is_told",),
    "without descriptors or threads the server goes on": (
        "limits without_descriptors_the_server_waits",
        "limits a_thread_that_cannot_be_started",
        "wsgi a_thread_that_cannot_be_started",
        "dial no_thread_is_left_to_look_up",
        "serve_process a_drain_needs_no_thread",
        "systemd the_unit_has_threads_for_all_connections",
    ),
    "a client that leaves is noticed in every phase": (
        "cancel_everywhere in_every_phase",
        "cancel_everywhere while_it_connects",
        "cancel_everywhere in_a_pause",
    ),
    "many that leave at any moment leave nothing behind": ("cancel_everywhere two_hundred_that_leave",),
    "a client that does not read loses nothing and holds nobody up": ("early_bytes a_slow_client_holds_nobody_up",),
    "a slow client slows its provider down; of a stream 1 MiB is kept": (
        "back_pressure a_client_that_does_not_read_slows_its_provider_down",
    ),
    "running requests are looked after, whatever one of them does": (
        "watch a_fault_of_one_is_not_the_others",
        "watch a_look_that_fails_is_not_the_last",
    ),
    "packed bodies are bounded": ("bodies a_bomb_of_a_client", "bodies a_bomb_of_a_provider", "faults a_gzip_bomb"),
    # --- input ------------------------------------------------------------------------------------------------------
    "a body is one JSON document that all read alike": ("bodies what_is_no_single_json_document_is_refused",),
    "any text, any number of items, within seconds": ("bodies any_text_is_a_prompt", "bodies thousands_of_items"),
    "a request chooses no address, key or header": (
        "bodies a_body_cannot_choose_address_or_key",
        "provider_client client_headers_stay_here",
    ),
    "fields are checked and named before they are used": (
        "anthropic a_wrong_field_is_refused_in_anthropic_words",
        "anthropic what_cannot_be_honoured_is_refused",
        "anthropic fields_without_effect_are_accepted",
    ),
    "a byte order mark is no fault, nesting without end is": (
        "endpoints a_byte_order_mark_is_no_fault",
        "endpoints nesting_without_end",
    ),
    "addresses in a prompt are passed on, never fetched": (
        "bodies addresses_in_a_prompt_are_not_fetched",
        "translate_content a_block_of_the_user",
        "translate_content a_document_by_address_is_named",
    ),
    "blocks of no known type are told as text, or left out by name": (
        "anthropic every_block_type_is_read",
        "translate_content a_block_of_the_user",
        "translate_content a_block_of_no_known_type_is_named",
        "translate_content uploaded_files_are_refused",
    ),
    "errors have Anthropic's shape on every path": ("endpoints unknown_paths", "endpoints wrong_methods"),
    "an error's type goes with its status; 422 is not used": (
        "errors the_type_goes_with_the_status",
        "errors whatever_a_provider_says_has_a_type",
        "errors our_own_errors_have_a_type",
    ),
    # --- providers --------------------------------------------------------------------------------------------------
    "retries before the first content, none after it": (
        "faults before_content",
        "faults in_mid_stream",
        "faults retry_after_is_kept",
    ),
    "what may pass is tried again, what does not is not": (
        "faults error_statuses",
        "translate_failure which_statuses_are_tried_again",
        "faults a_name_that_cannot_be_resolved",
    ),
    "a provider's limit is a 429 with its Retry-After": (
        "faults error_statuses",
        "translate_failure retry_after_is_passed_on",
    ),
    "attempts are counted, pauses are drawn and bounded": (
        "retry the_number_of_retries",
        "retry jitter_is_full",
        "retry what_a_provider_asks",
        "retry the_budget",
    ),
    "a provider that cannot be reached is a 502": ("faults a_refused_connection",),
    "a failure is no answer": (
        "provider_answers a_200_that_is_no_answer",
        "provider_answers a_completion_that_breaks_off",
    ),
    "a stream ends once, legally": (
        "faults in_mid_stream",
        "translate_stream any_text_in_any_split",
        "translate_stream nothing_follows_the_end",
    ),
    "each event is one frame": ("sse each_event_is_one_frame",),
    "a provider's stream is read however it is cut": (
        "sse a_stream_read_in_two",
        "sse random_reads_give_the_same_events",
        "sse bytes_that_are_not_utf_8_are_replaced",
    ),
    "odd chunks are put up with": ("openai wrong_types_read_as_absent", "openai anything_else_says_nothing"),
    "an answer and an event have a bound": ("faults a_gzip_bomb", "faults no_line_end_ever"),
    "an encoding is decoded or refused": ("provider_answers a_compressed_answer_that_nobody_asked_for",),
    "certificates are checked": (
        "provider_ways a_certificate_that_nobody_vouches_for",
        "provider_ways a_certificate_for_another_name",
        "layers data_is_never_code",
    ),
    "headers of one side do not reach the other": (
        "provider_client client_headers_stay_here",
        "provider_client provider_headers_stay_there",
        "passthrough the_proxys_own_token_goes_nowhere",
    ),
    "a connection in doubt ends with its request, and serves nobody else": (
        "faults a_connection_in_doubt_ends_with_its_request",
        "provider_client a_connection_in_doubt_is_not_pooled",
        "cancel_everywhere a_connection_belongs_to_its_request_alone",
    ),
    "redirects, cookies and .netrc do nothing": (
        "provider_client redirects_are_not_followed",
        "provider_client cookies_are_not_kept",
        "provider_client netrc_does_not_replace_the_key",
    ),
    "a provider that does not connect, TLS with it, is not waited for": (
        "provider_client a_provider_that_does_not_connect",
        "dial a_look_up_has_an_end",
        "dial all_addresses_have_one_deadline",
        "dial a_provider_whose_name_is_late",
    ),
    "one deadline for an exchange": ("early_bytes the_total_deadline",),
    "comments and blank lines are life": ("early_bytes comments_and_blank_lines_are_life",),
    # --- life cycle and logs ----------------------------------------------------------------------------------------
    "it starts without a network, and soon": ("serve_process it_starts_without_a_network",),
    "durations are measured by a clock that nobody sets": (
        "clock the_wall_clock_is_for_timestamps",
        "clock a_clock_that_is_set_changes_nothing",
    ),
    "a signal drains, a second one ends": (
        "serve_process an_idle_server_ends_at_once",
        "serve_process a_signal_drains",
        "serve_process a_signal_at_any_moment",
        "server who_is_connected_already_is_answered",
        "serve_process a_second_signal_ends_at_once",
        "serve_process the_deadline_ends_it",
    ),
    "a stream cut at the deadline says so": ("server a_stream_cut_at_the_deadline_ends_with_an_error_event",),
    "a configuration is read again, an invalid one is told once": (
        "serve_reload new_requests_take_new_models",
        "serve_reload a_signal_reads_it_again",
        "reload an_invalid_file_changes_nothing",
        "reload a_removed_file_changes_nothing",
        "serve_reload no_place_for_the_records",
    ),
    "a start that fails is one line": (
        "serve_process a_setting_that_is_wrong",
        "serve_process port_in_use",
        "config a_wrong_value_is_named",
    ),
    "a missing key is named by its variable": ("provider_client a_missing_key",),
    "a moved log file is opened anew": ("logfile a_file_that_was_moved_away_is_opened_anew",),
    "a drained instance cuts no stream; conversations hop": (
        "balancers a_drain_cuts_no_stream",
        "balancers a_conversation_hops",
    ),
    "logging never stops service": (
        "logfile requests_go_on_without_a_log",
        "logfile a_full_disk_ends_some_time",
        "logfile a_line_that_a_full_disk_cut",
        "logfile a_folder_that_cannot_be_written_is_told_once",
        "logfile a_console_that_nobody_reads_holds_nothing_up",
        "log a_closed_console",
    ),
    "log files are rotated": ("logfile rotation",),
    "several processes write whole lines": ("logfile several_processes_write_whole_lines",),
    "kill -9 takes no recorded usage with it": (
        "ledger a_killed_process_takes_nothing_with_it",
        "ledger what_was_added_outlives_its_process",
    ),
    "a damaged ledger prevents no start": (
        "ledger a_damaged_file_is_moved_aside",
        "ledger damage_while_it_is_in_use",
        "ledger a_full_disk",
    ),
    # --- secrets and access -----------------------------------------------------------------------------------------
    "no secret leaves the process": ("canary no_secret_leaves_the_process", "canary a_start_that_fails_tells_none"),
    "a key that an answer quotes is taken out, also where a read or a delta splits it": (
        "quoted no_answer_has_a_key",
        "quoted every_cut",
        "quoted no_answer_spells_a_key",
        "quoted every_split_over_deltas",
    ),
    "no log line can be forged, nor be without end": (
        "log a_line_is_safe_to_show",
        "log a_long_line_is_cut_in_its_middle",
    ),
    "files are their owner's": ("logfile only_the_owner_may_read", "ledger only_the_owner_can_read_it"),
    "prompts and answers are not logged unless asked for": (
        "logfile the_files_of_a_server",
        "logfile bodies_only_when_they_are_asked_for",
    ),
    "no network without a token": ("serve_process a_host_beyond_loopback_needs_a_token",),
    "the token guards every path and method": ("token without_the_token", "token with_the_token"),
    "the token is compared in constant time": ("token the_token_is_compared_in_constant_time",),
    "/health tells a stranger a status alone": ("token health_needs_no_token_and_tells_nothing",),
    "no page in a browser may ask": (
        "access pages_and_foreign_names_are_refused",
        "access what_any_page_may_send_is_refused",
        "access local_names",
        "access no_page_is_let_in_by_an_answer",
    ),
    "the token is in no address": ("token the_token_does_not_go_in_the_query",),
    "the dashboard runs nothing but its own script": (
        "dashboard nothing_but_its_own_script_can_run",
        "dashboard the_page_loads_nothing_and_builds_no_markup_from_text",
        "browser names_from_outside_are_text",
    ),
    "data is never code, and names no file": ("layers data_is_never_code", "endpoints unknown_paths"),
    "encodings of a request are decoded or refused": ("bodies an_encoded_body", "bodies a_body_in_no_known_encoding"),
    "dependencies have bounds": ("packaging five_dependencies",),
    "the systemd unit is hardened and holds no key": (
        "systemd the_unit_is_hardened",
        "systemd the_score_of_the_unit",
        "systemd the_unit_holds_no_key",
        "systemd the_stop_follows_the_configuration",
        "systemd it_tells_its_life",
        "systemd systemd_understands_the_unit",
    ),
    "answers are not stored, nor guessed at": ("server_framing no_answer_is_kept_or_guessed_at",),
}


def names_in(module: str) -> Set[str]:
    """The tests of a module."""
    tree = ast.parse((Path(__file__).parent / f"test_{module}.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_has_its_tests(promise: str) -> None:
    """By the names that the table tells."""
    for entry in PROMISES[promise]:
        module, name = entry.split()
        assert f"test_{name}" in names_in(module), entry
