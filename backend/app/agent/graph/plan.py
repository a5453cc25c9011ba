"""What will run: the compiler's result, and all that running needs to know of the document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from app.agent.core.base import ERROR, Effect, NodeConfig, NodeType
from app.agent.core.state import Reducer
from app.agent.graph.branches import Arrival
from app.agent.graph.json_schema import Shape
from app.agent.graph.policies import CachePolicy, DefaultOutputs, RetryPolicy
from app.agent.graph.references import Reference
from app.agent.graph.schema import Bindings, StateField


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One node, policies settled. `live`: its text is assistant text as it comes.

    `reads`: the sources of its references, and of those that its policies have. `behind_a_race`: it follows a
    node of whose sources the first wins. `written` is its configuration as the document has it, `inner` the
    graph inside of it.
    """

    id: str
    type: NodeType
    config: NodeConfig
    arrivals: tuple[Arrival, ...]
    handles: tuple[str, ...]
    references: tuple[Reference, ...]
    reads: frozenset[str]
    timeout_s: float | None
    retry: RetryPolicy | None
    default: DefaultOutputs | None
    effect: Effect
    cache: CachePolicy | None
    join: Literal["all", "any"]
    live: bool
    behind_a_race: bool
    written: Mapping[str, Any] = field(default_factory=dict)
    inner: Plan | None = None

    @property
    def holds_graphs(self) -> bool:
        """Whether what it does is done by nodes inside of it, or by calls, that are journalled themselves."""
        return self.inner is not None or self.config.delegates or self.config.keeps_calls

    @property
    def asks(self) -> bool:
        """Whether it, or what is inside of it, may wait for a person or a time."""
        return self.holds_graphs or self.type.suspends

    @property
    def suspends(self) -> bool:
        """Whether it, or a node inside of it, waits for a person or a time; called agents apart."""
        inside = self.inner is not None and any(node.suspends for node in self.inner.nodes)
        return inside or self.type.suspends or self.config.waits()

    @property
    def sources(self) -> frozenset[str]:
        return frozenset(arrival.source for arrival in self.arrivals)

    @property
    def first_wins(self) -> bool:
        return self.join == "any" and len(self.sources) > 1

    @property
    def timed(self) -> bool:
        """Whether it depends on the time what the node finds: its outcome is journalled, pure or not."""
        return self.first_wins or self.behind_a_race

    @property
    def journalled(self) -> bool:
        """Whether what came of it is stored for itself, and not worked out anew by another process."""
        return self.effect is not Effect.PURE or self.timed

    @property
    def catches(self) -> bool:
        """Whether a failure leaves by an edge."""
        return ERROR in self.handles


@dataclass(frozen=True, slots=True)
class Step:
    """What runs in one go: nodes in an order in which they can run, chains and branches alike.

    `followers` are, for each of them, those of the step to which an edge of it leads.
    """

    nodes: tuple[PlannedNode, ...]
    followers: Mapping[str, tuple[PlannedNode, ...]] = field(init=False)

    def __post_init__(self) -> None:
        followers: dict[str, list[PlannedNode]] = {node.id: [] for node in self.nodes}
        for node in self.nodes:
            for source in node.sources & followers.keys():
                followers[source].append(node)
        object.__setattr__(self, "followers", {name: tuple(nodes) for name, nodes in followers.items()})

    @property
    def id(self) -> str:
        return self.nodes[0].id

    def before(self, node: PlannedNode) -> list[PlannedNode]:
        """The nodes of the step that lead to `node`, in its order."""
        leading = set(node.sources)
        for earlier in reversed(self.nodes):
            if earlier.id in leading:
                leading |= earlier.sources
        return [earlier for earlier in self.nodes if earlier.id in leading]


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps, one after the other. `answer` is the output that is the interface's answer.

    `definitions` keeps what `request_hash` has worked out, and `shape`, which holds inputs against their
    schema, is made once: both cost more to make than to use.
    """

    steps: tuple[Step, ...]
    ends: tuple[str, ...]
    inputs: Mapping[str, Any]
    answer: str | None
    state: Mapping[str, StateField]
    bindings: Bindings
    durability: Literal["step", "exit"] = "step"
    definitions: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    shape: Shape = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", Shape(self.inputs))

    @property
    def nodes(self) -> tuple[PlannedNode, ...]:
        return tuple(node for step in self.steps for node in step.nodes)

    @property
    def reducers(self) -> dict[str, Reducer]:
        return {name: field.reducer for name, field in self.state.items()}

    @property
    def answering(self) -> tuple[str, ...]:
        """The nodes whose text is the answer, shown as it comes."""
        return tuple(node.id for node in self.nodes if node.live)
