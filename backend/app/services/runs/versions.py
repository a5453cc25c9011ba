"""From a stored version to an agent that runs, compiled at most once per process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from uuid import UUID

from app.agent.factory import AgentFactory
from app.agent.graph.executable import ExecutableAgent
from app.agent.graph.plan import Plan
from app.agent.graph.ports import InvalidInput
from app.core.errors import FieldError, NotFound
from app.db.base import Json
from app.db.connection import DriverConnection
from app.db.session import Database, Tenant

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


def checked_input(agent: ExecutableAgent, value: Json) -> Json:
    """The input with its defaults; refuses what does not fit, before there is a run."""
    try:
        return agent.validate_input(value)
    except InvalidInput as error:
        errors = [FieldError(f"/body/input{e.pointer}", e.code, e.message) for e in error.errors]
        raise InvalidInput(error.detail, errors=errors) from error


@dataclass(frozen=True, slots=True)
class PublishedAgents:
    """Implements `Agents` of the engine: versions of one organization, by their ids."""

    database: Database
    factory: AgentFactory
    tenant: Tenant

    async def plan(self, reference: str) -> Plan:
        if agent := self.factory.built(reference):
            return agent.plan
        async with self.database.reading(self.tenant) as connection:
            return (await load_agent(connection, self.factory, self.tenant, UUID(reference))).plan
