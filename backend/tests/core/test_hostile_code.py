"""Hostile code and expressions: they reach nothing, cost little, and the platform goes on (G13)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from app.core.errors import AppError
from app.core.expressions import ExpressionLimits, ExpressionPool, open_expressions
from app.core.sandbox.code import CodePool, open_code
from tests.core.jailed import BRIEF, WAYS

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "canary-5fd2"
"""In the environment of this process, and in a file that anybody may read."""

READING = (
    "x = open('/etc/passwd').read()",
    "x = open('{secret}').read()",
    "x = open('{data}/' + 'secret').read()",
    "x = open('/proc/self/environ').read()",
    "x = open('/proc/1/environ').read()",
    "x = open('/proc/{parent}/environ').read()",
    "x = open('../../../../../../{secret}').read()",
    "x = open('file://{secret}').read()",
    "x = open(0).read()",
    "x = open(1, 'w').write('x')",
    "x = open('{data}/made', 'w').write('x')",
    "x = open('{data}/made', 'a').write('x')",
    "with open('{secret}') as f:\n    x = f.read()",
    "import pathlib\nx = pathlib.Path('{secret}').read_text()",
    "import pathlib\nx = [str(p) for p in pathlib.Path('{data}').iterdir()]",
    "import pathlib\nx = [str(p) for p in pathlib.Path('/').glob('**/*')][0]",
    "import pathlib\nx = pathlib.Path('{data}/made').write_text('x')",
    "import pathlib\nx = pathlib.Path('{secret}').unlink()",
    "import os\nx = os.listdir('{data}')",
    "import os\nx = os.listdir('/')",
    "import os\nx = os.remove('{secret}')",
    "import os\nx = os.rename('{secret}', '{data}/made')",
    "import os\nx = os.mkdir('{data}/made')",
)
ENVIRONMENT = (
    "import os\nx = os.environ['ORRERY_CANARY']",
    "import os\nx = dict(os.environ)",
    "import os\nx = os.getenv('ORRERY_CANARY')",
    "from os import environ as e\nx = e.get('ORRERY_CANARY')",
    "import sys\nx = sys.modules['os'].environ",
    "import sys\nx = sys.argv[1]",
    "import os.path\nx = os.path.expandvars('$ORRERY_CANARY') + 1",
    "import os.path\nx = os.path.expanduser('~') + 1",
)
PROCESSES = (
    "import os\nx = os.system('touch {data}/made')",
    "import os\nx = os.popen('id').read()",
    "import os\nx = os.fork()",
    "import os\nx = os.execv('/bin/sh', ['sh'])",
    "import os\nx = os.kill({parent}, 9)",
    "import subprocess\nx = subprocess.check_output('id')",
    "import multiprocessing\nx = 1",
    "import threading\nx = 1",
    "import signal\nx = signal.raise_signal(9)",
    "import ctypes\nx = ctypes.CDLL(None)",
    "import importlib\nx = importlib.import_module('os')",
    "import builtins\nx = builtins.open",
    "import pickle\nx = pickle.loads(b'')",
    "import gc\nx = gc.get_objects()",
    "import inspect\nx = inspect.stack()",
    "import sys\nx = sys._getframe()",
    "import sys\nx = sys.exit(0)",
    "raise SystemExit(0)",
    "x = __import__('os').system('id')",
    "x = __builtins__",
    "x = breakpoint()",
    "x = input()",
    "x = compile('1', '', 'eval')",
)
NETWORK = (
    "import socket\nx = socket.create_connection(('127.0.0.1', {port}))",
    "import urllib.request\nx = urllib.request.urlopen('http://127.0.0.1:{port}/').read()",
    "import http.client\nx = http.client.HTTPConnection('127.0.0.1', {port})",
    "import asyncio\nx = asyncio.open_connection('127.0.0.1', {port})",
    "import ssl\nx = 1",
    "x = open('http://127.0.0.1:{port}/').read()",
    "x = open('/dev/tcp/127.0.0.1/{port}').read()",
)
WALKS = (
    "x = ().__class__.__bases__[0].__subclasses__()",
    "x = ''.__class__.__mro__",
    "x = (lambda: 0).__globals__",
    "x = (lambda: 0).__code__.co_consts",
    "x = getattr('', '__cla' + 'ss__')",
    "x = type('').__subclasses__(type(''))",
    "x = type('X', (), {{}}).__bases__[0].__subclasses__()",
    "x = '{{0.__class__.__init__.__globals__}}'.format(1)",
    "x = '{{0.__class__}}'.format_map({{}})",
    "x = f'{{(1).__class__}}'",
    "def f():\n    pass\nx = f.__globals__['__builtins__']",
    "class A:\n    pass\nx = A.__subclasses__()",
    "class A:\n    pass\nx = A().__init__.__globals__",
    "try:\n    1 / 0\nexcept Exception as e:\n    x = e.__traceback__.tb_frame.f_globals",
    "x = globals()",
    "x = vars()",
    "x = object.__reduce_ex__(1, 2)",
    "x = [y for y in ().__class__.__base__.__subclasses__()]",
    "import re\nx = re.sys",
    "import json\nx = json.codecs",
    "from collections import sys\nx = sys",
    "import math\nx = math.__loader__",
)
COSTLY = (
    "while True:\n    pass",
    "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
    "for _ in range(10**15):\n    pass",
    "def f():\n    try:\n        f()\n    finally:\n        f()\nf()",
    "def f(n):\n    return f(n + 1)\nf(0)",
    "x = (lambda f: f(f))(lambda f: f(f))",
    "x = 9**9**7",
    "x = 9**9**9",
    "x = 1 << 10**10",
    "x = 2\nfor _ in range(60):\n    x = x * x",
    "x = int('9' * 10**7)",
    "x = str(10**10**5)",
    "x = 'a' * 10**10",
    "x = b'a' * 10**10",
    "x = [0] * 10**10",
    "x = 'a'\nwhile True:\n    x += x",
    "x = []\nwhile True:\n    x.append('x' * 1000)",
    "x = {{}}\nfor i in range(10**9):\n    x[i] = i",
    "x = set(range(10**9))",
    "x = [[0] * 1000] * 1000\nx = [x] * 1000",
    "x = []\nfor _ in range(60):\n    x = [x, x]",
    "x = '%10000000000d' % 1",
    "x = f'{{1:10000000000d}}'",
    "x = 'a'.ljust(10**10)",
    "x = 'aa'.replace('a', 'b' * 10**6).replace('b', 'c' * 10**6)",
    "import re\nx = 1 if re.match('(a+)+$', 'a' * 5000 + 'b') else 1 / 0",
    "import re\nx = 1 if re.match('(a|a)*$', 'a' * 5000 + 'b') else 1 / 0",
    "import re\nx = 1 if re.search('(.*)*(.*)*(.*)*x', 'a' * 50000) else 1 / 0",
    "import json\nx = json.loads('[' * 10**6)",
    "import itertools\nx = list(itertools.product(range(100), repeat=10))",
    "import itertools\nx = sum(itertools.count())",
    "import math\nx = math.factorial(10**7)",
    "import time\ntime.sleep(10**6)",
    "import decimal\nx = str(decimal.Decimal(10) ** decimal.Decimal(10**9) + 1)",
    "for i in range(10**9):\n    print(i)",
    "print('x' * 10**7)",
    "x = 'x' * 10**6",
    "x = (" * 5000,
    "x = " + "-" * 20_000 + "1",
    "x = " + "1+" * 20_000 + "1",
)
CORPUS = (*READING, *ENVIRONMENT, *PROCESSES, *NETWORK, *WALKS, *COSTLY)


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=WAYS)
async def code(request: pytest.FixtureRequest) -> AsyncIterator[CodePool]:
    async with open_code(BRIEF, request.param) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=WAYS)
async def expressions(request: pytest.FixtureRequest) -> AsyncIterator[ExpressionPool]:
    async with open_expressions(ExpressionLimits(timeout_s=0.1, grace_s=0.1), request.param) as opened:
        yield opened


@pytest.fixture(autouse=True, scope="module")
def canary() -> Any:
    """Set before the first worker starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORRERY_CANARY", CANARY)
        yield


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def listener() -> AsyncIterator[tuple[int, list[Any]]]:
    """A port of this machine where nobody should ever come, and who did."""
    visits: list[Any] = []

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(writer.get_extra_info("peername"))
        writer.close()

    async with await asyncio.start_server(met, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], visits


