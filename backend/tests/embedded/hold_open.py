"""Holds the services open until SIGTERM; prints what it opened as one line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from signal import SIGTERM

from app.core.config import Settings
from app.embedded import open_services


async def main(data_dir: str, system_dir: str) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(SIGTERM, told.set)
    settings = Settings(data_dir=Path(data_dir), database_url=None, redis_url=None)
    async with open_services(settings, system_dir=Path(system_dir)) as services:
        print(json.dumps({"migration_url": services.migration_url}), flush=True)  # noqa: T201
        await told.wait()


asyncio.run(main(*sys.argv[1:]))
