"""Tools of projects, with all that they call others by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from app.agent.core.interfaces import Retriever
from app.agent.core.sandbox import CodeRunner, Expressions
from app.agent.tools.kind import Listings, ToolLimits, ToolPorts
from app.core.config import Settings
from app.core.egress import Gate
from app.core.envelope import MasterKeys
from app.core.expressions import ExpressionPool
from app.core.sandbox.code import CodePool
from app.core.security import master_keys
from app.core.timed_cache import TimedCache
from app.db.session import Database, Tenant
from app.rag.providers.model.query_cache import CachedQueries
from app.services.http_service import ProjectHttp
from app.services.rag_service import CollectionRetriever, RagService
from app.services.secret_service import SecretService
from app.services.tool_resolver import ProjectTools, ToolSources


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What this process makes projects' tools of."""

    sources: ToolSources
    http: Callable[[Tenant], ProjectHttp]
    expressions: Callable[[Tenant], Expressions]
    code: Callable[[Tenant], CodeRunner]
    retriever: Callable[[Tenant], Retriever]
    listings: Listings
    limits: ToolLimits

    def of(self, tenant: Tenant) -> ProjectTools:
        http = self.http(tenant)
        ports = ToolPorts(
            project=f"{tenant.org_id}/{tenant.project}",
            http=http,
            streams=http,
            expressions=self.expressions(tenant),
            code=self.code(tenant),
            retriever=self.retriever(tenant),
            listings=self.listings,
            limits=self.limits,
        )
        return ProjectTools(self.sources, tenant, ports)


def open_toolbox(
    settings: Settings,
    database: Database,
    egress: Gate,
    expressions: ExpressionPool,
    code: CodePool,
    *,
    embedder: CachedQueries,
) -> Toolbox:
    size = settings.tool_cache_size
    return Toolbox(
        sources=ToolSources(database, TimedCache(ttl_s=settings.tool_cache_s, size=size)),
        http=partial(_project_http, settings, master_keys(settings), database, egress),
        expressions=lambda tenant: expressions.of(tenant.org_id),
        code=lambda tenant: code.of(tenant.org_id),
        retriever=lambda tenant: CollectionRetriever(RagService(database, tenant, embedder)),
        listings=TimedCache(ttl_s=settings.tool_listing_s, size=size),
        limits=ToolLimits(
            timeout_s=settings.tool_timeout_s,
            max_operations=settings.tool_max_operations,
            max_text=settings.tool_max_text,
        ),
    )


def _project_http(
    settings: Settings, masters: MasterKeys, database: Database, egress: Gate, tenant: Tenant
) -> ProjectHttp:
    """`masters` are given: deriving them reads a file, and every run asks for this."""
    secrets = SecretService(database, tenant, masters, settings.max_secret_bytes)
    return ProjectHttp(egress.of(tenant.org_id), secrets, settings.http_node_max_bytes)
