"""What an outgoing HTTP request may be made of, told by looking at it: URLs and headers. Looks nothing up."""

from __future__ import annotations

import re

from app.core.addresses import read_host

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OURS = frozenset(
    (
        "accept-encoding",  # we decompress
        "connection",
        "content-length",  # with the next one: where one request ends and the next begins
        "transfer-encoding",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
    )
)
_URL = re.compile(r"(?P<scheme>[^:/?#]*)://(?P<authority>[^/?#]*)(?P<rest>[/?#]?)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEMES = ("http", "https")


def name_problem(name: str) -> str:
    """Why no header may have this name; empty if one may."""
    if not _NAME.fullmatch(name):
        return f"{name!r} is not the name of an HTTP header"
    return f"the header {name!r} is set by the platform; leave it out" if name.lower() in _OURS else ""


def value_problem(name: str, value: str) -> str:
    """Why the header `name` may not have this value, which is not shown; empty if it may."""
    if _VALUE.fullmatch(value):
        return ""
    return f"the value of the header {name!r} holds line ends, control characters, or others than ASCII"


def url_problem(url: str, *, whole: bool = True) -> str:
    """Why `url` cannot be called; empty if nothing is seen. If not `whole`, it is the beginning of one."""
    url = url.strip() if whole else url.lstrip()
    if _CONTROL.search(url):
        return "it holds control characters"
    found = _URL.match(url)
    if found is None:
        begins = any(f"{scheme}://".startswith(url.lower()) for scheme in _SCHEMES)
        return "" if begins and not whole else "it does not begin with 'http://' or 'https://'"
    if found["scheme"].lower() not in _SCHEMES:
        return f"only http and https are called, not {found['scheme']!r}"
    if "@" in found["authority"]:
        return "it holds a user name or password: send a header"
    return _place_problem(found["authority"]) if whole or found["rest"] else ""


def host_is_complete(url: str, *, whole: bool = True) -> bool:
    """Whether nothing that follows can change where a request to `url` goes."""
    found = _URL.match(url.lstrip())
    return found is not None and bool(found["authority"]) and (whole or found["rest"] == "/")


def _place_problem(authority: str) -> str:
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        return f"{port!r} is not a port between 1 and 65535"
    try:
        read_host(host)
    except ValueError as error:
        return f"{host!r} cannot be called: {error}"
    return ""
