"""A document as far as it can be read: whatever is wrong in one place hides nothing elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from app.agent.core.base import ERROR, SUCCESS, Effect, NodeConfig, NodeType
from app.agent.core.interfaces import Capability
from app.agent.core.value_types import ValueType
from app.agent.graph.issues import Path
from app.agent.graph.policies import DefaultOutputs
from app.agent.graph.schema import Bindings, Edge, Interface, Node, StateField

_EFFECTS = list(Effect)


@dataclass(frozen=True, slots=True)
class DraftNode:
    """A node with a usable id. `node` is None where its shape is wrong, `type` where it is unknown.

    `inner` is the graph inside of it.
    """

    index: int
    id: str
    raw: Mapping[str, Any]
    type: NodeType | None
    node: Node | None
    inner: Draft | None = None

    @property
    def path(self) -> Path:
        return ("nodes", self.index)

    @property
    def effect(self) -> Effect:
        """What it does to the world as configured, with all that is inside of it."""
        own = self.node.effect if self.node else None
        if own or self.type is None:
            return own or Effect.PURE
        inside = [node.effect for node in self.inner.nodes] if self.inner else []
        least = self.type.effect_of(self.node.config) if self.node else self.type.effect
        return max([least, *inside], key=_EFFECTS.index)

    @property
    def suspends(self) -> bool:
        """Whether it, or a node inside of it, waits for a person or a time."""
        inside = self.inner is not None and any(node.suspends for node in self.inner.nodes)
        own = self.node is not None and self.node.config.waits()
        return inside or own or (self.type is not None and self.type.suspends)

    @property
    def types(self) -> Mapping[str, ValueType]:
        """Its outputs; those of its type where the configuration cannot be read."""
        if self.type is None:
            return {}
        if self.node is None:
            return self.type.types
        types = self.node.config.given(self.type.types)
        inside = self.inner.output if self.inner else None
        if inside is None or isinstance(self.node.on_error, DefaultOutputs):  # which may be anything
            return types
        return self.node.config.gathered(types, inside)

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
    """The readable parts. `whole` is False where nodes or edges are missing for want of shape.

    `within` is the type of the node that the graph is inside of, "" for an agent's own; `output` what such a
    graph gives, once that is known.
    """

    document: Mapping[str, Any]
    inputs: Mapping[str, Any] | None = None
    interface: Interface | None = None
    durability: Literal["step", "exit"] = "step"
    state: dict[str, StateField] = field(default_factory=dict)
    bindings: Bindings = field(default_factory=Bindings)
    nodes: list[DraftNode] = field(default_factory=list)
    edges: list[DraftEdge] = field(default_factory=list)
    whole: bool = True
    within: str = ""
    output: ValueType | None = None

    @property
    def by_id(self) -> dict[str, DraftNode]:
        return {node.id: node for node in self.nodes}
