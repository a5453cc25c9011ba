"""Agent document → report of everything wrong with it, or → plan. Pure: no I/O, no LangGraph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.agent.core.base import NODE_TYPES, NodeTypes
from app.agent.core.interfaces import Catalog
from app.agent.core.value_types import ValueType
from app.agent.graph.checks.agents import check_agents
from app.agent.graph.checks.bindings import check_bindings
from app.agent.graph.checks.configs import check_configs
from app.agent.graph.checks.inside import check_inner_inputs
from app.agent.graph.checks.interface import check_inputs, check_interface
from app.agent.graph.checks.outputs import output_of
from app.agent.graph.checks.policies import check_policies
from app.agent.graph.checks.references import check_references, own_sources
from app.agent.graph.checks.shape import check_shape
from app.agent.graph.checks.state import check_state
from app.agent.graph.checks.structure import check_structure
from app.agent.graph.checks.tools import check_tools
from app.agent.graph.draft import Draft
from app.agent.graph.flow import Flow, flow_of
from app.agent.graph.issues import Findings, InvalidGraph, IssueCode
from app.agent.graph.limits import check_size
from app.agent.graph.plan import Plan
from app.agent.graph.planning import plan_of
from app.agent.graph.schema import AgentGraph
from app.core.report import Report

Document = AgentGraph | Mapping[str, Any]


class AgentCompiler:
    """Knows the node types; keeps nothing between calls."""

    def __init__(self, types: NodeTypes = NODE_TYPES) -> None:
        self._types = types

    def check(self, document: Document | Any, catalog: Catalog | None = None) -> Report:
        """Every finding, in document order. Takes any JSON value and never raises.

        With a `catalog`, the targets of bindings are checked too.
        """
        return self._checked(_plain(document), catalog)[0]

    def compile(self, document: Document, catalog: Catalog | None = None) -> Plan:
        """Raises `InvalidGraph` with the whole report if there is any error."""
        report, flow = self._checked(_plain(document), catalog)
        if report.errors or flow is None:
            raise InvalidGraph(report)
        return plan_of(flow)

    def _checked(self, document: Any, catalog: Catalog | None) -> tuple[Report, Flow | None]:
        findings = Findings()
        flow = None
        try:
            if check_size(document, findings):
                flow = self._check(document, catalog, findings)
        except RecursionError:
            # The depth limit keeps us far from this unless the caller's own stack is nearly used up.
            findings.add(IssueCode.TOO_DEEP, (), "the document is nested too deeply", fix="flatten it")
        return findings.report(document), flow

    def _check(self, document: Any, catalog: Catalog | None, findings: Findings) -> Flow | None:
        draft = check_shape(document, findings, types=self._types)
        if draft is None:
            return None
        inputs = check_inputs(draft, findings)
        flow = _checked_flow(draft, {"inputs": inputs, **own_sources(draft)}, catalog, findings)
        check_interface(flow, inputs, findings)
        return flow


def _checked_flow(
    draft: Draft, sources: Mapping[str, ValueType], catalog: Catalog | None, findings: Findings
) -> Flow:
    """The flow of one graph, and of those inside of its nodes; `sources` are what references read in it."""
    check_configs(draft, findings)
    flow = flow_of(draft)
    for node in draft.nodes:
        if node.inner is not None and node.type is not None:
            inside = findings.within((*node.path, "config", "graph"), node.id)
            around = {"inputs": check_inner_inputs(node, node.inner, inside), **node.type.config.inside}
            flow.inner[node.id] = inner = _checked_flow(node.inner, around, catalog, inside)
            node.inner.output = output_of(inner, around)
    check_structure(flow, findings)
    check_policies(flow, findings)
    check_state(flow, findings)
    check_bindings(draft, catalog, findings)
    check_agents(draft, catalog, findings)
    check_references(flow, sources, findings, check_tools(draft, catalog, findings))
    return flow


def _plain(document: Any) -> Any:
    if isinstance(document, AgentGraph):
        return document.document()
    return dict(document) if isinstance(document, Mapping) else document
