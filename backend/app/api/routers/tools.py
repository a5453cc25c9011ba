"""Tools, addressed by id or slug: what graphs and models may call."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from app.api.conditional import NOT_MODIFIED, KnownDep, RevisionsDep, tagged, unless_known
from app.api.dependencies import ProjectToolsDep, ToolsDep, allow, paged
from app.api.idempotency import idempotent, without_key
from app.api.native import native_router
from app.api.schemas.common import PageRead, page_of
from app.api.schemas.tools import (
    OperationRead,
    OperationsRead,
    RefreshRead,
    ToolCreate,
    ToolInvoke,
    ToolRead,
    ToolRefresh,
    ToolResultRead,
    ToolSummary,
    ToolUpdate,
)
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.models.registry import ToolApproval
from app.db.postgres.repositories.registry import Tools

router = native_router("/tools", tag="tools")


@router.post(
    "",
    status_code=201,
    operation_id="tools_create",
    summary="Register a tool",
    dependencies=[allow(Permission.TOOLS_WRITE), idempotent()],
)
async def create(body: ToolCreate, tools: ToolsDep, response: Response) -> ToolRead:
    """Of the kind that `config.kind` says. An MCP server is asked for its tools at once."""
    row = await tools.create(
        body.slug, body.config, approval=ToolApproval(body.approval), description=body.description
    )
    return tagged(ToolRead.model_validate(row), response)


@router.get(
    "",
    operation_id="tools_list",
    summary="List tools",
    dependencies=[allow(Permission.TOOLS_READ)],
)
async def list_(
    page: Annotated[PageRequest, paged(Tools)],
    tools: ToolsDep,
    q: Annotated[str | None, Query(description="Part of the slug or of the description")] = None,
) -> PageRead[ToolSummary]:
    """Without their configurations."""
    return page_of(await tools.page(page, q=q), ToolSummary.model_validate)


@router.get(
    "/{tool}",
    operation_id="tools_get",
    summary="Get a tool",
    dependencies=[allow(Permission.TOOLS_READ)],
    response_model=ToolRead,
    responses=NOT_MODIFIED,
)
async def get(tool: str, tools: ToolsDep, known: KnownDep) -> Any:
    """By id or slug; 304 where the ETag in `If-None-Match` is current."""
    return unless_known(ToolRead.model_validate(await tools.get(tool)), known)


@router.patch(
    "/{tool}",
    operation_id="tools_update",
    summary="Update a tool",
    dependencies=[allow(Permission.TOOLS_WRITE)],
)
async def update(
    tool: str, body: ToolUpdate, tools: ToolsDep, response: Response, revisions: RevisionsDep
) -> ToolRead:
    """Agents that name it take the change from their next call on.

    With another `config`, what the tool offers is registered anew. 412 where the tool is at another revision
    than `If-Match` says.
    """
    changed = await tools.update(tool, body.model_dump(exclude_unset=True), revisions=revisions)
    return tagged(ToolRead.model_validate(changed), response)


@router.delete(
    "/{tool}",
    status_code=204,
    operation_id="tools_delete",
    summary="Delete a tool",
    dependencies=[allow(Permission.TOOLS_WRITE)],
)
async def delete(tool: str, tools: ToolsDep, revisions: RevisionsDep) -> Response:
    """409 `in_use` while published agents call it."""
    await tools.delete(tool, revisions=revisions)
    return Response(status_code=204)


@router.get(
    "/{tool}/operations",
    operation_id="tools_operations",
    summary="List what a tool offers",
    dependencies=[allow(Permission.TOOLS_READ)],
)
async def operations(tool: str, tools: ProjectToolsDep) -> OperationsRead:
    """One function, or all of an MCP server or an OpenAPI document, with the JSON Schemas of arguments."""
    found = await tools.tools(tool)
    return OperationsRead(
        items=[
            OperationRead(
                name=one.definition.name,
                description=one.definition.description,
                parameters=dict(one.definition.parameters),
                effect=one.effect,
                needs_approval=one.needs_approval,
            )
            for one in found
        ]
    )


@router.post(
    "/{tool}/invoke",
    operation_id="tools_invoke",
    summary="Call a tool once",
    dependencies=[allow(Permission.TOOLS_WRITE), without_key("each test is a call of its own")],
)
async def invoke(tool: str, body: ToolInvoke, tools: ProjectToolsDep) -> ToolResultRead:
    """A real call, with its effects. 200 also where it fails: `error` says how. 422 for arguments that do
    not keep the tool's JSON Schema.
    """
    return ToolResultRead.model_validate(await tools.invoke(tool, body.operation, body.arguments))


@router.post(
    "/{tool}/refresh",
    operation_id="tools_refresh",
    summary="Look again at what a tool offers",
    dependencies=[allow(Permission.TOOLS_WRITE), without_key("looking changes nothing, confirming is exact")],
)
async def refresh(tool: str, body: ToolRefresh, tools: ToolsDep, revisions: RevisionsDep) -> RefreshRead:
    """Calls of what an MCP server describes otherwise than it was registered are refused (`tool_changed`)
    until its `digest` is sent as `confirm`. 409 where the server has changed again since.
    """
    return RefreshRead.model_validate(await tools.refresh(tool, confirm=body.confirm, revisions=revisions))
