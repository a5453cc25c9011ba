"""Stores a blob on a file system of 256 KiB, mounted for this process only; prints what happens."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from app.core.blobs import open_blobs
from app.core.errors import StorageFull


async def megabyte() -> AsyncIterator[bytes]:
    for _ in range(64):
        yield b"x" * 2**14


async def main(folder: Path) -> None:
    blobs = open_blobs(str(folder), folder)
    try:
        await blobs.put("org/file", megabyte())
    except StorageFull as error:
        left = [path for path in folder.rglob("*") if path.is_file()]
        print(error.status, await blobs.exists("org/file"), len(left))  # noqa: T201


asyncio.run(main(Path(sys.argv[1])))
