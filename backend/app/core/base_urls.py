"""Base URLs of services that are called: how they may be written, and whom they mean."""

from __future__ import annotations

from urllib.parse import urlsplit

from app.core.addresses import read_host

_PORTS = {"http": 80, "https": 443}


def check_base_url(url: str) -> str:
    """`url` without trailing slashes. Raises `ValueError` that says how one is written; looks nothing up."""
    parts = urlsplit(url.strip())
    if parts.scheme not in _PORTS or not parts.hostname or not url.isprintable() or " " in url.strip():
        raise ValueError(f"{url!r} is not a base URL such as 'https://api.example.com/v1'")
    if "@" in parts.netloc:
        raise ValueError("a base URL holds no user name and no password: give the key beside it")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} has a query or a fragment, which a base URL has not")
    origin(url)
    return url.strip().rstrip("/")


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: who is called. Raises `ValueError` where the host is none."""
    parts = urlsplit(url.strip())
    return parts.scheme, str(read_host(parts.hostname or "")), parts.port or _PORTS[parts.scheme]


def authority(url: str) -> str:
    """`host:port` of `url`, as the operator's lists write it."""
    _, host, port = origin(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
