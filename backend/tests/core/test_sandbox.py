"""Workers for code of strangers: what they are left with, and what code leaves behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from app.core.ids import new_id
from app.core.sandbox.code import CodeFailed, CodeLimits, CodePool, CodeTooCostly, open_code
from app.core.sandbox.workers import monty_program
from tests.core.jailed import BRIEF, SPACE, WAYS

pytestmark = pytest.mark.asyncio(loop_scope="module")
OTHERS: set[int] = set()
"""Workers of pools that other tests of this process opened."""


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=WAYS)
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[CodePool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORRERY_CANARY", "canary-in-the-environment")
        OTHERS.clear()
        OTHERS.update(child.pid for child in monty_processes())
        async with open_code(BRIEF, request.param) as opened:
            await opened.run("x = 1", {}, ["x"])
            yield opened


def monty_processes() -> Iterator[psutil.Process]:
    for child in psutil.Process().children(recursive=True):
        if child.pid not in OTHERS and (child.exe() == str(monty_program()) or child.name() == "program"):
            yield child


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
class TestWorkers:
    async def test_have_no_environment(self, pool: CodePool) -> None:
        found = [child.environ() for child in monty_processes()]
        assert found
        assert all(set(environment) <= {"PWD"} for environment in found)

    async def test_are_offline(self, pool: CodePool) -> None:
        ours = Path("/proc/self/ns/net").readlink()
        assert all(Path(f"/proc/{child.pid}/ns/net").readlink() != ours for child in monty_processes())

    async def test_get_no_new_privileges(self, pool: CodePool) -> None:
        for child in monty_processes():
            assert "NoNewPrivs:\t1" in Path(f"/proc/{child.pid}/status").read_text()

    async def test_have_bounded_memory_and_write_no_files(self, pool: CodePool) -> None:
        for child in monty_processes():
            assert child.rlimit(psutil.RLIMIT_AS) == (SPACE, SPACE)
            assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
            assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)

    async def test_in_bubblewrap_see_nothing_of_the_machine(self, pool: CodePool) -> None:
        if pool.workers.jail is None or pool.workers.jail.bubblewrap is None:
            pytest.skip("this one is not in bubblewrap")
        for child in monty_processes():
            root = Path(f"/proc/{child.pid}/root")
            assert not {entry.name for entry in root.iterdir()} - {"program", "lib", "lib64", "usr"}
            assert "CapEff:\t0000000000000000" in Path(f"/proc/{child.pid}/status").read_text()

    async def test_end_with_the_pool(self) -> None:
        others = {child.pid for child in monty_processes()}
        async with open_code(BRIEF) as opened:
            await opened.run("x = 1", {}, ["x"])
            mine = {child.pid for child in monty_processes()} - others
            assert len(mine) == 1
        async with asyncio.timeout(10):
            while any(psutil.pid_exists(pid) for pid in mine):
                await asyncio.sleep(0.01)


class TestCode:
    async def test_leaves_its_variables_and_what_it_printed(self, pool: CodePool) -> None:
        code = (
            "import math\nfor n in ns:\n    print('n', n)\nroot = math.sqrt(ns[-1])\nrest = (1, {'é': True})"
        )
        outputs, logs = await pool.run(code, {"ns": [4, 9]}, ["root", "rest"])
        assert outputs == {"root": 3.0, "rest": [1, {"é": True}]}
        assert logs == "n 4\nn 9\n"

    async def test_needs_no_outputs(self, pool: CodePool) -> None:
        assert await pool.run("x = 1", {}, []) == ({}, "")

    async def test_may_end_with_a_comment_or_a_block(self, pool: CodePool) -> None:
        assert await pool.run("x = 1  # one", {}, ["x"]) == ({"x": 1}, "")
        assert await pool.run("x = 0\nif x == 0:\n    x = 2", {}, ["x"]) == ({"x": 2}, "")

    async def test_knows_nothing_of_code_before(self, pool: CodePool) -> None:
        for _ in range(4):
            await pool.run("mine = 1", {}, ["mine"])
        with pytest.raises(CodeFailed, match="NameError"):
            await pool.run("x = mine", {}, ["x"])

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("x = 1\ny = x / 0", "line 2: ZeroDivisionError"),
            ("def f(a):\n    return a['k']\n\nf({})", "line 2: KeyError: k"),
            ("raise ValueError('too small')", "^ValueError: too small"),
            ("if False:\n    x = 1", "its outputs are not there, or not JSON: NameError: name 'x'"),
            ("x = {1, 2}", "its outputs are not there, or not JSON: TypeError: Object of type set"),
            ("x = float('nan')", "its outputs are not there, or not JSON: ValueError: Out of range"),
            ("x = 2**53", "what JSON cannot carry: an integer beyond"),
            ("x = []\nx.append(x)", "Circular reference"),
            ("x = lambda: 1", "function is not JSON serializable"),
        ],
    )
    async def test_that_fails_says_where_and_why(self, pool: CodePool, code: str, said: str) -> None:
        with pytest.raises(CodeFailed, match=said) as failure:
            await pool.run(code, {}, ["x"])
        assert failure.value.code == "code_failed"

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("while True:\n    pass", "takes longer than 0.2 s"),
            ("x = 9**9**7", "takes longer than 0.2 s"),
            ("x = 'a' * 10**9", f"needs more than {16 * 2**20} bytes"),
            ("def f():\n    return f()\nf()", "recurses deeper than 200 calls"),
            ("x = 'a' * 6000", "the outputs come to more than 5000 bytes"),
            ("print('a' * 600)", "prints more than 500 bytes"),
            ("x = 1\nfor _ in range(40):\n    x = [x]", "nested deeper than 32 levels"),
        ],
    )
    async def test_that_costs_too_much_says_which_limit(self, pool: CodePool, code: str, said: str) -> None:
        with pytest.raises(CodeTooCostly, match=said):
            await pool.run(f"x = 0\n{code}", {}, ["x"])
        assert await pool.run("x = 1", {}, ["x"]) == ({"x": 1}, "")

    async def test_that_is_cancelled_leaves_its_place_to_others(self, pool: CodePool) -> None:
        mine = pool.of(new_id())
        running = asyncio.create_task(mine.run("while True:\n    pass", {}, []))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert await mine.run("x = 1", {}, ["x"]) == ({"x": 1}, "")

    async def test_of_one_organization_leaves_a_worker_to_the_others(self) -> None:
        limits = CodeLimits(timeout_s=5, grace_s=1, processes=2, wait_s=0.05)
        async with open_code(limits) as opened:
            mine, theirs = new_id(), new_id()
            flood = [
                asyncio.create_task(opened.of(mine).run("while True:\n    pass", {}, [])) for _ in range(4)
            ]
            refused, going_on = await asyncio.wait(flood, timeout=2)
            assert await opened.of(theirs).run("x = 1", {}, ["x"]) == ({"x": 1}, "")
            assert {str(task.exception()) for task in refused} == {
                "All of the 2 workers for code that may be used are busy (ORRERY_CODE_PROCESSES); try again."
            }
            assert (len(refused), len(going_on)) == (3, 1)
            for task in going_on:
                task.cancel()
            await asyncio.wait(flood)
