"""The blob store: a probe is written, read back and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

from app.cli.doctor.finding import Finding, fail, ok
from app.cli.doctor.subject import Subject
from app.core.blobs import Blobs, open_blobs, told
from app.core.errors import AppError, StorageFull, Unavailable

_PATIENCE_S = 10.0
_PROBE = b"orrery doctor"


async def blobs_keep_what_they_get(subject: Subject) -> list[Finding]:
    """An empty data folder stays empty."""
    url = subject.settings.blob_url
    if not url and not (subject.data / "blobs").is_dir():
        return [ok("there are no blobs yet")]
    place = repr(url or str(subject.data / "blobs"))
    try:
        async with asyncio.timeout(_PATIENCE_S):
            read = await _probe(open_blobs(url, subject.data))
    except TimeoutError:
        return [fail(f"the blob store {place} does not answer", "start it, or correct ORRERY_BLOB_URL")]
    except (AppError, OSError) as error:
        of_store = isinstance(error, Unavailable | StorageFull) and error.__cause__
        why = told(of_store or error)
        remedy = "let the user that runs Orrery read and write there, or correct ORRERY_BLOB_URL"
        return [fail(f"the blob store {place} does not work: {why}", remedy)]
    if read != _PROBE:
        return [fail(f"the blob store {place} gives back something else", "set ORRERY_BLOB_URL to another")]
    return [ok(f"the blob store {place} keeps what it gets")]


async def _probe(blobs: Blobs) -> bytes:
    async def chunks() -> AsyncIterator[bytes]:
        yield _PROBE

    key = f"doctor/{uuid4().hex}"
    await blobs.put(key, chunks())
    read = b"".join([part async for part in blobs.read(key)])
    await blobs.delete(key)
    return read
