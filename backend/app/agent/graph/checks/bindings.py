"""Names of what the project has: bound in the document, existing in the project, capable enough."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from app.agent.core.interfaces import Catalog
from app.agent.graph.checks.subagents import check_offer
from app.agent.graph.config_fields import bound_names
from app.agent.graph.draft import Draft, DraftNode
from app.agent.graph.issues import Findings, IssueCode, Path
from app.core.slugs import as_uuid


def check_bindings(draft: Draft, catalog: Catalog | None, findings: Findings) -> None:
    if catalog and not draft.within:
        _check_targets(draft, catalog, findings)
    if catalog:
        _check_secrets(draft, catalog, findings)
    for node in draft.nodes:
        for place, kind, name in _names(node):
            bound: Mapping[str, str] = getattr(draft.bindings, kind)
            path = (*node.path, "config", *place)
            if name not in bound:
                message = f"{name!r} is not in bindings.{kind}"
                fix = f'{findings.instead(name, bound)}; or add "{name}" to bindings.{kind}'
                findings.add(IssueCode.UNBOUND, path, message, fix=fix, node_id=node.id)
            elif catalog and kind == "agents" and place == ("agent",):
                check_offer(node, catalog.agents.get(bound[name]), findings)
            elif catalog and kind == "models":
                _check_capabilities(node, path, catalog, findings, name=name, target=bound[name])


def _check_capabilities(
    node: DraftNode, path: Path, catalog: Catalog, findings: Findings, *, name: str, target: str
) -> None:
    missing = node.requires - catalog.models.get(target, node.requires)
    if not missing:
        return
    lacks = ", ".join(sorted(missing))
    able = [slug for slug, can in catalog.models.items() if node.requires <= can]
    message = f"model {target!r} lacks {lacks}, which node {node.id!r} needs"
    fix = f"bind {name!r} to a model that can; {findings.instead(target, able)}"
    if remedy := catalog.remedies.get(target):
        fix += f"; or {remedy}"
    findings.add(IssueCode.MISSING_CAPABILITY, path, message, fix=fix, node_id=node.id)


def _names(node: DraftNode) -> Iterator[tuple[Path, str, str]]:
    raw = node.raw.get("config")
    if node.type and isinstance(raw, dict):
        yield from bound_names(node.type.config, raw)


def existing_targets(catalog: Catalog) -> Mapping[str, Collection[str]]:
    """What can be bound in the project, by kind of binding."""
    return {
        "models": catalog.models,
        "collections": catalog.collections,
        "tools": catalog.tools,
        "agents": catalog.agents,
    }


def _check_targets(draft: Draft, catalog: Catalog, findings: Findings) -> None:
    existing = existing_targets(catalog)
    for kind in type(draft.bindings).model_fields:
        bound: Mapping[str, str] = getattr(draft.bindings, kind)
        targets = existing[kind]
        for name, target in bound.items():
            if target not in targets:
                message = f"{target!r} is none of this project's {kind}"
                fix = findings.instead(target, _slugs(targets))
                findings.add(IssueCode.UNKNOWN_BINDING, ("bindings", kind, name), message, fix=fix)


def _check_secrets(draft: Draft, catalog: Catalog, findings: Findings) -> None:
    """A warning: a secret may be made after the graph, and is replaced while the graph stays."""
    for node in draft.nodes:
        raw = node.raw.get("config")
        if catalog.secrets is None or node.type is None or not isinstance(raw, dict):
            continue
        for place, name in node.type.config.secrets(raw):
            if name not in catalog.secrets:
                message = f"the project has no secret {name!r}: without it, the node fails"
                fix = "make it (POST /api/v1/secrets)"
                if catalog.secrets:
                    fix += f"; or {findings.instead(name, _slugs(catalog.secrets))}"
                findings.add(
                    IssueCode.UNKNOWN_SECRET, (*node.path, "config", *place), message,
                    fix=fix, node_id=node.id,
                )  # fmt: skip


def _slugs(names: Iterable[str]) -> list[str]:
    """Without the ids, which lead to the same things."""
    return sorted(name for name in names if as_uuid(name) is None)
