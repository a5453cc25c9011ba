"""Blob storage: a folder or an S3 bucket, by URL. Keys are made by the server, never from user input."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import obstore
import structlog
from obstore.exceptions import BaseError as StoreError
from obstore.store import LocalStore, ObjectStore, from_url

from app.core.errors import Misconfigured, NotFound, StorageFull, Unavailable

logger = structlog.get_logger(__name__)

_FULL = ("No space left", "Disk quota", "QuotaExceeded")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@dataclass(frozen=True, slots=True)
class StoredBlob:
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Blobs:
    """Errors: `StorageFull` (507) where nothing more fits, `Unavailable` (503) otherwise.

    They say why, and name no place of the server: the log does, and `told` of their cause.
    """

    store: ObjectStore
    folder: Path | None = None  # where blobs are local files already

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> StoredBlob:
        """Stores what comes, hashing on the way, in memory of a few chunks; all or nothing."""
        digest, size = sha256(), 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                yield chunk

        try:
            await obstore.put_async(self.store, key, counted())
        except (StoreError, OSError) as error:
            raise _translated(error) from error
        return StoredBlob(size, digest.digest())

    @asynccontextmanager
    async def as_file(self, key: str) -> AsyncIterator[Path]:
        """The blob as a local file, only to be read, for the length of the block."""
        if self.folder is not None:
            if not await self.exists(key):
                raise NotFound(f"There is no blob {key!r}.")
            yield self.folder / key
            return
        descriptor, name = tempfile.mkstemp(prefix="orrery-")
        try:
            try:
                with os.fdopen(descriptor, "wb") as file:
                    async for chunk in self.read(key):
                        file.write(chunk)
            except OSError as error:
                raise _translated(error) from error
            yield Path(name)
        finally:
            os.unlink(name)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """The blob's bytes in chunks; `NotFound` where there is none."""
        try:
            result = await obstore.get_async(self.store, key)
            async for chunk in result.stream():
                yield bytes(chunk)
        except FileNotFoundError as error:
            raise NotFound(f"There is no blob {key!r}.") from error
        except (StoreError, OSError) as error:
            raise _translated(error) from error

    async def delete(self, key: str) -> None:
        """Deletes the blob and looks whether it is gone; a missing blob is fine."""
        try:
            await obstore.delete_async(self.store, key)
        except FileNotFoundError:
            return
        except (StoreError, OSError) as error:
            raise _translated(error) from error
        if await self.exists(key):
            raise Unavailable(f"The blob store still has {key!r} after its deletion.")

    async def under(self, prefix: str) -> list[str]:
        """Keys of the stored blobs below the folder `prefix`."""
        try:
            return [found["path"] async for page in obstore.list(self.store, prefix) for found in page]
        except FileNotFoundError:
            return []
        except (StoreError, OSError) as error:
            raise _translated(error) from error

    async def drop_staged(self, prefix: str) -> None:
        """Removes what a process that was killed in `put` left below `prefix`.

        A folder keeps it as `<key>#<n>` beside the blob, and no listing shows it. A bucket drops unfinished
        uploads by a lifecycle rule of its own.
        """
        if self.folder is None:
            return
        try:
            await asyncio.to_thread(_clear, self.folder / prefix)
        except OSError as error:
            raise _translated(error) from error

    async def exists(self, key: str) -> bool:
        return await self.size(key) is not None

    async def size(self, key: str) -> int | None:
        """Bytes of the stored blob; None where there is none."""
        try:
            return (await obstore.head_async(self.store, key))["size"]
        except FileNotFoundError:
            return None
        except (StoreError, OSError) as error:
            raise _translated(error) from error

    def check(self) -> None:
        """`Unavailable` where nothing can be written to the folder of blobs. Does not ask a bucket."""
        if self.folder is not None and not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise Unavailable("The folder of blobs is not there, or must not be read and written.")


def open_blobs(url: str | None, data_dir: Path) -> Blobs:
    """`ORRERY_BLOB_URL`: a folder or `s3://bucket/prefix` (credentials as AWS tools find them).

    Raises `Misconfigured` where it is neither, or the folder cannot be made.
    """
    if url and "://" in url:
        try:
            return Blobs(from_url(url))
        except (StoreError, ValueError) as error:
            raise Misconfigured(f"ORRERY_BLOB_URL is {url!r}, which cannot be opened: {error}.") from error
    folder = Path(url) if url else data_dir / "blobs"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Misconfigured(
            f"The folder of blobs {str(folder)!r} cannot be made ({error.strerror}): "
            "repair it, or set ORRERY_BLOB_URL to another."
        ) from error
    return Blobs(LocalStore(folder.resolve(), automatic_cleanup=True), folder.resolve())


def _clear(folder: Path) -> None:
    """Unlinks staged files below `folder`, then the folders that are empty."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            if "#" in name:
                Path(parent, name).unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            os.rmdir(parent)


def told(error: BaseException) -> str:
    """What the store says went wrong, with its places; for the operator."""
    return str(error).partition("\n\nDebug source")[0]


def _translated(error: Exception) -> StorageFull | Unavailable:
    logger.warning("blob_storage_failed", error=told(error))
    if any(mark in str(error) for mark in _FULL):
        return StorageFull("The blob storage is full; nothing was stored.")
    return Unavailable(f"The blob storage does not work: {_reason(error)}. The server's log says where.")


def _reason(error: Exception) -> str:
    """Why, in words of the operating system where it was that, without a place."""
    number = _OS_ERROR.search(str(error))
    if number is not None:
        return os.strerror(int(number[1]))
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__
