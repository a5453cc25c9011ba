"""A tool call that is one HTTP request: what is sent for its arguments, and what its answer gives."""

from __future__ import annotations

from dataclasses import replace

from app.agent.core.base import Effect
from app.agent.core.http import HttpReply, HttpRequest
from app.agent.core.interfaces import ToolResult
from app.agent.graph.nodes.http import HttpConfig, exchange
from app.agent.graph.references import Template
from app.agent.tools.arguments import Arguments
from app.agent.tools.kind import Request, ToolPorts
from app.agent.tools.registered import text_of

IDEMPOTENCY_KEY = "Idempotency-Key"


async def exchanged(config: HttpConfig, request: Request, ports: ToolPorts) -> ToolResult:
    """Raises `HttpFailed`, `NodeError`."""
    arguments = Arguments(request.arguments)

    async def send(message: HttpRequest) -> HttpReply:
        key, given = request.idempotency_key, {name.lower() for name in message.headers}
        if key and request.operation.effect is Effect.WRITE and IDEMPOTENCY_KEY.lower() not in given:
            message = replace(message, headers={**message.headers, IDEMPOTENCY_KEY: key})
        return await ports.http.send(message)

    outputs = await exchange(_given(config, arguments), arguments, send)
    return ToolResult(outputs["body"], text_of(outputs["body"]))


def _given(config: HttpConfig, arguments: Arguments) -> HttpConfig:
    """Without the headers and the body that are nothing but an argument which was not given."""
    headers = {
        name: value
        for name, value in config.headers.items()
        if not (isinstance(value, Template) and _absent(value, arguments))
    }
    body = {
        kind: value
        for kind, value in config.body.items()
        if not (isinstance(value.parsed, Template) and _absent(value.parsed, arguments))
    }
    return config.model_copy(update={"headers": headers, "body": body})


def _absent(template: Template, arguments: Arguments) -> bool:
    chain = template.chain
    return chain is not None and arguments.value(chain) is None
