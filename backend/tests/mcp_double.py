"""The other side of MCP: a real server, made with the package `mcp`, over streamable HTTP on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

from tests.fixtures import no_signals

ADD: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
ANY: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string"}}}
TOOLS = (
    Tool(name="add", description="Adds two numbers.", input_schema=ADD),
    Tool(
        name="look.up",
        description="Looks something up.",
        input_schema=ANY,
        annotations=ToolAnnotations(read_only_hint=True),
    ),
    Tool(name="paint", description="Paints a picture.", input_schema=ANY),
    Tool(name="refuse", description="Always fails.", input_schema=ANY),
)


@dataclass(slots=True)
class McpDouble:
    """Offers `tools`, which may be changed meanwhile; `calls` and `headers` are what has arrived."""

    url: str = ""
    token: str | None = None
    page: int = 100
    tools: list[Tool] = field(default_factory=lambda: [tool.model_copy(deep=True) for tool in TOOLS])
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)

    @property
    def authority(self) -> str:
        return self.url.removeprefix("http://").partition("/")[0]

    async def list(self, _: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        start = int(params.cursor) if params and params.cursor else 0
        end = start + self.page
        more = str(end) if end < len(self.tools) else None
        return ListToolsResult(tools=self.tools[start:end], next_cursor=more)

    async def call(self, _: Any, params: CallToolRequestParams) -> CallToolResult:
        given = dict(params.arguments or {})
        self.calls.append((params.name, given))
        match params.name:
            case "add":
                total = given["a"] + given["b"]
                said = [TextContent(text=str(total))]
                return CallToolResult(content=[*said], structured_content={"sum": total})
            case "paint":
                return CallToolResult(
                    content=[TextContent(text="Here:"), ImageContent(data="aGk=", mime_type="image/png")]
                )
            case "refuse":
                return CallToolResult(content=[TextContent(text="I will not.")], is_error=True)
        return CallToolResult(content=[TextContent(text=f"Found {given.get('text', 'nothing')}.")])


@asynccontextmanager
async def mcp_double(*, token: str | None = None, json_response: bool = False) -> AsyncIterator[McpDouble]:
    """Listens at a free port; with a `token`, other callers are turned away."""
    made = McpDouble(token=token)
    server: Any = Server("double", version="1", on_list_tools=made.list, on_call_tool=made.call)
    app = _noting(server.streamable_http_app(json_response=json_response), made)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    running.capture_signals = no_signals  # type: ignore[method-assign]
    task = asyncio.create_task(running.serve())
    try:
        while not running.started:
            await asyncio.sleep(0.005)
        port = running.servers[0].sockets[0].getsockname()[1]
        made.url = f"http://127.0.0.1:{port}/mcp"
        yield made
    finally:
        running.should_exit = True
        await task


def _noting(app: Any, made: McpDouble) -> Any:
    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            made.headers.append(headers)
            made.methods.append(scope["method"])
            if made.token and headers.get("authorization") != f"Bearer {made.token}":
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b"who are you?"})
                return
        await app(scope, receive, send)

    return noting
