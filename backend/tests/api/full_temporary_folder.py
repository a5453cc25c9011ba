"""Reads an upload of 2 MiB with a temporary folder of 256 KiB, mounted for it; prints what happens."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.types import Message

from app.api.uploads import uploaded
from app.core.errors import StorageFull

HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'


async def body() -> AsyncIterator[Message]:
    yield {"type": "http.request", "body": HEAD, "more_body": True}
    for _ in range(32):
        yield {"type": "http.request", "body": b"x" * 2**16, "more_body": True}
    yield {"type": "http.request", "body": b"\r\n--x--\r\n", "more_body": False}


async def main(folder: str) -> None:
    tempfile.tempdir = folder
    messages = body()
    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, lambda: anext(messages))
    try:
        async with uploaded(request, max_files=1):
            pass
    except StorageFull as error:
        print(error.status, error.code)  # noqa: T201


asyncio.run(main(sys.argv[1]))
