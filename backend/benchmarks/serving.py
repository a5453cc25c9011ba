"""What a child process runs to serve an application on a free port, as `orrery serve` does it."""

from __future__ import annotations

from collections.abc import Callable
from socket import socket

import uvicorn
import uvloop
from fastapi import FastAPI


class _Announcing(uvicorn.Server):
    """Says where it serves, on standard output, once it does."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = started

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self._on_start()
            print(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}", flush=True)


def serve(app: FastAPI, *, started: Callable[[], None] = lambda: None) -> None:
    """Prints the URL once the port answers, after `started`; serves until SIGTERM."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, access_log=False, server_header=False
    )
    uvloop.run(_Announcing(config, started).serve())
