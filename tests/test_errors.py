"""An error's type goes with its status, as in the Messages API; SDKs choose their exception by it."""

from __future__ import annotations

import inspect
import json
from typing import Dict

import pytest

from ccproxy import errors
from ccproxy.errors import ApiError, ProviderError
from ccproxy.translate.failure import Target, translate_failure
from grammar import check_error

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@pytest.mark.parametrize("status", TYPES)
def test_the_type_goes_with_the_status(status: int) -> None:
    """Whoever makes the error: we ourselves, or a provider that answers so."""
    ours = ApiError("words", status=status)
    theirs = translate_failure(status, {}, b'{"error":{"message":"words"}}', Target("p", "m"))
    for error in (ours, theirs):
        body = error.to_dict("req_1")
        check_error(body)
        assert (error.status, body["error"]["type"]) == (status, TYPES[status])
        assert "words" in body["error"]["message"]


@pytest.mark.parametrize("status", range(300, 600))
def test_whatever_a_provider_says_has_a_type(status: int) -> None:
    """Any status becomes one that clients know; 422 is none of them."""
    error = translate_failure(status, {}, json.dumps({"error": {"message": "words"}}).encode(), Target("p", "m"))
    known = {**TYPES, 409: "conflict_error", 502: "api_error"}
    assert error.type == known[error.status]


def test_our_own_errors_have_a_type() -> None:
    """So has every class of ours; none is a 422."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ApiError)]
    statuses: Dict[str, int] = {kind.__name__: kind.status for kind in kinds}
    assert 422 not in statuses.values()
    assert all(errors.error_type(status) in {*TYPES.values()} for status in statuses.values())
    assert statuses["ProviderError"] == ProviderError.status == 502
