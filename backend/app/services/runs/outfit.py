"""What an agent is given while it runs: every port of the engine, bound to the run and its tenant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from app.agent.core.http import Http
from app.agent.core.interfaces import Models, Retriever, Tools
from app.agent.core.limits import EngineLimits
from app.agent.core.sandbox import CodeRunner, Expressions
from app.agent.factory import AgentFactory
from app.agent.graph.ports import Ports
from app.db.outage import is_outage
from app.db.session import Database, Tenant
from app.services.runs.execution import Execution
from app.services.runs.interrupts import RunInterrupts
from app.services.runs.journal import RunJournal
from app.services.runs.node_cache import NodeCaches
from app.services.runs.run_log import RunLog
from app.services.runs.versions import PublishedAgents


@dataclass(frozen=True, slots=True)
class Outfit:
    """Makes the ports of runs."""

    database: Database
    factory: AgentFactory
    retriever: Callable[[Tenant], Retriever]
    models: Callable[[Tenant], Models]
    http: Callable[[Tenant], Http]
    expressions: Callable[[Tenant], Expressions]
    tools: Callable[[Tenant], Tools]
    code: Callable[[Tenant], CodeRunner]
    caches: NodeCaches
    limits: EngineLimits = field(default_factory=EngineLimits)

    def ports(self, execution: Execution, run: RunLog) -> Ports:
        """`run` is where events go, and what else of the run is stored."""
        tenant, recovered = execution.tenant, execution.recovered
        awaited = execution.agent.plan.durability == "step"
        return Ports(
            models=self.models(tenant),
            retriever=self.retriever(tenant),
            sink=run,
            journal=RunJournal(run, recovered.known if recovered else {}, awaited=awaited),
            http=self.http(tenant),
            expressions=self.expressions(tenant),
            tools=self.tools(tenant),
            code=self.code(tenant),
            cache=self.caches.of(tenant, execution.run_id),
            interrupts=RunInterrupts(run, self.database, recovered.interrupts if recovered else {}),
            agents=PublishedAgents(self.database, self.factory, tenant),
            limits=self.limits,
            is_outage=is_outage,
        )
