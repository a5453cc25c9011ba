"""The registry of tools: what a project's graphs and models may call, and what each of them offers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.agent.core.base import Closed
from app.agent.core.interfaces import ToolFailed
from app.agent.graph.issues import pointer
from app.agent.tools.kind import TOOL_KINDS, Naming, Offer, Operation, ToolConfig, ToolPorts, Unusable
from app.api.schemas.tools import AnyToolConfig
from app.core.errors import Conflict, FieldError, Invalid
from app.core.ids import new_id
from app.core.merge_patch import merge_patch
from app.core.paging import Page, PageRequest
from app.core.slugs import check_slug
from app.db.base import Json
from app.db.postgres.models.registry import ToolApproval, ToolRegistry
from app.db.postgres.repositories.listing import contains
from app.db.postgres.repositories.rag import Collections
from app.db.postgres.repositories.registry import Tools
from app.db.session import Database, Tenant, after_commit

_MAY_PASS = ("timeout", "server_error", "rate_limit")
"""Failures of a server that are no mistake of whoever registers it."""
_CONFIG: TypeAdapter[Any] = TypeAdapter(AnyToolConfig)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a tool offers now against what is registered; `digest` is that of what it offers now."""

    digest: str
    confirmed: bool
    added: list[Operation]
    changed: list[Operation]
    removed: list[str]
    unusable: list[Unusable]


@dataclass(frozen=True, slots=True)
class ToolService:
    """Tools of one project. Others are called outside of transactions.

    `changed` is told, after the commit, whose tools have changed.
    """

    database: Database
    tenant: Tenant
    ports: ToolPorts
    changed: Callable[[Tenant], None]

    async def create(
        self,
        slug: str,
        config: ToolConfig,
        *,
        approval: ToolApproval = ToolApproval.NEVER,
        description: str = "",
    ) -> ToolRegistry:
        """`Conflict` where the slug is taken; `ToolFailed` where a server that is asked does not answer."""
        row = ToolRegistry(
            org_id=self.tenant.org_id,
            id=new_id(),
            project_id=self.tenant.project,
            slug=check_slug(slug),
            kind=config.kind,
            description=description,
            approval=approval,
        )
        await self._check(config)
        _fill(row, config, await self._offer(row, config))
        async with self.database.unit_of_work(self.tenant) as session:
            after_commit(session, partial(self.changed, self.tenant))
            return await Tools(session, self.tenant).add(
                row, duplicate=f"There is a tool {slug!r} already; choose another slug, or change that one."
            )

    async def get(self, reference: str) -> ToolRegistry:
        async with self.database.unit_of_work(self.tenant) as session:
            return await Tools(session, self.tenant).find(reference)

    async def page(self, request: PageRequest, *, q: str | None = None) -> Page[ToolRegistry]:
        """`q` is a part of the slug or of the description."""
        async with self.database.unit_of_work(self.tenant) as session:
            tools = Tools(session, self.tenant)
            statement = tools.visible()
            if q is not None:
                statement = statement.where(contains(q, ToolRegistry.slug, ToolRegistry.description))
            return await tools.page(request, statement)

    async def update(
        self, reference: str, changes: Json, *, revisions: Collection[int] | None = None
    ) -> ToolRegistry:
        """Changes `config` (merged), `approval` or `description`; only if at one of `revisions`.

        With another configuration, what the tool offers is registered anew.
        """
        row = await self._at(reference, revisions)
        row.description = changes.get("description", row.description) or ""
        config = _merged(row, changes.get("config"))
        offer = None
        if changes.get("config") or not TOOL_KINDS[row.kind].remote:
            await self._check(config)
            offer = await self._offer(row, config)

        def change(stored: ToolRegistry) -> None:
            stored.description = row.description
            stored.approval = ToolApproval(changes.get("approval") or stored.approval)
            if offer is not None:
                _fill(stored, config, offer)

        return await self._changed(row, change)

    async def refresh(
        self, reference: str, *, confirm: str | None, revisions: Collection[int] | None = None
    ) -> Refreshed:
        """What the tool offers now, which takes effect where `confirm` is its digest.

        `Conflict` where it is the digest of something else: it has changed since it was looked at.
        """
        row = await self._at(reference, revisions)
        config = stored_config(row)
        offer = await self._offer(row, config)
        found = _compared(row, offer, confirmed=confirm is not None)
        if confirm is None:
            return found
        if confirm != found.digest:
            raise Conflict(
                f"The tool {row.slug!r} offers something else than what was to be confirmed: look again.",
                code="tool_changed",
            )
        await self._changed(row, lambda stored: _fill(stored, config, offer))
        return found

    async def delete(self, reference: str, *, revisions: Collection[int] | None = None) -> None:
        """Only if at one of `revisions`; `Conflict` while agents are live that call it."""
        async with self.database.unit_of_work(self.tenant) as session:
            tools = Tools(session, self.tenant)
            row = await tools.find(reference, lock=True)
            tools.demand_revision(row, revisions)
            if users := await tools.callers(row):
                raise _in_use(row, users)
            after_commit(session, partial(self.changed, self.tenant))
            await session.delete(row)

    async def _at(self, reference: str, revisions: Collection[int] | None) -> ToolRegistry:
        async with self.database.unit_of_work(self.tenant) as session:
            tools = Tools(session, self.tenant)
            row = await tools.find(reference)
            tools.demand_revision(row, revisions)
            session.expunge(row)
            return row

    async def _changed(self, seen: ToolRegistry, change: Callable[[ToolRegistry], None]) -> ToolRegistry:
        """The row with `change`, unless somebody else changed it since it was `seen`."""
        async with self.database.unit_of_work(self.tenant) as session:
            tools = Tools(session, self.tenant)
            row = await tools.get(seen.id, lock=True)
            tools.demand_revision(row, {seen.revision})
            change(row)
            row.revision += 1
            row.updated_at = datetime.now(UTC)
            after_commit(session, partial(self.changed, self.tenant))
            return row

    async def _check(self, config: ToolConfig) -> None:
        raw = config.model_dump(mode="json", exclude_unset=True)
        errors = [
            FieldError(pointer(("body", "config", *one.path)), "invalid_value", f"{one.message}: {one.fix}")
            for one in type(config).mistakes(raw)
        ]
        if errors:
            raise _invalid(errors)
        async with self.database.unit_of_work(self.tenant) as session:
            await _check_collections(session, self.tenant, config)

    async def _offer(self, row: ToolRegistry, config: ToolConfig) -> Offer:
        naming = Naming(row.slug, row.description)
        try:
            async with asyncio.timeout(self.ports.limits.timeout_s):
                offer = await TOOL_KINDS[row.kind].offers(config, naming, self.ports)
        except TimeoutError:
            limit = f"{self.ports.limits.timeout_s:g} s"
            raise ToolFailed(f"the server did not answer within {limit}", code="timeout") from None
        except ToolFailed as error:
            if error.code in _MAY_PASS:
                raise
            raise _invalid([FieldError("/body/config", error.code, error.detail)]) from error
        if not offer.operations:
            reasons = "; ".join(f"{one.name}: {one.reason}" for one in offer.unusable[:5])
            message = "there is nothing to call" + (f": {reasons}" if reasons else "")
            raise _invalid([FieldError("/body/config", "no_operations", message)])
        return offer


