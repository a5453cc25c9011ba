"""`http`: one HTTP request, made of the arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue

from app.agent.core.base import Effect, Mistake
from app.agent.core.interfaces import ToolResult
from app.agent.graph.json_schema import sound_schema
from app.agent.graph.nodes.http import HttpConfig
from app.agent.tools.arguments import reference_mistakes
from app.agent.tools.exchange import exchanged
from app.agent.tools.kind import Naming, Offer, Operation, Request, ToolConfig, ToolPorts, tool_kind


def _no_parameters() -> dict[str, JsonValue]:
    return {"type": "object", "properties": {}}


class HttpTool(ToolConfig):
    """`request` is configured as a node of the type `http`, with references `{{ arguments.<name> }}`.

    `parameters` is the JSON Schema of the arguments. One that was not given is null; a header or a body that
    is nothing but such an argument is left out. `effect` says what a call does where the method does not.
    """

    kind: Literal["http"] = "http"
    request: HttpConfig
    parameters: Annotated[dict[str, JsonValue], AfterValidator(sound_schema)] = Field(
        default_factory=_no_parameters
    )
    effect: Effect | None = None

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        request, schema = raw.get("request"), raw.get("parameters")
        if isinstance(request, dict):
            declared = schema if isinstance(schema, dict) else {}
            for mistake in (*HttpConfig.mistakes(request), *reference_mistakes(request, declared)):
                yield replace(mistake, path=("request", *mistake.path))


async def _offers(config: HttpTool, naming: Naming, _: ToolPorts) -> Offer:
    operation = Operation(
        name=naming.slug,
        description=naming.description,
        parameters=config.parameters,
        effect=config.effect or config.request.effect(),
    )
    return Offer((operation,))


@tool_kind("http", HttpTool, offers=_offers)
async def call_http(config: HttpTool, request: Request, ports: ToolPorts) -> ToolResult:
    return await exchanged(config.request, request, ports)
