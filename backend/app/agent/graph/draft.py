"""A document as far as it can be read: whatever is wrong in one place hides nothing elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from app.agent.core.base import ERROR, SUCCESS, NodeConfig, NodeType
from app.agent.core.interfaces import Capability
from app.agent.core.value_types import ValueType
from app.agent.graph.issues import Path
from app.agent.graph.schema import Bindings, Edge, Interface, Node, StateField


@dataclass(frozen=True, slots=True)
class DraftNode:
    """A node with a usable id. `node` is None where its shape is wrong, `type` where it is unknown."""

    index: int
    id: str
    raw: Mapping[str, Any]
    type: NodeType | None
    node: Node | None

    @property
    def path(self) -> Path:
        return ("nodes", self.index)

    @property
    def types(self) -> Mapping[str, ValueType]:
        """Its outputs; those of its type where the configuration cannot be read."""
        if self.type is None:
            return {}
        return self.node.config.given(self.type.types) if self.node else self.type.types

    @property
    def requires(self) -> frozenset[Capability]:
        """What its model must be able to do, as far as is known."""
        if self.type is None:
            return frozenset()
        return self.type.requires | (self.node.config.requires() if self.node else frozenset())

    @property
    def ways_out(self) -> tuple[str, ...] | None:
        """Handles of success; None where they cannot be known."""
        if self.type is None:
            return None
        if self.node is None:
            overridden = self.type.config.handles is not NodeConfig.handles
            return () if self.type.name == "end" else None if overridden else (SUCCESS,)
        return self.node.config.handles()

    @property
    def handles(self) -> tuple[str, ...] | None:
        """Every handle an edge may leave by; None where they cannot be known."""
        ways = self.ways_out
        return ways if ways is None or self.type is None or not self.type.fails else (*ways, ERROR)


@dataclass(frozen=True, slots=True)
class DraftEdge:
    index: int
    edge: Edge

    @property
    def path(self) -> Path:
        return ("edges", self.index)


@dataclass(slots=True)
class Draft:
    """The readable parts. `whole` is False where nodes or edges are missing for want of shape."""

    document: Mapping[str, Any]
    inputs: Mapping[str, Any] | None = None
    interface: Interface | None = None
    durability: Literal["step", "exit"] = "step"
    state: dict[str, StateField] = field(default_factory=dict)
    bindings: Bindings = field(default_factory=Bindings)
    nodes: list[DraftNode] = field(default_factory=list)
    edges: list[DraftEdge] = field(default_factory=list)
    whole: bool = True

    @property
    def by_id(self) -> dict[str, DraftNode]:
        return {node.id: node for node in self.nodes}
