"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import secrets
import socket

LOOPBACK = "127.0.0.1"

# Below every system's range of ephemeral ports: a service that is restarted on its port must not find it
# taken by somebody's outgoing connection.
_FIRST, _LAST = 15000, 32000
_TRIES = 50


def free_port() -> int:
    """A port that nobody listens on now; the caller must cope with losing it before it binds."""
    for _ in range(_TRIES):
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if _bindable(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _bindable(port: int) -> bool:
    return not why_not_listen(LOOPBACK, port)


def why_not_listen(host: str, port: int) -> str:
    """Why `port` of `host` cannot be listened on now; empty where it can."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""
