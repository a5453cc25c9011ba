"""The catalogue of node types: what there is to make graphs of."""

from __future__ import annotations

from typing import Any

from app.agent.core.base import NODE_TYPES
from app.agent.graph.node_catalogue import NodeCatalogue, NodeTypeDetail, catalogue, detail
from app.api.conditional import NOT_MODIFIED, KnownDep, unless_held
from app.api.dependencies import allow
from app.api.native import native_router
from app.core.errors import NotFound
from app.core.permissions import Permission

router = native_router("/agents/node-types", tag="agents")


@router.get(
    "",
    operation_id="node_types_list",
    summary="List the node types",
    dependencies=[allow(Permission.AGENTS_READ)],
    response_model=NodeCatalogue,
    responses=NOT_MODIFIED,
)
async def list_(known: KnownDep) -> Any:
    """With JSON Schemas and examples; the same for everybody until the platform is updated."""
    return unless_held(catalogue(), known)


@router.get(
    "/{type}",
    operation_id="node_types_get",
    summary="Get a node type",
    dependencies=[allow(Permission.AGENTS_READ)],
    response_model=NodeTypeDetail,
    responses=NOT_MODIFIED,
)
async def get(type: str, known: KnownDep) -> Any:
    """With the schema of a whole node, policies included."""
    if type not in NODE_TYPES:
        raise NotFound(f"There is no node type {type!r}; there are {', '.join(sorted(NODE_TYPES))}.")
    return unless_held(detail(NODE_TYPES[type]), known)
