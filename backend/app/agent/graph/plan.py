"""What will run: the compiler's result, and all that running needs to know of the document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.agent.core.base import ERROR, Effect, NodeConfig, NodeType
from app.agent.graph.branches import Arrival
from app.agent.graph.policies import CachePolicy, DefaultOutputs, RetryPolicy
from app.agent.graph.references import Reference
from app.agent.graph.schema import Bindings, StateField


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One node, policies settled. `live`: its text is assistant text as it comes."""

    id: str
    type: NodeType
    config: NodeConfig
    arrivals: tuple[Arrival, ...]
    handles: tuple[str, ...]
    references: tuple[Reference, ...]
    timeout_s: float | None
    retry: RetryPolicy | None
    default: DefaultOutputs | None
    effect: Effect
    cache: CachePolicy | None
    join: Literal["all", "any"]
    live: bool

    @property
    def catches(self) -> bool:
        """Whether a failure leaves by an edge."""
        return ERROR in self.handles


@dataclass(frozen=True, slots=True)
class Step:
    """What runs in one go: one node, or a chain of pure ones. `sources` are the steps that come before."""

    nodes: tuple[PlannedNode, ...]
    sources: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.nodes[0].id

    @property
    def join(self) -> Literal["all", "any"]:
        return self.nodes[0].join


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in an order in which they can run. `answer` is the output that is the interface's answer."""

    steps: tuple[Step, ...]
    ends: tuple[str, ...]
    inputs: Mapping[str, Any]
    answer: str | None
    state: Mapping[str, StateField]
    bindings: Bindings
    durability: Literal["step", "exit"] = "step"

    @property
    def nodes(self) -> tuple[PlannedNode, ...]:
        return tuple(node for step in self.steps for node in step.nodes)

    @property
    def answering(self) -> tuple[str, ...]:
        """The nodes whose text is the answer, shown as it comes."""
        return tuple(node.id for node in self.nodes if node.live)
