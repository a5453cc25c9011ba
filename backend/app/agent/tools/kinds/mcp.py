"""`mcp`: the tools of an MCP server, over streamable HTTP.

What the server says of a tool is pinned when it is registered: models see that, and calls are refused
(`tool_changed`) while the server says something else. Servers that are started as a command are not offered:
that would be code of strangers on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import Field

from app.agent.core.base import Effect, Mistake
from app.agent.core.http import SecretHeader
from app.agent.core.interfaces import ToolFailed, ToolResult
from app.agent.graph.issues import listing
from app.agent.graph.nodes.http import HttpConfig, Secret
from app.agent.tools.headers import literal
from app.agent.tools.kind import (
    LONGEST_DESCRIPTION,
    Naming,
    Offer,
    Operation,
    Request,
    ToolConfig,
    ToolPorts,
    Unusable,
    tool_kind,
    unusable_field,
)
from app.agent.tools.schemas import UnusableSchema, parameters_of, safe_name


class McpTool(ToolConfig):
    """The MCP server at `url`, called with `headers`, which may carry secrets of the project.

    `operations` are the names of those of its tools that are wanted, all where it is null. A call counts as
    `write`: what servers say about that is a hint, which `trust_hints` believes, and `effects` says
    otherwise, by name.
    """

    kind: Literal["mcp"] = "mcp"
    url: Annotated[str, Field(min_length=1, max_length=2000, examples=["https://mcp.example/mcp"])]
    headers: Annotated[dict[str, str | Secret], Field(max_length=32)] = Field(default_factory=dict)
    operations: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    effects: dict[str, Effect] = Field(default_factory=dict)
    trust_hints: Annotated[bool, Field(strict=True)] = False

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        url, headers = raw.get("url"), raw.get("headers")
        checked = {"url": url.replace("{{", "{{{{") if isinstance(url, str) else url}
        yield from HttpConfig.mistakes(checked | {"headers": literal(headers)})


async def _offers(config: McpTool, _: Naming, ports: ToolPorts) -> Offer:
    async with _server(config, ports).conversation() as conversation:
        remote = await conversation.tools(ports.limits.max_operations, wanted=config.operations)
    names = {tool.name for tool in remote}
    for field, given in (("operations", config.operations or ()), ("effects", config.effects)):
        if unknown := [name for name in given if name not in names]:
            found = listing(sorted(names)) or "none"
            message = f"the server has no tool {unknown[0]!r}, or it is not among those wanted"
            raise unusable_field(field, f"{message} (found: {found})")
    operations: dict[str, Operation] = {}
    unusable: list[Unusable] = []
    for tool in remote:
        try:
            parameters = parameters_of(tool.input_schema)
        except UnusableSchema as error:
            unusable.append(Unusable(tool.name, error.detail))
            continue
        name = safe_name(tool.name, operations)
        operations[name] = Operation(
            name=name,
            description=(tool.description or tool.title or tool.name)[:LONGEST_DESCRIPTION],
            parameters=parameters,
            effect=_effect(config, tool),
            call={"name": tool.name},
            pin=_client().pin_of(tool),
        )
    return Offer(tuple(operations.values()), tuple(unusable))


@tool_kind("mcp", McpTool, offers=_offers, remote=True)
async def call_mcp(config: McpTool, request: Request, ports: ToolPorts) -> ToolResult:
    operation = request.operation
    remote_name = str(operation.call["name"])
    key = request.idempotency_key if operation.effect is Effect.WRITE else None
    async with _server(config, ports).conversation() as conversation:

        async def pins() -> Mapping[str, str]:
            most = ports.limits.max_operations
            tools = await conversation.tools(most, wanted=config.operations)
            return {tool.name: _client().pin_of(tool) for tool in tools}

        current = await ports.listings.get((ports.project, _digest(config)), pins)
        if current.get(remote_name) != operation.pin:
            said = "describes it otherwise than" if remote_name in current else "does not offer it as"
            raise ToolFailed(
                f"the MCP server {said} it was registered: look at the change and confirm it "
                "(POST /api/v1/tools/{tool}/refresh)",
                code="tool_changed",
            )
        found: ToolResult = await conversation.call(remote_name, request.arguments, key=key)
        return found


def _effect(config: McpTool, tool: Any) -> Effect:
    if tool.name in config.effects:
        return config.effects[tool.name]
    hinted = config.trust_hints and tool.annotations is not None and tool.annotations.read_only_hint
    return Effect.READ if hinted else Effect.WRITE


def _server(config: McpTool, ports: ToolPorts) -> Any:
    headers = {
        name: SecretHeader(value.secret, value.prefix) if isinstance(value, Secret) else value
        for name, value in config.headers.items()
    }
    return _client().McpServer(config.url, headers, ports.streams)


def _client() -> Any:
    """The client, which is loaded with the first server that is called."""
    return import_module("app.agent.tools.mcp_client")


def _digest(config: McpTool) -> str:
    return sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
