"""Who may ask: the proxy's own token, and pages in a browser kept out.

The proxy spends its owner's money for whoever reaches it. Without a token that is every program of this machine, but
not every web page its browser shows: a page can send requests to loopback addresses, also under a name of its own that
it lets resolve to one (DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from functools import lru_cache

from .errors import ApiError, AuthenticationFailed, PermissionDenied
from .web import Request

# The Fetch standard's "CORS-safelisted" content types.
_FORMS = ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded")


def check_access(request: Request, token: str, own_host: str) -> None:
    """Let a request pass, or not.

    Args:
        token: ``CCPROXY_AUTH_TOKEN``; empty when none is configured.
        own_host: the name the owner listens on.

    Raises:
        AuthenticationFailed: a token is configured and neither credential header carries it.
        PermissionDenied: the request comes from a foreign web page, or under a foreign name.
        ApiError: it may come from one.
    """
    _check_page(request)
    if token:
        _check_token(request, token)
    elif not is_local_name(_name(request.headers.get("host", "")), own_host):
        raise PermissionDenied("host: not a name of this machine; set CCPROXY_AUTH_TOKEN to serve other names")
    elif request.method == "POST":
        _check_kind(request)


def _check_page(request: Request) -> None:
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        raise PermissionDenied("origin: requests from other web pages are refused")
    site, mode = request.headers.get("sec-fetch-site"), request.headers.get("sec-fetch-mode")
    # "same-site" is another port of this machine, or another name of the team's domain: a link from there is followed
    if site == "cross-site" or (site == "same-site" and mode != "navigate"):
        raise PermissionDenied("sec-fetch-site: requests from other web pages are refused")


def _check_kind(request: Request) -> None:
    """Refuse what any page may send without asking first: browsers that tell no origin know no other kinds."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORMS:
        raise ApiError(f"content-type: {kind} is what web forms send; send application/json", status=415)


def _check_token(request: Request, token: str) -> None:
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    offered = [request.headers.get("x-api-key", ""), bearer.strip() if scheme.lower() == "bearer" else ""]
    # Header values are latin-1; both are compared, so that the time tells nothing.
    matches = [hmac.compare_digest(item.encode("latin-1", "replace"), token.encode()) for item in offered]
    if not any(matches):
        raise AuthenticationFailed("invalid or missing CCPROXY_AUTH_TOKEN: send it as x-api-key or bearer token")


def _name(host: str) -> str:
    """Return the name of a Host value, without port and brackets, in lower case."""
    return re.sub(r":\d*$", "", host).strip("[]").lower()


@lru_cache(maxsize=64)
def is_local_name(name: str, own_host: str) -> bool:
    """Whether a name can only mean this machine; HTTP/1.0 requests, which no browser sends, may have none."""
    if name in ("", "localhost", own_host.lower()) or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
