"""The kind `code` of tools: a function in Python, in the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.agent.core.interfaces import ToolFailed
from app.agent.tools.kind import ToolPorts
from app.agent.tools.kinds.code import CodeTool
from app.core.ids import new_id
from app.core.sandbox.code import CodeLimits, open_code
from tests.agent.tool_calls import ports, registered

PRICE: dict[str, Any] = {
    "type": "object",
    "properties": {"net": {"type": "number"}, "rate": {"type": "number", "default": 19}, "note": {}},
    "required": ["net"],
}


@pytest_asyncio.fixture
async def sandbox() -> AsyncIterator[ToolPorts]:
    async with open_code(CodeLimits(timeout_s=2)) as pool:
        yield ports(None, code=pool.of(new_id()))


def tool(code: str, parameters: dict[str, Any] = PRICE) -> dict[str, Any]:
    return {"kind": "code", "code": code, "parameters": parameters}


async def call(sandbox: ToolPorts, code: str, **arguments: Any) -> Any:
    offered = await registered(tool(code), sandbox)
    return await offered["tool"].call(arguments, idempotency_key=None)


async def test_arguments_are_variables_and_result_is_what_it_gives(sandbox: ToolPorts) -> None:
    gave = await call(sandbox, "result = {'gross': net + rate, 'note': note}\nprint('done')", net=100)
    assert gave.content == {"gross": 119, "note": None}
    assert gave.text.endswith("printed:\ndone\n")


async def test_arguments_must_fit(sandbox: ToolPorts) -> None:
    for arguments in ({}, {"net": "much"}):
        with pytest.raises(ToolFailed) as failure:
            await call(sandbox, "result = net", **arguments)
        assert failure.value.code == "invalid_arguments"


async def test_what_goes_wrong_in_it_is_told(sandbox: ToolPorts) -> None:
    with pytest.raises(ToolFailed) as failure:
        await call(sandbox, "result = 1 / net", net=0)
    assert failure.value.code == "code_failed"


async def test_it_cannot_run_for_ever(sandbox: ToolPorts) -> None:
    with pytest.raises(ToolFailed) as failure:
        await call(sandbox, "while True:\n    pass\nresult = 1", net=0)
    assert failure.value.code == "code_limit"


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (tool("x = 1"), ("code",)),
        (tool("result = "), ("code",)),
        (tool("import os\nresult = 1"), ("code",)),
        (tool("result = 1", {"properties": {"a-b": {}}}), ("parameters", "properties", "a-b")),
        (tool("result = 1", {"properties": {"class": {}}}), ("parameters", "properties", "class")),
        (tool("result = 1", {"properties": {"result": {}}}), ("parameters", "properties", "result")),
    ],
)
def test_what_cannot_run_is_refused_when_it_is_registered(config: dict[str, Any], path: Any) -> None:
    (mistake,) = CodeTool.mistakes(config)
    assert mistake.path == path