async def _check_collections(session: AsyncSession, tenant: Tenant, config: ToolConfig) -> None:
    for reference in config.collections():
        await Collections(session, tenant).find(reference)


def stored_config(row: ToolRegistry) -> ToolConfig:
    return TOOL_KINDS[row.kind].config.model_validate(row.config)


def _fill(row: ToolRegistry, config: ToolConfig, offer: Offer) -> None:
    row.config = config.model_dump(mode="json", exclude_defaults=True) | {"kind": config.kind}
    row.operations = [_stored(one) for one in offer.operations]
    row.unusable = [{"name": one.name, "reason": one.reason} for one in offer.unusable]


def _stored(part: Closed) -> Json:
    return part.model_dump(mode="json", exclude_defaults=True)


def _compared(row: ToolRegistry, offer: Offer, *, confirmed: bool) -> Refreshed:
    before: Mapping[str, Any] = {stored["name"]: stored for stored in row.operations}
    after = {one.name: one for one in offer.operations}
    told = json.dumps([_stored(one) for one in offer.operations], sort_keys=True)
    return Refreshed(
        digest=sha256(told.encode()).hexdigest(),
        confirmed=confirmed,
        added=[one for name, one in after.items() if name not in before],
        changed=[one for name, one in after.items() if name in before and _stored(one) != before[name]],
        removed=[name for name in before if name not in after],
        unusable=list(offer.unusable),
    )


def _merged(row: ToolRegistry, changes: Json | None) -> ToolConfig:
    """The row's configuration patched; `Invalid` with pointers where the result is wrong."""
    if changes and changes.get("kind", row.kind) != row.kind:
        message = f"a tool stays of its kind, {row.kind!r}: register another one"
        raise _invalid([FieldError("/body/config/kind", "immutable", message)])
    patched = merge_patch(row.config, changes or {}) | {"kind": row.kind}
    try:
        found: ToolConfig = _CONFIG.validate_python(patched)
    except ValidationError as error:
        raise _invalid(
            [
                FieldError(pointer(("body", "config", *one["loc"][1:])), one["type"], one["msg"])
                for one in error.errors(include_url=False, include_input=False)
            ]
        ) from error
    return found


def _invalid(errors: list[FieldError]) -> Invalid:
    return Invalid("; ".join(one.message for one in errors[:5]), errors=errors)


def _in_use(row: ToolRegistry, users: list[str]) -> Conflict:
    named = ", ".join(map(repr, users[:10])) + (", …" if len(users) > 10 else "")
    return Conflict(
        f"Published agents call the tool {row.slug!r}: {named}. Bind them to another one and publish them, "
        "or delete them first.",
        code="in_use",
    )
