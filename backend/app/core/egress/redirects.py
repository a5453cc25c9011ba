"""Redirects, followed by us: what the next request is (RFC 9110, 15.4; methods as the Fetch standard)."""

from __future__ import annotations

import httpx2

from app.core.egress.errors import EgressDenied, EgressFailed
from app.core.egress.headers import for_strangers, without_body
from app.core.egress.transport import checked_url, shown

_STATUSES = (301, 302, 303, 307, 308)


def is_redirect(response: httpx2.Response) -> bool:
    return response.status_code in _STATUSES and "location" in response.headers


def redirected(request: httpx2.Request, response: httpx2.Response) -> httpx2.Request:
    """The request that follows. To another origin it takes no header along that may hold a credential.

    Raises `EgressDenied` for a way from https to http, and for a target that may not be called.
    """
    url = _target(request.url, response)
    method = _method(request.method, response.status_code)
    headers = dict(request.headers)
    content = request.content
    if method != request.method:
        headers, content = without_body(headers), b""
    if _origin(url) != _origin(request.url):
        headers = for_strangers(headers)
    for framing in ("host", "content-length"):
        headers.pop(framing, None)
    return httpx2.Request(method, url, headers=headers, content=content)


def _target(base: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
    locations = response.headers.get_list("location")
    try:
        url = base.join(locations[0].strip())
    except (httpx2.InvalidURL, ValueError):
        raise EgressFailed(f"{shown(base)!r} redirected to what is not a valid URL.") from None
    if len(locations) > 1:
        raise EgressFailed(f"{shown(base)!r} redirected to several places at once.")
    if (base.scheme, url.scheme) == ("https", "http"):
        raise EgressDenied(f"{shown(base)!r} redirected from https to http, where anyone could read along.")
    return checked_url(url)


def _method(method: str, status: int) -> str:
    if status == 303 and method not in ("GET", "HEAD"):
        return "GET"
    return "GET" if status in (301, 302) and method == "POST" else method


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, shown(url), url.port
