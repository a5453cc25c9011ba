"""A thin client of MCP servers over streamable HTTP: lists their tools, and calls them.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports. Each conversation is one session:
it is opened, asked, and closed. Everything goes out through the platform's own way out. The types are those
of the package `mcp_types`, which is loaded with this module, when the first server is called.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

from mcp_types import CallToolResult, InitializeResult, ListToolsResult, TextContent
from mcp_types import Tool as RemoteTool
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION
from pydantic import BaseModel, ValidationError

from app.agent.core.http import HttpFailed, HttpRequest, HttpStream, HttpStreams, SecretHeader
from app.agent.core.interfaces import ToolFailed, ToolResult
from app.agent.tools.registered import text_of
from app.core.retry_after import retry_after_s

_MOST_PAGES = 100
_QUOTED = 300
_CLIENT = {"name": "orrery", "version": "1"}
Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class McpServer:
    """Where a server is, and what every request to it carries."""

    url: str
    headers: Mapping[str, str | SecretHeader]
    streams: HttpStreams

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        """A session of the server, if it has any. Raises `ToolFailed`."""
        conversation = Conversation(self)
        try:
            await conversation.open()
            yield conversation
        finally:
            await conversation.close()


@dataclass(slots=True)
class Conversation:
    """Requests to a server, one after the other."""

    server: McpServer
    session: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    async def open(self) -> None:
        offer = {"protocolVersion": LATEST_HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": _CLIENT}
        welcome = await self._ask("initialize", offer, InitializeResult)
        if welcome.protocol_version not in HANDSHAKE_PROTOCOL_VERSIONS:
            raise _wrong(f"it speaks the version {welcome.protocol_version[:40]!r} of MCP, which is unknown")
        self.session["MCP-Protocol-Version"] = welcome.protocol_version
        await self._tell("notifications/initialized")

    async def close(self) -> None:
        """Best effort: a server may not have it, and forgets sessions by itself."""
        if "Mcp-Session-Id" not in self.session:
            return
        request = HttpRequest("DELETE", self.server.url, self._headers(), follow=False)
        with suppress(HttpFailed):
            async with self.server.streams.stream(request):
                pass

    async def tools(self, most: int, *, wanted: Collection[str] | None = None) -> list[RemoteTool]:
        """Those that are `wanted`, or all; `most` at most."""
        found: dict[str, RemoteTool] = {}
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await self._ask("tools/list", {"cursor": cursor} if cursor else {}, ListToolsResult)
            found |= {tool.name: tool for tool in page.tools if wanted is None or tool.name in wanted}
            if len(found) > most:
                raise ToolFailed(
                    f"the MCP server offers more than {most} tools: name those wanted", code="too_large"
                )
            cursor = page.next_cursor
            if not cursor:
                return list(found.values())
        raise _wrong(f"its list of tools has more than {_MOST_PAGES} pages")

    async def call(self, name: str, arguments: Mapping[str, Any], *, key: str | None) -> ToolResult:
        params = {"name": name, "arguments": dict(arguments)}
        headers = {"Idempotency-Key": key} if key else {}
        return _result(await self._ask("tools/call", params, CallToolResult, headers=headers))

    async def _ask(
        self,
        method: str,
        params: Mapping[str, Any],
        answer: type[Answer],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        self.asked += 1
        message = {"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params}
        async with self._sent(message, headers or {}) as reply:
            found = await _answer_to(self.asked, reply)
            if session := reply.headers.get("mcp-session-id"):
                self.session["Mcp-Session-Id"] = session
        if isinstance(error := found.get("error"), dict):
            said = " ".join(str(error.get("message", ""))[: 4 * _QUOTED].split())[:_QUOTED]
            raise ToolFailed(f"the MCP server refused {method!r}: {said}", code="tool_error")
        try:
            return answer.model_validate(found.get("result"))
        except (ValidationError, RecursionError) as error:
            raise _wrong(f"its answer to {method!r} is none of the protocol") from error

    async def _tell(self, method: str) -> None:
        async with self._sent({"jsonrpc": "2.0", "method": method}, {}):
            pass

    @asynccontextmanager
    async def _sent(
        self, message: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[HttpStream]:
        """The answer to a message, if it is no failure. Redirects are none that a POST should follow."""
        request = HttpRequest(
            "POST",
            self.server.url,
            {**self._headers(), **headers, "Content-Type": "application/json"},
            json.dumps(message, ensure_ascii=False).encode(errors="replace"),
            follow=False,
        )
        try:
            async with self.server.streams.stream(request) as reply:
                if not 200 <= reply.status < 300:
                    raise _refused(reply)
                yield reply
        except HttpFailed as error:
            raise ToolFailed(f"the MCP server: {error.detail}", code=error.code) from error

    def _headers(self) -> dict[str, str | SecretHeader]:
        accepted = {"Accept": "application/json, text/event-stream"}
        return {**self.server.headers, **accepted, **self.session}


async def _answer_to(number: int, reply: HttpStream) -> Mapping[str, Any]:
    """The answer with this id, whole or out of a stream of events; whatever else is said is passed over."""
    if reply.headers.get("content-type", "").startswith("text/event-stream"):
        async for payload in reply.events():
            if payload.strip() and (found := _answer_in(_parsed(payload), number)):
                return found
        raise ToolFailed("the MCP server ended its answer before it was complete", code="server_error")
    if found := _answer_in(_parsed(await reply.text()), number):
        return found
    raise _wrong("what it sent is no answer to what it was asked")


def _answer_in(message: Any, number: int) -> dict[str, Any] | None:
    if not isinstance(message, dict) or message.get("id") not in (number, str(number)):
        return None
    return message if "result" in message or "error" in message else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong("what it sent is not JSON") from error


def _refused(reply: HttpStream) -> ToolFailed:
    status = reply.status
    code = "rate_limit" if status == 429 else "server_error" if status >= 500 else "http_status"
    message = f"the MCP server answered {status}"
    return ToolFailed(message, code=code, retry_after_s=retry_after_s(reply.headers))


def _wrong(message: str) -> ToolFailed:
    return ToolFailed(f"the MCP server does not keep to the protocol: {message}", code="invalid_response")


def _result(given: CallToolResult) -> ToolResult:
    texts = [block.text if isinstance(block, TextContent) else _told(block) for block in given.content]
    text = "\n".join(texts)
    if given.structured_content is not None:
        return ToolResult(given.structured_content, text or text_of(given.structured_content), given.is_error)
    if len(given.content) == 1 and isinstance(given.content[0], TextContent):
        return ToolResult(text, text, given.is_error)
    content = [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in given.content]
    return ToolResult(content, text, given.is_error)


def _told(block: Any) -> str:
    """What a model is told of a part that is no text."""
    kind = getattr(block, "mime_type", None) or getattr(block, "uri", None)
    return f"[{block.type}{f': {kind}' if kind else ''}]"


def pin_of(tool: RemoteTool) -> str:
    """The hash of all that the server says of a tool."""
    said = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
    said.pop("_meta", None)
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