@pytest.fixture
def prey(tmp_path: Path) -> Path:
    """A data folder with a secret in it."""
    (tmp_path / "secret").write_text(CANARY)
    (tmp_path / "secret").chmod(0o644)
    return tmp_path


def aimed(hostile: str, prey: Path, port: int) -> str:
    if "{" not in hostile:
        return hostile
    return hostile.format(secret=prey / "secret", data=prey, parent=os.getpid(), port=port)


async def test_there_are_many() -> None:
    assert len(set(CORPUS)) == len(CORPUS) >= 60


@pytest.mark.parametrize("hostile", CORPUS, ids=range(len(CORPUS)))
async def test_code_fails_and_the_next_one_runs(
    code: CodePool, listener: tuple[int, list[Any]], prey: Path, hostile: str
) -> None:
    port, visits = listener
    before = psutil.Process().memory_info().rss
    with pytest.raises(AppError) as failure:
        async with asyncio.timeout(20):
            await code.run(aimed(hostile, prey, port), {}, ["x"])
    assert failure.value.code in ("code_failed", "code_limit")
    assert CANARY not in str(failure.value)
    assert await code.run("x = 1 + 1", {}, ["x"]) == ({"x": 2}, "")
    assert psutil.Process().memory_info().rss - before < 4 * BRIEF.memory_bytes
    assert [path.name for path in prey.iterdir()] == ["secret"]
    assert (prey / "secret").read_text() == CANARY
    assert visits == []


SINGLE = [
    hostile.removeprefix("x = ") for hostile in CORPUS if hostile.startswith("x = ") and "\n" not in hostile
]


@pytest.mark.parametrize("hostile", SINGLE, ids=range(len(SINGLE)))
async def test_expressions_fail_and_the_next_one_is_evaluated(
    expressions: ExpressionPool, listener: tuple[int, list[Any]], prey: Path, hostile: str
) -> None:
    """Whatever passed the rules for expressions: these come to the evaluator as they are."""
    port, visits = listener
    if hostile == "'x' * 10**6":
        pytest.skip("an expression may give as much")
    with pytest.raises(AppError) as failure:
        async with asyncio.timeout(20):
            await expressions.evaluate(aimed(hostile, prey, port), {})
    assert failure.value.code in ("expression_failed", "expression_limit")
    assert await expressions.evaluate("1 + 1", {}) == 2
    assert [path.name for path in prey.iterdir()] == ["secret"]
    assert visits == []
