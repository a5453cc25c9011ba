"""Blobs in a folder: all or nothing, and gone when deleted."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from app.core.blobs import Blobs, open_blobs, told
from app.core.errors import NotFound, Unavailable

BACKEND = Path(__file__).resolve().parents[2]
FULL_DISK = Path(__file__).with_name("full_disk.py")
MOUNT = 'mount -t tmpfs -o size=256k tmpfs "$1" && exec "$2" "$3" "$1"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def blobs(folder: Path, tmp_path: Path) -> Blobs:
    return open_blobs(str(folder), tmp_path)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def chunks(*parts: bytes, fault: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if fault:
        raise fault


class TestPut:
    async def test_answers_size_and_hash_of_what_came(self, blobs: Blobs) -> None:
        stored = await blobs.put("a/b", chunks(b"one", b"", b"two"))
        assert (stored.size_bytes, stored.sha256) == (6, hashlib.sha256(b"onetwo").digest())

    @pytest.mark.parametrize("size", [10, 30 * 2**20])
    async def test_stores_nothing_when_the_sender_breaks_off(
        self, blobs: Blobs, folder: Path, size: int
    ) -> None:
        parts = [b"x" * 2**20] * (size // 2**20) or [b"x" * size]
        with pytest.raises(RuntimeError, match="cut"):
            await blobs.put("a/b", chunks(*parts, fault=RuntimeError("cut")))
        assert not await blobs.exists("a/b")
        assert files(folder) == []

    async def test_leaves_the_old_blob_when_the_sender_breaks_off(self, blobs: Blobs) -> None:
        await blobs.put("a", chunks(b"old"))
        with pytest.raises(ValueError, match="cut"):
            await blobs.put("a", chunks(b"new", fault=ValueError("cut")))
        assert [part async for part in blobs.read("a")] == [b"old"]

    @pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a mount of its own")
    def test_on_a_full_disk_says_so_and_stores_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "small").mkdir()
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", MOUNT, "-", tmp_path / "small", sys.executable, FULL_DISK],
            cwd=BACKEND,
            env={"PYTHONPATH": str(BACKEND)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
            pytest.skip("this machine lets nobody mount a small disk")
        assert (done.stdout.split()[-3:], done.stderr) == (["507", "False", "0"], "")

    async def test_that_is_refused_says_why_and_where_only_in_its_cause(
        self, blobs: Blobs, folder: Path
    ) -> None:
        (folder / "a").write_text("no folder")
        with pytest.raises(Unavailable, match="does not work: Not a directory") as caught:
            await blobs.put("a/b", chunks(b"x"))
        assert str(folder) not in caught.value.detail
        assert caught.value.__cause__
        assert f"{folder}/a/b" in told(caught.value.__cause__)


class TestSize:
    async def test_is_that_of_the_stored_bytes(self, blobs: Blobs) -> None:
        await blobs.put("a", chunks(b"one", b"two"))
        assert (await blobs.size("a"), await blobs.size("b")) == (6, None)


class TestCheck:
    async def test_of_a_usable_folder_and_of_a_bucket_is_quiet(self, blobs: Blobs) -> None:
        blobs.check()
        Blobs(MemoryStore()).check()

    async def test_of_a_folder_that_is_gone_says_so(self, blobs: Blobs, folder: Path) -> None:
        folder.rmdir()
        with pytest.raises(Unavailable, match="folder of blobs"):
            blobs.check()


class TestAsFile:
    async def test_of_a_folder_is_the_stored_file_and_stays(self, blobs: Blobs, folder: Path) -> None:
        await blobs.put("a/b", chunks(b"content"))
        async with blobs.as_file("a/b") as path:
            assert path == folder / "a" / "b"
        assert path.read_bytes() == b"content"

    async def test_of_another_store_is_a_copy_that_goes(self) -> None:
        elsewhere = Blobs(MemoryStore())
        await elsewhere.put("a", chunks(b"content"))
        async with elsewhere.as_file("a") as path:
            assert path.read_bytes() == b"content"
        assert not path.exists()

    async def test_of_another_store_goes_after_an_error_too(self) -> None:
        elsewhere = Blobs(MemoryStore())
        await elsewhere.put("a", chunks(b"content"))
        with pytest.raises(ValueError, match="parser"):
            async with elsewhere.as_file("a") as path:
                raise ValueError("parser")
        assert not path.exists()

    async def test_of_a_missing_blob_says_so(self, blobs: Blobs) -> None:
        with pytest.raises(NotFound, match="'nowhere'"):
            async with blobs.as_file("nowhere"):
                pass


class TestDelete:
    async def test_removes_the_bytes(self, blobs: Blobs, folder: Path) -> None:
        await blobs.put("org/project/file", chunks(b"x"))
        await blobs.delete("org/project/file")
        assert not await blobs.exists("org/project/file")
        assert files(folder) == []

    async def test_may_be_repeated(self, blobs: Blobs) -> None:
        await blobs.put("a", chunks(b"x"))
        await blobs.delete("a")
        await blobs.delete("a")

    async def test_that_the_store_refuses_is_no_success(self, blobs: Blobs, folder: Path) -> None:
        (folder / "a").mkdir()
        (folder / "a" / "inside").touch()
        with pytest.raises(Unavailable):
            await blobs.delete("a")
