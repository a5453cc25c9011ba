"""A registered tool as the engine calls it: arguments checked, time bounded, failures in one form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.agent.core.base import Effect
from app.agent.core.interfaces import ToolDefinition, ToolEffect, ToolFailed, ToolOffer, ToolResult
from app.agent.graph.json_schema import errors_of, with_defaults
from app.agent.graph.limits import exceeds
from app.agent.graph.references import MAX_RENDERED
from app.agent.tools.kind import Operation, Request, ToolConfig, ToolKind, ToolPorts
from app.core.errors import AppError, FieldError, RateLimited, Unavailable

_TOLD = 5
"""Wrong arguments that a message names; `errors` has them all."""


@dataclass(frozen=True, slots=True)
class RegisteredTool:
    """One operation of a row of the registry. Implements `Tool` of the engine."""

    kind: ToolKind
    config: ToolConfig
    operation: Operation
    needs_approval: bool
    ports: ToolPorts

    @property
    def definition(self) -> ToolDefinition:
        operation = self.operation
        return ToolDefinition(operation.name, operation.description, operation.parameters)

    @property
    def effect(self) -> ToolEffect:
        return self.operation.effect.value

    async def call(self, arguments: Mapping[str, Any], *, idempotency_key: str | None) -> ToolResult:
        given = with_defaults(self.operation.parameters, arguments)
        if wrong := errors_of(self.operation.parameters, given):
            raise _invalid(self.operation.name, wrong)
        try:
            async with asyncio.timeout(self.ports.limits.timeout_s):
                request = Request(self.operation, given, idempotency_key)
                result = await self.kind.call(self.config, request, self.ports)
        except TimeoutError:
            limit = f"{self.ports.limits.timeout_s:g} s"
            message = f"the tool {self.operation.name!r} did not answer within {limit}"
            raise ToolFailed(message, code="timeout") from None
        except AppError as error:
            raise _failed(self.operation.name, error) from error
        if exceeds(result.content, max_text=MAX_RENDERED):
            message = f"the tool {self.operation.name!r} gave more than a run can carry"
            raise ToolFailed(message, code="too_large")
        return ToolResult(result.content, self._shown(result.text), result.is_error)

    def _shown(self, text: str) -> str:
        most = self.ports.limits.max_text
        return text if len(text) <= most else f"{text[:most]}… (cut: {len(text)} characters in all)"


def needs_approval(policy: str, effect: Effect) -> bool:
    """By a tool's policy (`never`, `writes`, `always`) and what calling it does."""
    return policy == "always" or (policy == "writes" and effect is Effect.WRITE)


def offered(operations: Iterable[Mapping[str, Any]], policy: str) -> list[ToolOffer]:
    """What the stored operations of a tool are to those who check graphs."""
    offers = []
    for stored in operations:
        one = Operation.model_validate(stored)
        definition = ToolDefinition(one.name, one.description, one.parameters)
        offers.append(ToolOffer(definition, one.effect.value, needs_approval(policy, one.effect)))
    return offers


def text_of(content: Any) -> str:
    """A JSON value as a model reads it: strings as they are, null as nothing."""
    if isinstance(content, str):
        return content
    return "" if content is None else json.dumps(content, ensure_ascii=False)


def _invalid(name: str, wrong: list[FieldError]) -> ToolFailed:
    told = "; ".join(f"{one.pointer or 'arguments'}: {one.message}" for one in wrong[:_TOLD])
    more = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
    message = f"the arguments do not fit the tool {name!r}: {told}{more}"
    return ToolFailed(message, code="invalid_arguments", errors=wrong)


def _failed(name: str, error: AppError) -> ToolFailed:
    match error:
        case ToolFailed():
            return error
        case RateLimited():
            code = "rate_limit"
        case Unavailable():
            code = "server_error"
        case _:
            code = error.code
    message = f"the tool {name!r} failed: {error.detail}"
    return ToolFailed(message, code=code, errors=error.errors, retry_after_s=error.retry_after_s)
