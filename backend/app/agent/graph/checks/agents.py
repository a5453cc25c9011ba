"""What `agent` nodes say of their tools, as far as it is known before the run what those are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.agent.core.interfaces import Catalog, ToolOffer
from app.agent.graph.draft import Draft, DraftNode
from app.agent.graph.functions import searching, shown_names
from app.agent.graph.issues import Findings, IssueCode, Path
from app.agent.graph.nodes.agent import AgentConfig

Offered = tuple[str, str, ToolOffer | None]
"""Binding, own name, and what is known of a tool of the project."""


def check_agents(draft: Draft, catalog: Catalog | None, findings: Findings) -> None:
    for node in draft.nodes:
        config = node.node.config if node.node else None
        if not isinstance(config, AgentConfig):
            continue
        offered = _offered(config, draft, catalog)
        if offered is None:
            continue  # unbound or unknown, which is told elsewhere
        _check_names(node, config, offered, findings)
        if draft.durability == "exit" and not config.waits():
            _check_approvals(node, offered, findings)


def _offered(config: AgentConfig, draft: Draft, catalog: Catalog | None) -> list[Offered] | None:
    """All that the model will be offered; None where that is not known."""
    found: list[Offered] = []
    for binding in config.tools:
        target = draft.bindings.tools.get(binding)
        offers = catalog.tools.get(target) if catalog and target else None
        if offers is None:
            return None
        found += [(binding, offer.definition.name, offer) for offer in offers]
    found += [(binding, searching(binding), None) for binding in config.collections]
    return [*found, *((binding, binding, None) for binding in config.agents)]


def _check_names(
    node: DraftNode, config: AgentConfig, offered: Sequence[Offered], findings: Findings
) -> None:
    own = [(binding, name) for binding, name, _ in offered]
    known = {name for pair in own for name in pair} | set(shown_names(own))
    for place, name in _named(config):
        if name not in known:
            message = f"none of the tools of node {node.id!r} is called {name!r}"
            fix = findings.instead(name, sorted(known))
            findings.add(
                IssueCode.UNKNOWN_TOOL, (*node.path, "config", *place), message, fix=fix, node_id=node.id
            )


def _named(config: AgentConfig) -> Iterator[tuple[Path, str]]:
    for index, name in enumerate(config.approval if config.approval != "all" else ()):
        yield ("approval", index), name
    for name in config.descriptions:
        yield ("descriptions", name), name


def _check_approvals(node: DraftNode, offered: Sequence[Offered], findings: Findings) -> None:
    asking = next((name for _, name, offer in offered if offer and offer.needs_approval), None)
    if asking is not None:
        message = f"the tool {asking!r} waits for approval, which a run that is stored at its exit cannot"
        fix = "set the graph's durability to 'step', or do without the tool"
        findings.add(
            IssueCode.NO_LASTING_WAIT, (*node.path, "config", "tools"), message, fix=fix, node_id=node.id
        )
