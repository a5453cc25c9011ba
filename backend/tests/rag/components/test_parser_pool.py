"""Parsing in child processes: answers, limits, deaths, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from app.core.errors import Unavailable
from app.rag.components.parser import AutoParser, PdfParser, TextParser
from app.rag.components.parsers.errors import ParseError
from app.rag.components.parsers.limits import ParseLimits
from app.rag.components.parsers.pool import ParserPool
from app.rag.types import BlockKind
from tests.rag.components.samples import handbook, raw_pdf, word_file

SMALL = ParseLimits(timeout_s=30, memory_bytes=2**28)


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[ParserPool]:
    async with ParserPool(size=1) as running:
        yield running


def text_file(folder: Path, text: str = "Some words.") -> Path:
    path = folder / "a.txt"
    path.write_text(text)
    return path


def endless(folder: Path) -> Path:
    """An HTML file whose 300,000 attributes take minutes."""
    path = folder / "slow.html"
    path.write_text("<html><p " + " ".join(f"a{n}=1" for n in range(300_000)) + ">text")
    return path


OTHERS: set[int] = set()
"""Parsers of worlds that other tests of this process keep open."""


@pytest.fixture(autouse=True)
def _others() -> None:
    OTHERS.clear()
    OTHERS.update(process.pid for process in descendants())


def descendants() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if _parses(process)]


def keepers() -> list[psutil.Process]:
    """The pool's own children, each of which has its job as a child; this process may have others."""
    return [process for process in psutil.Process().children() if _parses(process)]


def _parses(process: psutil.Process) -> bool:
    try:
        return process.pid not in OTHERS and "app.rag.components.parsers.child" in process.cmdline()
    except psutil.Error:
        return False


async def until_busy() -> None:
    """Waits until a child has forked for a job."""
    while len(descendants()) < 2:
        await asyncio.sleep(0.01)


async def error_of(pool: ParserPool, path: Path, limits: ParseLimits = SMALL) -> ParseError:
    with pytest.raises(ParseError) as caught:
        await pool.parse(path, path.name, limits=limits)
    return caught.value


