"""`openapi`: the operations of an OpenAPI document, one function each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue
from pydantic_core import PydanticCustomError

from app.agent.core.base import Effect, Mistake, NodeError
from app.agent.core.interfaces import ToolResult
from app.agent.graph.issues import listing
from app.agent.graph.nodes.http import HttpConfig, Secret
from app.agent.tools.exchange import exchanged
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
from app.agent.tools.openapi_document import base_of, described, read_document, requested, sources
from app.agent.tools.schemas import safe_name
from app.core.base_urls import check_base_url


def _base_url(url: str) -> str:
    try:
        return check_base_url(url)
    except ValueError as error:
        raise PydanticCustomError("base_url", "{message}", {"message": str(error)}) from None


class OpenApiTool(ToolConfig):
    """`document` is an OpenAPI document (3.0 or 3.1), as an object or as text (JSON, YAML).

    `operations` are the ids of those that are wanted, all where it is null. They are called at the
    document's first server, or at `base_url`, with `headers`, which may carry secrets of the project. GET,
    HEAD and OPTIONS count as `read`, the others as `write`; `effects` says otherwise, by operation.
    """

    kind: Literal["openapi"] = "openapi"
    document: dict[str, JsonValue] | str
    base_url: Annotated[str, Field(max_length=2000), AfterValidator(_base_url)] | None = None
    operations: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    headers: Annotated[dict[str, str | Secret], Field(max_length=32)] = Field(default_factory=dict)
    effects: dict[str, Effect] = Field(default_factory=dict)

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        checked = {"url": "https://any.example/", "headers": literal(raw.get("headers"))}
        yield from HttpConfig.mistakes(checked)


async def _offers(config: OpenApiTool, _: Naming, ports: ToolPorts) -> Offer:
    document = read_document(config.document)
    base = base_of(document, config.base_url)
    found = list(sources(document))
    wanted = None if config.operations is None else set(config.operations)
    for field, given in (("operations", wanted or ()), ("effects", config.effects)):
        _check_known(field, given, sorted(source.id for source in found))
    operations: dict[str, Operation] = {}
    unusable: list[Unusable] = []
    for source in found:
        if wanted is not None and source.id not in wanted:
            continue
        try:
            request = requested(document, source, base)
            call = HttpConfig.model_validate(request.request | {"headers": {
                **request.request["headers"], **literal(config.model_dump(mode="json")["headers"]),
            }})  # fmt: skip
        except (NodeError, ValueError) as error:
            reason = error.detail if isinstance(error, NodeError) else "it cannot be written as a request"
            unusable.append(Unusable(source.id, reason))
            continue
        name = safe_name(source.id, operations)
        operations[name] = Operation(
            name=name,
            description=described(source)[:LONGEST_DESCRIPTION],
            parameters=request.parameters,
            effect=config.effects.get(source.id) or call.effect(),
            call=call.model_dump(mode="json", exclude_defaults=True),
        )
    most = ports.limits.max_operations
    if len(operations) > most:
        message = f"these are {len(operations)} operations, and a tool has {most} at most: name those wanted"
        raise unusable_field("operations", message)
    return Offer(tuple(operations.values()), tuple(unusable))


def _check_known(field: str, given: Iterable[str], known: list[str]) -> None:
    if unknown := sorted(set(given) - set(known)):
        valid = listing(known) or "none"
        raise unusable_field(field, f"the document has no operation {unknown[0]!r} (valid: {valid})")


@tool_kind("openapi", OpenApiTool, offers=_offers)
async def call_openapi(config: OpenApiTool, request: Request, ports: ToolPorts) -> ToolResult:
    return await exchanged(HttpConfig.model_validate(request.operation.call), request, ports)
