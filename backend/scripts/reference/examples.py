"""For every code of `IssueCode` a graph that has it, and nothing else wrong, and the same put right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.agent.core.interfaces import AgentOffer, Capability, Catalog, ToolDefinition, ToolOffer
from app.agent.graph.issues import IssueCode

_NAMED: Mapping[str, Any] = {
    "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"],
}  # fmt: skip
_FIND = ToolOffer(ToolDefinition("find_customer", "Finds a customer by name.", _NAMED), "read")
PROJECT = Catalog(
    models={"default-chat": frozenset({Capability.STREAMING}), "large": frozenset(Capability)},
    collections=frozenset({"handbook"}),
    agents={"reviewer": AgentOffer("version", {"type": "object"}, frozenset({"answer"}))},
    secrets=frozenset({"crm-token"}),
    tools={"crm": [_FIND, replace(_FIND, definition=replace(_FIND.definition, name="count_customers"))]},
)
"""The project that graphs are held against: a model that only writes, one that can do all, and so on."""


@dataclass(frozen=True, slots=True)
class Example:
    """`wrong` is a document, or text that is to be one. `about` says more than the code's description.

    `shown` stands for graphs that are too large to be shown.
    """

    wrong: Any
    right: Any
    about: str = ""
    shown: str = ""


Examples = Mapping[IssueCode, Example]
MODELS: Mapping[str, Any] = {"bindings": {"models": {"main": "large"}}}
HANDBOOK: Mapping[str, Any] = {"bindings": {"collections": {"kb": "handbook"}}}
