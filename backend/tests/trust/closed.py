"""A network namespace of its own, with nothing but the loopback interface (Linux).

    python -m tests.trust.closed COMMAND…

runs COMMAND in one, as the same user. Exit code 77, with a reason, where that is not permitted.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from fcntl import ioctl
from pathlib import Path

NOT_PERMITTED = 77
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_SET_FLAGS, _UP = 0x8914, 0x1 | 0x40


def close_network() -> None:
    """Moves this process, and all that it will start, into the namespace. Raises `OSError`."""
    user, group = os.getuid(), os.getgid()
    _unshare(_NEW_NETWORK if user == 0 else _NEW_NETWORK | _NEW_USER)
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14s", b"lo", _UP, b""))


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def attempts() -> dict[str, int]:
    """What the kernel counted in this namespace: packets that had no route, and UDP that nobody took.

    Every try to reach another machine is one of the first, whichever process and library makes it: there is
    no route. A look-up through a resolver on this machine is one of the second.
    """
    found = {}
    lines = Path("/proc/net/snmp").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        kind, *fields = names.split()
        found |= {kind + name: value for name, value in zip(fields, values.split()[1:], strict=True)}
    found |= dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    wanted = ("Ip:OutNoRoutes", "Ip6OutNoRoutes", "Udp:NoPorts", "Udp6NoPorts")
    return {name: int(found[name]) for name in wanted}


if __name__ == "__main__":
    try:
        close_network()
    except OSError as error:
        print(f"no network namespace: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(NOT_PERMITTED)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
