"""Faults of the transport, in the words and with the status that a client is given."""

from __future__ import annotations

import http.client
import socket
from types import TracebackType
from typing import Optional, Tuple, Type

import requests
import urllib3

from ..errors import NO_RETRY, ProviderError
from ..masking import mask
from ..translate.failure import Target

# Fault of the transport: status, words, and whether the same model is worth another attempt. A provider that was
# silent for PROVIDER_READ_TIMEOUT may be working, and billing, still.
_FAULTS: Tuple[Tuple[Tuple[Type[BaseException], ...], int, str, bool], ...] = (
    ((requests.ConnectTimeout,), 504, "could not be connected in time", True),
    (
        (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError, socket.timeout),
        504,
        "did not answer in time",
        False,
    ),
    ((requests.exceptions.SSLError,), 502, "could not be reached over TLS", False),
    ((BaseException,), 502, "could not be reached, or broke the connection", True),
)


def _innermost(error: BaseException) -> BaseException:
    """Return the fault itself: the libraries wrap it in layers, each with the words of those below."""
    inner = error.__cause__ or error.__context__
    return error if inner is None else _innermost(inner)


_TRANSPORT_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
)


class Faults:
    """Turns what goes wrong in a ``with`` block into ``ProviderError``; each request has two, so it is no generator."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if not isinstance(error, _TRANSPORT_ERRORS):
            return
        target = self._target
        _, status, words, is_transient = next(fault for fault in _FAULTS if isinstance(error, fault[0]))
        message = mask(f"{target.provider} ({target.model_name}) {words}: {_innermost(error)}", target.secrets)
        is_about_certificates = isinstance(error, requests.exceptions.SSLError)
        headers = NO_RETRY if is_about_certificates else None
        raise ProviderError(message[:500], status=status, is_transient=is_transient, headers=headers) from error
