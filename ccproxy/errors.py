"""The error tree; each class knows the HTTP status and the Anthropic error type it is answered with.

CcproxyError
├── ConfigError                 the owner's files or settings; one line on stderr, exit code 2
├── CrashLoop                   the workers end as soon as they are started; exit code 1
├── StreamCut                   a stream that failed after its first event; the connection is reset
└── ApiError                    answered to the client
    ├── InvalidRequest          400
    ├── AuthenticationFailed    401
    ├── BudgetSpent             402
    ├── PermissionDenied        403
    ├── NotFound                404
    ├── MethodNotAllowed        405
    ├── RequestTooLarge         413
    ├── ClientGone              499
    ├── Stopping                503
    ├── Overloaded              529
    └── ProviderError           what a provider, or the way to it, did; any status
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

# Messages API, "Errors"; SDKs choose their exception class by these statuses.
TYPE_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

# Claude Code would repeat a 401 for three minutes; nothing changes meanwhile.
NO_RETRY = {"x-should-retry": "false"}


def error_type(status: int) -> str:
    """Return the Anthropic error type that goes with an HTTP status."""
    return TYPE_BY_STATUS.get(status, "api_error" if status >= 500 else "invalid_request_error")


def status_of(error_type: Any) -> int:
    """Return the HTTP status that an Anthropic error type goes with."""
    return next((status for status, name in TYPE_BY_STATUS.items() if name == error_type), 500)


class CcproxyError(Exception):
    """Root of every error raised on purpose."""


class ConfigError(CcproxyError):
    """A setting or file the owner can mend; the message names file, line and key."""


class CrashLoop(CcproxyError):
    """The workers end as soon as they are started."""


class StreamCut(CcproxyError):
    """The answer failed after its first event: the error event is sent, the connection must not end cleanly."""


class ApiError(CcproxyError):
    """An error to answer in Anthropic's shape.

    Args:
        details: becomes ``error.details``.
        headers: extra response headers, such as ``retry-after``.
    """

    status = 500
    own_headers: Mapping[str, str] = {}

    def __init__(
        self,
        message: str,
        *,
        status: Optional[int] = None,
        details: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status or self.status
        self.details = details
        self.headers: Dict[str, str] = {**self.own_headers, **(headers or {})}

    @property
    def type(self) -> str:
        """The Anthropic error type."""
        return error_type(self.status)

    def to_dict(self, request_id: str) -> Dict[str, Any]:
        """Return the body of the answer, or the data of an ``error`` event."""
        error: Dict[str, Any] = {"type": self.type, "message": self.message}
        if self.details:
            error["details"] = dict(self.details)
        return {"type": "error", "error": error, "request_id": request_id}


def forget_calls(error: Optional[BaseException]) -> None:
    """Let go of the calls an error came through, once it is dealt with: they hold it and the whole request, and what
    holds itself stays in memory until the collector finds it."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class InvalidRequest(ApiError):
    """The client's request cannot be understood or honoured."""

    status = 400


class AuthenticationFailed(ApiError):
    """The proxy's own token is missing or wrong."""

    status, own_headers = 401, NO_RETRY


class BudgetSpent(ApiError):
    """The owner's budget allows no further request."""

    status, own_headers = 402, NO_RETRY


class PermissionDenied(ApiError):
    """The request comes from where none may come."""

    status, own_headers = 403, NO_RETRY


class NotFound(ApiError):
    """No such path or model."""

    status = 404


class MethodNotAllowed(ApiError):
    """A known path asked with a method it does not have."""

    status = 405


class RequestTooLarge(ApiError):
    """The body exceeds ``MAX_REQUEST_BYTES``."""

    status = 413


class ClientGone(ApiError):
    """The client left; nobody reads the answer any more."""

    status = 499


class Stopping(ApiError):
    """The proxy stops before the answer ended; another attempt finds another instance, or the restarted one."""

    status = 503


class Overloaded(ApiError):
    """The proxy has as much to do as it may have; another attempt may find it free."""

    status, own_headers = 529, {"retry-after": "2"}


class ProviderError(ApiError):
    """A provider failed or could not be reached.

    ``is_transient`` says whether the same model may answer when asked again; ``is_refusal`` that the request itself
    was refused, so that the next model of the route would be asked in vain. ``detail`` is what the
    provider wrote, and ``provider_status`` its status; ``verbatim`` the body of an Anthropic-format provider, to be
    passed on unchanged: clients match its words. ``is_overflow``: the prompt does not fit the model's window, or not
    with the output asked for. ``room``: with how many tokens of output it would have been taken, 0 if with too few.
    ``is_output_limit``: reasoning used up the output limit, an answer without content.
    """

    status = 502

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        is_transient: bool = True,
        headers: Optional[Mapping[str, str]] = None,
    ) -> None:
        super().__init__(message, status=status, headers=headers)
        self.is_transient = is_transient
        self.is_refusal = not is_transient and status in (400, 413)
        self.verbatim: Optional[bytes] = None
        self.provider_status = 0
        self.detail = ""
        self.is_overflow = False
        self.room = 0
        self.is_output_limit = False
