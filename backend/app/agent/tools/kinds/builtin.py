"""`builtin`: small functions that need nobody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.agent.core.base import Effect
from app.agent.core.interfaces import ToolFailed, ToolResult
from app.agent.graph.expressions import ExpressionError, parse_expression
from app.agent.graph.references import TemplateError
from app.agent.tools.arguments import Arguments
from app.agent.tools.kind import Naming, Offer, Operation, Request, ToolConfig, ToolPorts, tool_kind
from app.agent.tools.registered import text_of


class BuiltinTool(ToolConfig):
    """A function of the platform: `current_time` in any time zone, or `calculator`."""

    kind: Literal["builtin"] = "builtin"
    function: Literal["current_time", "calculator"]


@dataclass(frozen=True, slots=True)
class _Function:
    description: str
    parameters: Mapping[str, Any]
    effect: Effect
    run: Callable[[Mapping[str, Any], ToolPorts], Awaitable[Any]]


async def _offers(config: BuiltinTool, naming: Naming, _: ToolPorts) -> Offer:
    function = _FUNCTIONS[config.function]
    return Offer(
        (
            Operation(
                name=naming.slug,
                description=naming.description or function.description,
                parameters=dict(function.parameters),
                effect=function.effect,
            ),
        )
    )


@tool_kind("builtin", BuiltinTool, offers=_offers)
async def call_builtin(config: BuiltinTool, request: Request, ports: ToolPorts) -> ToolResult:
    value = await _FUNCTIONS[config.function].run(request.arguments, ports)
    return ToolResult(value, text_of(value))


async def _current_time(arguments: Mapping[str, Any], _: ToolPorts) -> Any:
    name = arguments["time_zone"]
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"{name[:100]!r} is no time zone of the IANA database, such as 'Europe/Berlin' or 'UTC'"
        raise ToolFailed(message, code="invalid_arguments") from None
    now = datetime.now(UTC).astimezone(zone)
    return {
        "time": now.isoformat(timespec="seconds"),
        "time_zone": name,
        "weekday": f"{now:%A}",
        "unix": int(now.timestamp()),
    }


async def _calculate(arguments: Mapping[str, Any], ports: ToolPorts) -> Any:
    try:
        expression = parse_expression(arguments["expression"])
        if expression.names:
            raise ExpressionError("references have no place here", 0)
    except TemplateError as error:
        message = f"{error.message} (at character {error.position})"
        raise ToolFailed(message, code="invalid_arguments") from error
    value = await expression.value(Arguments({}), ports.expressions)
    if not isinstance(value, int | float | str) and value is not None:
        raise ToolFailed("the expression gives no number", code="invalid_arguments")
    return value


_FUNCTIONS: Mapping[str, _Function] = {
    "current_time": _Function(
        "The current date and time in a time zone.",
        {
            "type": "object",
            "properties": {
                "time_zone": {
                    "type": "string",
                    "description": "Name in the IANA database, such as Europe/Berlin",
                    "default": "UTC",
                    "maxLength": 100,
                }
            },
            "additionalProperties": False,
        },
        Effect.READ,
        _current_time,
    ),
    "calculator": _Function(
        "Evaluates an arithmetic expression, such as (17.5 + 3) * 2 ** 4 / 3.",
        {
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "description": "In Python's notation: + - * / // % ** and parentheses",
                    "minLength": 1,
                    "maxLength": 2000,
                }
            },
            "required": ["expression"],
            "additionalProperties": False,
        },
        Effect.PURE,
        _calculate,
    ),
}
