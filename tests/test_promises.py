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
    # --- HTTP/1.1 ---------------------------------------------------------------------------------------------------
    "a request line is METHOD TARGET HTTP/1.x CRLF, a field is NAME: VALUE": ("server_framing refused",),
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
    # --- what clients take up ---------------------------------------------------------------------------------------
    "one deadline for a head": ("limits a_head_has_one_deadline", "limits a_connection_that_says_nothing_is_closed"),
    "a body keeps moving": ("limits a_body_may_not_pause", "limits a_body_has_to_keep_moving"),
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
    "without descriptors or threads the server goes on": (
        "limits without_descriptors_the_server_waits",
        "limits a_thread_that_cannot_be_started",
    ),
    "a client that leaves is noticed in every phase": (
        "cancel_everywhere in_every_phase",
        "cancel_everywhere in_a_pause",
    ),
    "packed bodies are bounded": ("bodies a_bomb_of_a_client", "bodies a_bomb_of_a_provider", "faults a_gzip_bomb"),
    # --- input ------------------------------------------------------------------------------------------------------
    "a body is one JSON document that all read alike": ("bodies what_is_no_single_json_document_is_refused",),
    "any text, any number of items, within seconds": ("bodies any_text_is_a_prompt", "bodies thousands_of_items"),
    "a request chooses no address, key or header": (
        "bodies a_body_cannot_choose_address_or_key",
        "provider_client client_headers_stay_here",
    ),
    "errors have Anthropic's shape on every path": ("endpoints unknown_paths", "endpoints wrong_methods"),
    # --- providers --------------------------------------------------------------------------------------------------
    "retries before the first content, none after it": (
        "faults before_content",
        "faults in_mid_stream",
        "faults retry_after_is_kept",
    ),
    "a failure is no answer": (
        "provider_answers a_200_that_is_no_answer",
        "provider_answers a_completion_that_breaks_off",
    ),
    "redirects, cookies and .netrc do nothing": (
        "provider_client redirects_are_not_followed",
        "provider_client cookies_are_not_kept",
        "provider_client netrc_does_not_replace_the_key",
    ),
    "one deadline for an exchange": ("early_bytes the_total_deadline",),
    # --- life cycle and logs ----------------------------------------------------------------------------------------
    "a signal drains, a second one ends": (
        "serve_process a_signal_drains",
        "serve_process a_second_signal_ends_at_once",
        "serve_process the_deadline_ends_it",
    ),
    "a drained instance cuts no stream; conversations hop": (
        "balancers a_drain_cuts_no_stream",
        "balancers a_conversation_hops",
    ),
    "logging never stops service": (
        "logfile requests_go_on_without_a_log",
        "logfile a_console_that_nobody_reads_holds_nothing_up",
        "log a_closed_console",
    ),
    "several processes write whole lines": ("logfile several_processes_write_whole_lines",),
    "kill -9 takes no recorded usage with it": ("ledger a_killed_process_takes_nothing_with_it",),
    # --- secrets and access -----------------------------------------------------------------------------------------
    "no secret leaves the process": ("canary no_secret_leaves_the_process", "canary a_start_that_fails_tells_none"),
    "no log line can be forged": ("log a_line_is_safe_to_show",),
    "files are their owner's": ("logfile only_the_owner_may_read", "ledger only_the_owner_can_read_it"),
    "no network without a token": ("serve_process a_host_beyond_loopback_needs_a_token",),
    "the token guards every path and method": ("token without_the_token", "token with_the_token"),
    "/health tells a stranger a status alone": ("token health_needs_no_token_and_tells_nothing",),
    "no page in a browser may ask": (
        "access pages_and_foreign_names_are_refused",
        "access what_any_page_may_send_is_refused",
        "access local_names",
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
