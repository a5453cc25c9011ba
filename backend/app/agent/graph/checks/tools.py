"""Calls of tools as far as they are known before the run: the operation, and its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.agent.core.interfaces import Catalog, ToolOffer
from app.agent.core.value_types import ValueType, of_schema
from app.agent.graph.draft import Draft, DraftNode
from app.agent.graph.issues import Findings, IssueCode, Path
from app.agent.graph.json_schema import errors_of
from app.agent.graph.json_template import JsonTemplate
from app.agent.graph.nodes.tool import ToolConfig
from app.agent.graph.references import Chain


def check_tools(draft: Draft, catalog: Catalog | None, findings: Findings) -> dict[str, ValueType]:
    """What the `arguments` of each `tool` node take, by its id, for the check of references."""
    taken: dict[str, ValueType] = {}
    for node in draft.nodes if catalog else ():
        config = node.node.config if node.node else None
        if catalog is None or not isinstance(config, ToolConfig):
            continue
        target = draft.bindings.tools.get(config.tool)
        offers = catalog.tools.get(target) if target else None
        if offers is None:
            continue  # unbound or unknown, which is told elsewhere
        if offer := _offer(node, config, offers, findings=findings):
            _check_names(node, config, offer, findings=findings)
            _check_constants(node, config, offer, findings=findings)
            taken[node.id] = of_schema(offer.definition.parameters)
    return taken


def _offer(node: DraftNode, config: ToolConfig, offers: Any, *, findings: Findings) -> ToolOffer | None:
    by_name: Mapping[str, ToolOffer] = {offer.definition.name: offer for offer in offers}
    if config.operation is None and len(by_name) == 1:
        return next(iter(by_name.values()))
    if config.operation is not None and config.operation in by_name:
        return by_name[config.operation]
    path: Path = (*node.path, "config")
    if config.operation is None:
        message = f"tool {config.tool!r} offers {len(by_name)} operations, and none is named"
    else:
        message = f"tool {config.tool!r} has no operation {config.operation!r}"
        path = (*path, "operation")
    fix = f"set 'operation'; {findings.instead(config.operation, sorted(by_name))}"
    findings.add(IssueCode.UNKNOWN_OPERATION, path, message, fix=fix, node_id=node.id)
    return None


def _check_names(node: DraftNode, config: ToolConfig, offer: ToolOffer, *, findings: Findings) -> None:
    properties, path = _properties(offer), (*node.path, "config", "arguments")
    open_to_more = bool(offer.definition.parameters.get("additionalProperties", False))
    for name in config.arguments:
        if name not in properties and not open_to_more:
            message = f"tool {offer.definition.name!r} takes no argument {name!r}"
            fix = findings.instead(name, sorted(properties))
            findings.add(IssueCode.UNKNOWN_ARGUMENT, (*path, name), message, fix=fix, node_id=node.id)
    required = offer.definition.parameters.get("required", [])
    for name in required if isinstance(required, list) else []:
        if name not in config.arguments and "default" not in properties.get(name, {}):
            message = f"tool {offer.definition.name!r} needs the argument {name!r}"
            findings.add(
                IssueCode.MISSING_ARGUMENT, path, message,
                fix=f'add "{name}" to \'arguments\'', node_id=node.id,
            )  # fmt: skip


def _check_constants(node: DraftNode, config: ToolConfig, offer: ToolOffer, *, findings: Findings) -> None:
    """Values without references are held against their whole schema."""
    definitions = {
        word: part for word, part in offer.definition.parameters.items() if word in ("$defs", "definitions")
    }
    for name, schema in _properties(offer).items():
        value = config.arguments.get(name)
        if value is None or not _is_constant(value) or not isinstance(schema, Mapping):
            continue
        for error in errors_of({**definitions, **schema}, value.value(_Nothing())):
            place = f" ({error.pointer})" if error.pointer else ""
            message = f"argument {name!r}{place}: {error.message}"
            findings.add(
                IssueCode.INVALID_VALUE, (*node.path, "config", "arguments", name), message,
                fix="give what the tool's JSON Schema takes", node_id=node.id,
            )  # fmt: skip


def _properties(offer: ToolOffer) -> Mapping[str, Any]:
    properties = offer.definition.parameters.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _is_constant(value: JsonTemplate) -> bool:
    return not any(chain for _, template in value.templates() for chain in template.chains)


class _Nothing:
    """A `Lookup` for templates without references."""

    def value(self, chain: Chain) -> Any:
        raise LookupError(f"'{chain}' is not set")
