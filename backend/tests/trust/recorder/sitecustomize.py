"""Records in each Python process whom it looks up or connects to, this machine left out.

Python imports this module at start when its folder is on `PYTHONPATH`; `CALLS_LOG` names the file.
"""

from __future__ import annotations

import os
import sys

_ADDRESS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}
_NAME = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if event in _ADDRESS:
        address = arguments[_ADDRESS[event]]
        host = address[0] if isinstance(address, tuple) else None  # else a Unix socket
    elif event in _NAME:
        host = arguments[_NAME[event]]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else str(host or "")
    if name in ("", "localhost", "::1", "::", "0.0.0.0") or name.startswith("127."):
        return
    line = f"{event} {name} by {' '.join(sys.argv[:4])}\n".encode()
    file = os.open(os.environ["CALLS_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(file, line)
    finally:
        os.close(file)


if "CALLS_LOG" in os.environ:
    sys.addaudithook(_record)
