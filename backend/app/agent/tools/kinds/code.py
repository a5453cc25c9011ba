"""`code`: a function in Python, run in the sandbox of the node type `code`."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue

from app.agent.core.base import Effect, Mistake
from app.agent.core.interfaces import ToolResult
from app.agent.graph.code_rules import MAX_CODE, problems_of
from app.agent.graph.json_schema import sound_schema
from app.agent.tools.kind import Naming, Offer, Operation, Request, ToolConfig, ToolPorts, tool_kind
from app.agent.tools.registered import text_of

RESULT = "result"
_MOST_LOGS = 2_000
"""Characters of what was printed that a model is shown."""


def _no_parameters() -> dict[str, JsonValue]:
    return {"type": "object", "properties": {}}


class CodeTool(ToolConfig):
    """Runs `code`, statements of Python that reach no files, no network and no processes.

    `parameters` is the JSON Schema of the arguments, which are its variables at the beginning; one that was
    not given is null. What it has assigned to the variable `result` is what the call gives.
    """

    kind: Literal["code"] = "code"
    code: Annotated[str, Field(min_length=1, max_length=MAX_CODE)]
    parameters: Annotated[dict[str, JsonValue], AfterValidator(sound_schema)] = Field(
        default_factory=_no_parameters
    )

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        for name in _names(raw.get("parameters")):
            path = ("parameters", "properties", name)
            if not name.isidentifier() or keyword.iskeyword(name):
                yield Mistake(path, f"{name!r} cannot be a variable of Python", "choose another name")
            elif name == RESULT:
                yield Mistake(path, f"{name!r} is what the call gives", "choose another name")
        code = raw.get("code")
        if isinstance(code, str) and 0 < len(code) <= MAX_CODE:
            for problem in problems_of(code, [RESULT]):
                yield Mistake(("code",), str(problem), problem.fix)


def _names(parameters: object) -> list[str]:
    declared = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return [str(name) for name in declared] if isinstance(declared, Mapping) else []


async def _offers(config: CodeTool, naming: Naming, _: ToolPorts) -> Offer:
    operation = Operation(
        name=naming.slug,
        description=naming.description,
        parameters=config.parameters,
        effect=Effect.READ,
    )
    return Offer((operation,))


@tool_kind("code", CodeTool, offers=_offers)
async def call_code(config: CodeTool, request: Request, ports: ToolPorts) -> ToolResult:
    variables = {name: request.arguments.get(name) for name in _names(config.parameters)}
    outputs, logs = await ports.code.run(config.code, variables, (RESULT,))
    result = outputs.get(RESULT)
    said = f"\n\nprinted:\n{logs[:_MOST_LOGS]}" if logs else ""
    return ToolResult(result, f"{text_of(result)}{said}")
