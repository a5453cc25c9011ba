"""From a stored version to an agent that runs, compiled at most once per process."""

from __future__ import annotations

import json
from uuid import UUID

from app.agent.factory import AgentFactory
from app.agent.graph.executable import ExecutableAgent
from app.core.errors import NotFound
from app.db.connection import DriverConnection
from app.db.session import Tenant

_VERSION = "SELECT graph::text, bindings::text FROM agent_versions WHERE org_id = $1 AND id = $2"


async def load_agent(
    connection: DriverConnection, factory: AgentFactory, tenant: Tenant, version_id: UUID
) -> ExecutableAgent:
    """`connection` sees the tenant. Raises `NotFound`, and `InvalidGraph` for graphs of other releases."""
    key = str(version_id)
    if agent := factory.built(key):
        return agent
    rows = await connection.fetch(_VERSION, tenant.org_id, version_id)
    if not rows:
        raise NotFound(f"The agent version {key} does not exist any more.")
    graph, bindings = (json.loads(column) for column in rows[0])
    return factory.build(graph | {"bindings": bindings}, key)