class TestAnswers:
    async def test_a_document_comes_back_whole(self, pool: ParserPool, tmp_path: Path) -> None:
        document = await pool.parse(handbook(tmp_path / "a.pdf"), "a.pdf")
        assert (document.page_count, document.title, document.media_type) == (
            4,
            "Handbook",
            "application/pdf",
        )
        assert document.text == "\n\n".join(document.text[b.start : b.end] for b in document.blocks)

    async def test_blocks_know_the_headings_above_them(self, pool: ParserPool, tmp_path: Path) -> None:
        document = await pool.parse(word_file(tmp_path / "a.docx"), "a.docx")
        paths = {block.kind: block.heading_path for block in document.blocks}
        assert paths[BlockKind.TABLE] == ("Wheels", "Brass wheels")
        assert document.blocks[0].heading_path == ("Wheels",)

    async def test_large_texts_pass(self, pool: ParserPool, tmp_path: Path) -> None:
        words = "größer als ein Wort\n\n" * 100_000
        document = await pool.parse(text_file(tmp_path, words), "a.txt")
        assert document.text == words.strip()

    async def test_a_child_serves_many_files(self, pool: ParserPool, tmp_path: Path) -> None:
        path = text_file(tmp_path)
        await pool.parse(path, "a.txt")
        first = descendants()
        for _ in range(5):
            await pool.parse(path, "a.txt")
        assert descendants() == first

    async def test_a_child_is_replaced_after_its_share(self, tmp_path: Path) -> None:
        path = text_file(tmp_path)
        async with ParserPool(size=1, files_per_child=2) as pool:
            seen = set()
            for _ in range(4):
                await pool.parse(path, "a.txt")
                seen |= {each.pid for each in descendants()}
        assert len(seen) == 2

    async def test_as_many_at_once_as_the_pool_is_large(self, tmp_path: Path) -> None:
        path = text_file(tmp_path)
        async with ParserPool(size=2) as pool:
            documents = await asyncio.gather(*(pool.parse(path, "a.txt") for _ in range(10)))
            assert len(descendants()) == 2
        assert len(documents) == 10

    async def test_relative_paths_are_of_this_process(
        self, pool: ParserPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text_file(tmp_path)
        monkeypatch.chdir(tmp_path)
        assert (await pool.parse(Path("a.txt"), "a.txt")).text == "Some words."


class TestKinds:
    async def test_the_name_does_not_matter(self, pool: ParserPool, tmp_path: Path) -> None:
        document = await pool.parse(handbook(tmp_path / "a.txt", pages=1), "picture.png")
        assert document.media_type == "application/pdf"

    async def test_a_parser_refuses_other_kinds(self, pool: ParserPool, tmp_path: Path) -> None:
        with pytest.raises(ParseError, match="plain text, not PDF") as caught:
            await PdfParser().parse(pool, text_file(tmp_path), "a.txt", limits=SMALL)
        assert caught.value.code == "unsupported"

    async def test_a_text_parser_takes_any_text(self, pool: ParserPool, tmp_path: Path) -> None:
        path = text_file(tmp_path, "<html><p>words")
        assert (await TextParser().parse(pool, path, "a.html", limits=SMALL)).text == "<html><p>words"

    async def test_the_automatic_parser_takes_all(self, pool: ParserPool, tmp_path: Path) -> None:
        path = text_file(tmp_path, "<html><p>words")
        assert (await AutoParser().parse(pool, path, "a.html", limits=SMALL)).media_type == "text/html"


class TestLimits:
    async def test_time(self, pool: ParserPool, tmp_path: Path) -> None:
        error = await error_of(pool, endless(tmp_path), ParseLimits(timeout_s=0.5))
        assert (error.code, error.retriable) == ("timeout", False)

    async def test_the_child_survives_a_time_out(self, pool: ParserPool, tmp_path: Path) -> None:
        await error_of(pool, endless(tmp_path), ParseLimits(timeout_s=0.5))
        before = descendants()
        assert (await pool.parse(text_file(tmp_path), "a.txt")).text == "Some words."
        assert descendants() == before

    async def test_memory_of_a_compressed_page(self, pool: ParserPool, tmp_path: Path) -> None:
        error = await error_of(pool, raw_pdf(tmp_path / "a.pdf", b"q " * 150_000_000))
        assert (error.code, error.retriable) == ("out_of_memory", False)

    async def test_a_page_of_gigantic_content(self, pool: ParserPool, tmp_path: Path) -> None:
        content = b"BT /F1 12 Tf 72 700 Td " + b"(Hello there people) Tj 0 -1 Td " * 1_000_000 + b"ET"
        error = await error_of(pool, raw_pdf(tmp_path / "a.pdf", content), SMALL)
        assert error.code in {"out_of_memory", "timeout"}

    async def test_memory_in_python(self, pool: ParserPool, tmp_path: Path) -> None:
        path = tmp_path / "a.md"
        path.write_text("*a " * 10_000_000)
        error = await error_of(pool, path, ParseLimits(timeout_s=60, memory_bytes=2**27))
        assert error.code == "out_of_memory"

    async def test_the_length_of_the_answer(self, pool: ParserPool, tmp_path: Path) -> None:
        path = text_file(tmp_path, "x\n\n" * 200_000)
        error = await error_of(pool, path, ParseLimits(max_text_bytes=300_000))
        assert error.code == "too_large"

    async def test_a_hundred_thousand_levels(self, pool: ParserPool, tmp_path: Path) -> None:
        path = text_file(tmp_path, "<html>" + "<div>" * 100_000 + "deep")
        assert (await pool.parse(path, "a.html", limits=SMALL)).text == "deep"


class TestErrors:
    async def test_a_code_and_a_sentence_come_back(self, pool: ParserPool, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        error = await error_of(pool, path)
        assert (error.code, error.status) == ("unsupported", 422)
        assert "'a.png' is a PNG image" in error.detail

    async def test_a_missing_file_is_no_verdict_on_a_document(self, pool: ParserPool, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="No such file"):
            await pool.parse(tmp_path / "none.txt", "none.txt")


class TestDeaths:
    async def test_a_killed_job_may_be_tried_again(self, pool: ParserPool, tmp_path: Path) -> None:
        task = asyncio.create_task(pool.parse(endless(tmp_path), "slow.html"))
        await until_busy()
        (child,) = keepers()
        child.children()[0].send_signal(signal.SIGKILL)
        with pytest.raises(ParseError) as caught:
            await task
        assert (caught.value.code, caught.value.retriable) == ("out_of_memory", True)

    async def test_a_crashed_job_is_a_corrupt_file(self, pool: ParserPool, tmp_path: Path) -> None:
        task = asyncio.create_task(pool.parse(endless(tmp_path), "slow.html"))
        await until_busy()
        (child,) = keepers()
        child.children()[0].send_signal(signal.SIGSEGV)
        with pytest.raises(ParseError, match="SIGSEGV") as caught:
            await task
        assert (caught.value.code, caught.value.retriable) == ("corrupt", False)

    async def test_a_killed_child_is_replaced(self, pool: ParserPool, tmp_path: Path) -> None:
        path = text_file(tmp_path)
        await pool.parse(path, "a.txt")
        (child,) = keepers()
        child.kill()
        child.wait()
        assert (await pool.parse(path, "a.txt")).text == "Some words."

    async def test_cancelling_kills_child_and_job(self, pool: ParserPool, tmp_path: Path) -> None:
        task = asyncio.create_task(pool.parse(endless(tmp_path), "slow.html"))
        await until_busy()
        family = descendants()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not psutil.wait_procs(family, timeout=5)[1]

    async def test_the_pool_works_on_after_a_cancellation(self, pool: ParserPool, tmp_path: Path) -> None:
        task = asyncio.create_task(pool.parse(endless(tmp_path), "slow.html"))
        await until_busy()
        task.cancel()
        await asyncio.wait([task])
        assert (await pool.parse(text_file(tmp_path), "a.txt")).text == "Some words."

    async def test_closing_ends_busy_children(self, tmp_path: Path) -> None:
        pool = ParserPool(size=1)
        task = asyncio.create_task(pool.parse(endless(tmp_path), "slow.html"))
        await until_busy()
        family = descendants()
        await pool.close()
        with pytest.raises(Unavailable, match="closed"):
            await task
        assert not psutil.wait_procs(family, timeout=5)[1]

    async def test_a_closed_pool_parses_nothing(self, tmp_path: Path) -> None:
        pool = ParserPool()
        await pool.close()
        with pytest.raises(Unavailable, match="closed"):
            await pool.parse(text_file(tmp_path), "a.txt")

    @pytest.mark.skipif(sys.platform != "linux", reason="a parent-death signal is Linux's")
    async def test_children_and_jobs_die_with_their_parent(self, tmp_path: Path) -> None:
        program = (
            "import asyncio, sys\nfrom pathlib import Path\n"
            "from app.rag.components.parsers.pool import ParserPool\n"
            "asyncio.run(ParserPool().parse(Path(sys.argv[1]), 'slow.html'))\n"
        )
        with subprocess.Popen([sys.executable, "-c", program, str(endless(tmp_path))]) as parent:
            process = psutil.Process(parent.pid)
            while len(process.children(recursive=True)) < 2:
                await asyncio.sleep(0.01)
            family = process.children(recursive=True)
            parent.kill()
        assert not psutil.wait_procs(family, timeout=5)[1]


class TestConfinement:
    @pytest.fixture
    async def child(
        self, pool: ParserPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> psutil.Process:
        monkeypatch.setenv("ORRERY_MASTER_KEY", "canary")
        monkeypatch.setenv("OPENAI_API_KEY", "canary")
        await pool.parse(text_file(tmp_path), "a.txt")
        return keepers()[0]

    async def test_no_secret_is_in_the_environment(self, child: psutil.Process) -> None:
        try:
            environment = child.environ()
        except psutil.AccessDenied:
            pytest.skip("in its own user namespace a child is closed to its parent as well")
        assert "PATH" in environment
        assert "canary" not in json.dumps(environment)

    @pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs a superuser on Linux")
    async def test_no_network_where_the_kernel_allows_it(self, child: psutil.Process) -> None:
        devices = Path(f"/proc/{child.pid}/net/dev").read_text().splitlines()[2:]
        isolated = os.readlink(f"/proc/{child.pid}/ns/net") != os.readlink("/proc/self/ns/net")
        if not isolated:
            pytest.skip("this container may not unshare its network")
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]

    @pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
    async def test_a_job_has_limits(self, pool: ParserPool, tmp_path: Path) -> None:
        task = asyncio.create_task(pool.parse(endless(tmp_path), "slow.html", limits=SMALL))
        await until_busy()
        job = keepers()[0].children()[0]
        await asyncio.sleep(0.2)
        limits = {
            what: job.rlimit(what)[0]
            for what in (psutil.RLIMIT_CORE, psutil.RLIMIT_CPU, psutil.RLIMIT_NOFILE, psutil.RLIMIT_AS)
        }
        task.cancel()
        await asyncio.wait([task])
        assert limits[psutil.RLIMIT_CORE] == 0
        assert limits[psutil.RLIMIT_CPU] == 31
        assert limits[psutil.RLIMIT_NOFILE] == 64
        assert 2**28 < limits[psutil.RLIMIT_AS] < 2**28 + 2**30

    def test_what_a_child_imports_is_small(self) -> None:
        program = "import sys, app.rag.components.parsers.child; print(' '.join(sys.modules))"
        loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert not {"numpy", "pydantic", "docx", "tokenizers", "multiprocessing"} & set(loaded.stdout.split())
