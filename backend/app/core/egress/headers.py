"""Request headers: which a caller may give, and which survive a redirect to somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.core.egress.errors import EgressDenied
from app.core.http_syntax import name_problem, value_problem

_HARMLESS = ("accept", "accept-language", "content-type", "user-agent")


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """`headers` with trimmed values. Raises `EgressDenied`, which names the header, never its value."""
    return {name: _checked(name, value) for name, value in headers.items()}


def checked_items(items: Iterable[tuple[str, str]], *, host: str) -> list[tuple[str, str]]:
    """`checked_headers` of a request that an HTTP library made: what such a library adds may be there.

    That is `Host`, if it is `host`, and one header that says how long the body is.
    """
    kept, lengths = [], []
    for name, value in items:
        match name.lower(), value.lower():
            case "host", _ if value == host:
                kept.append((name, value))
            case ("content-length", _) | ("transfer-encoding", "chunked"):
                lengths.append((name, value))
            case _:
                kept.append((name, _checked(name, value)))
    if len(lengths) > 1:
        raise EgressDenied(
            "The request says more than once how long its body is; leave that to the platform."
        )
    return kept + lengths


def _checked(name: str, value: str) -> str:
    if problem := name_problem(name) or value_problem(name, value):
        raise EgressDenied(f"{problem[:1].upper()}{problem[1:]}.")
    return value.strip(" \t")


def for_strangers(headers: Mapping[str, str]) -> dict[str, str]:
    """What a redirect to another origin takes along. Any other header may hold a credential."""
    return {name: value for name, value in headers.items() if name.lower() in _HARMLESS}


def without_body(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.lower().startswith("content-")}
