"""Logical models, addressed by id or slug: what graphs name, and what that stands for."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from app.api.conditional import NOT_MODIFIED, KnownDep, RevisionsDep, tagged, unless_known
from app.api.dependencies import ModelResolverDep, ModelsDep, ResourcesDep, allow, paged
from app.api.idempotency import idempotent, without_key
from app.api.native import native_router
from app.api.schemas.common import PageRead, page_of
from app.api.schemas.models import ModelCreate, ModelRead, ModelUpdate, ProbeRead, ResolutionRead
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.repositories.registry import Models

router = native_router("/models", tag="models")


@router.post(
    "",
    status_code=201,
    operation_id="models_create",
    summary="Create a logical model",
    dependencies=[allow(Permission.MODELS_WRITE), idempotent()],
)
async def create(body: ModelCreate, models: ModelsDep, response: Response) -> ModelRead:
    """With the slug `default-chat` it takes the place of what the environment says, in this project."""
    row = await models.create(
        body.slug,
        model=body.model,
        connection=body.connection,
        config=body.config,
        description=body.description,
    )
    return tagged(ModelRead.model_validate(row), response)


@router.get(
    "",
    operation_id="models_list",
    summary="List logical models",
    dependencies=[allow(Permission.MODELS_READ)],
)
async def list_(
    page: Annotated[PageRequest, paged(Models)],
    models: ModelsDep,
    q: Annotated[str | None, Query(description="Part of the slug or of the model's name")] = None,
) -> PageRead[ModelRead]:
    """Those of the registry; `default-chat` exists without being here."""
    return page_of(await models.page(page, q=q), ModelRead.model_validate)


@router.get(
    "/{model}",
    operation_id="models_get",
    summary="Get a logical model",
    dependencies=[allow(Permission.MODELS_READ)],
    response_model=ModelRead,
    responses=NOT_MODIFIED,
)
async def get(model: str, models: ModelsDep, known: KnownDep) -> Any:
    """By id or slug; 304 where the ETag in `If-None-Match` is current."""
    return unless_known(ModelRead.model_validate(await models.get(model)), known)


@router.patch(
    "/{model}",
    operation_id="models_update",
    summary="Update a logical model",
    dependencies=[allow(Permission.MODELS_WRITE)],
)
async def update(
    model: str, body: ModelUpdate, models: ModelsDep, response: Response, revisions: RevisionsDep
) -> ModelRead:
    """Agents that name it take the change from their next call on.

    412 where the model is at another revision than `If-Match` says.
    """
    changed = await models.update(model, body.model_dump(exclude_unset=True), revisions=revisions)
    return tagged(ModelRead.model_validate(changed), response)


@router.delete(
    "/{model}",
    status_code=204,
    operation_id="models_delete",
    summary="Delete a logical model",
    dependencies=[allow(Permission.MODELS_WRITE)],
)
async def delete(model: str, models: ModelsDep, revisions: RevisionsDep) -> Response:
    """Agents that name it fail from their next call on."""
    await models.delete(model, revisions=revisions)
    return Response(status_code=204)


@router.post(
    "/{model}/test",
    operation_id="models_test",
    summary="Call a model once",
    dependencies=[allow(Permission.MODELS_WRITE), without_key("each test is a call of its own")],
)
async def test(model: str, resolver: ModelResolverDep, resources: ResourcesDep) -> ProbeRead:
    """One tiny call of whatever the name stands for now. 200 also where it fails: `error` says how."""
    found = await resolver.probe(model, timeout_s=resources.settings.model_test_timeout_s)
    return ProbeRead.model_validate(found)


@router.get(
    "/{model}/resolve",
    operation_id="models_resolve",
    summary="See what a name stands for",
    dependencies=[allow(Permission.MODELS_READ)],
)
async def resolve(model: str, resolver: ModelResolverDep) -> ResolutionRead:
    """What would be called now, and why: the registry comes first, then the environment, then the offline
    model. Also for `default-chat` without a model of that slug.
    """
    return ResolutionRead.model_validate(await resolver.resolve(model))
