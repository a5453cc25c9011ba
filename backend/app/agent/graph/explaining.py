"""What a plan will do, told without running it: steps, order, what each node reads, writes and waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.agent.core.base import ERROR, Effect
from app.agent.core.interfaces import Capability
from app.agent.graph.config_fields import bound_names
from app.agent.graph.plan import Plan, PlannedNode, Step
from app.agent.graph.policies import CachePolicy, RetryPolicy

_SOURCES = ("inputs", "state", "session", "item", "loop")
AfterCrash = Literal["worked out anew", "taken from the journal", "begun again", "done by the nodes inside"]


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Token(_Told):
    """An edge into a node: it is taken where `source` leaves by `handle`."""

    source: str
    handle: str


class Reading(_Told):
    """A value that a node reads; `node` is the one that produces it, if a node does."""

    reference: str
    node: str | None


class Binding(_Told):
    """A name of the graph's `bindings` that the node uses in `field`."""

    field: str
    kind: str
    name: str


class NodePolicies(_Told):
    """As they are in force; `on_error` is what becomes of a failure."""

    timeout_s: float | None
    retry: RetryPolicy | None
    on_error: Literal["fails the run", "leaves by error", "goes on with its default", "cannot fail"]
    default: dict[str, JsonValue] | None
    cache: CachePolicy | None


class ExplainedNode(_Told):
    """One node.

    `live`: its text is assistant text as it is written. `journalled`: what came of it is stored for itself.
    `after_a_crash`: what another process does about it where it had ended, which for those that are
    journalled is nothing; one that was under way is begun again, by the same idempotency key.
    """

    id: str
    type: str
    effect: Effect
    join: Literal["all", "any"]
    waits_for: list[Token]
    leads_to: dict[str, list[str]] = Field(description="Handles, and the nodes that follow by them.")
    reads: list[Reading]
    writes: list[str] = Field(description="State fields.")
    binds: list[Binding]
    requires: list[Capability] = Field(description="What its model must be able to do.")
    policies: NodePolicies
    live: bool
    suspends: bool = Field(description="Whether it, or a node inside of it, waits for a person or a time.")
    journalled: bool
    after_a_crash: AfterCrash
    inner: Explanation | None = None


class ExplainedStep(_Told):
    """What runs between two checkpoints. `stages`: nodes of one may run side by side, once those before have
    ended; a single node per stage is a chain without any cost between its nodes."""

    number: int
    stages: list[list[str]]
    fused: bool = Field(description="More than one node runs in it.")
    checkpoint: bool = Field(description="Whether the state is stored for sure when it has ended.")


class Explanation(_Told):
    """Steps one after the other, and every node in the order in which they can run."""

    steps: list[ExplainedStep]
    nodes: list[ExplainedNode]
    ends: list[str]
    answer: str | None = Field(description="The output that is the answer, for people.")
    answering: list[str] = Field(description="The nodes whose text is shown while it is written.")
    durability: Literal["step", "exit"]


def explained(plan: Plan) -> Explanation:
    following = _following(plan)
    return Explanation(
        steps=[_step(number, step, plan) for number, step in enumerate(plan.steps, start=1)],
        nodes=[_node(node, following[node.id]) for node in plan.nodes],
        ends=list(plan.ends),
        answer=plan.answer,
        answering=list(plan.answering),
        durability=plan.durability,
    )


def _following(plan: Plan) -> Mapping[str, dict[str, list[str]]]:
    """For each node its handles, with those to which they lead."""
    found: dict[str, dict[str, list[str]]] = {
        node.id: {handle: [] for handle in node.handles if node.id not in plan.ends} for node in plan.nodes
    }
    for node in plan.nodes:
        for arrival in node.arrivals:
            found[arrival.source].setdefault(arrival.handle, []).append(node.id)
    return found


def _step(number: int, step: Step, plan: Plan) -> ExplainedStep:
    stage: dict[str, int] = {}
    for node in step.nodes:
        before = [stage[source] for source in node.sources if source in stage]
        stage[node.id] = (min if node.first_wins else max)(before, default=-1) + 1
    stages: list[list[str]] = [[] for _ in range(max(stage.values()) + 1)]
    for name, place in stage.items():
        stages[place].append(name)
    lasting = plan.durability == "step" or number == len(plan.steps)
    return ExplainedStep(number=number, stages=stages, fused=len(step.nodes) > 1, checkpoint=lasting)


def _node(node: PlannedNode, following: dict[str, list[str]]) -> ExplainedNode:
    return ExplainedNode(
        id=node.id,
        type=node.type.name,
        effect=node.effect,
        join=node.join,
        waits_for=[Token(source=arrival.source, handle=arrival.handle) for arrival in node.arrivals],
        leads_to=following,
        reads=list(_readings(node)),
        writes=sorted(node.config.writes()),
        binds=list(_bindings(node)),
        requires=sorted(node.type.requires | node.config.requires()),
        policies=_policies(node),
        live=node.live,
        suspends=node.suspends,
        journalled=node.journalled,
        after_a_crash=_after_a_crash(node),
        inner=explained(node.inner) if node.inner else None,
    )


def _readings(node: PlannedNode) -> Iterator[Reading]:
    for reference in dict.fromkeys(node.references):
        source = reference.source
        yield Reading(reference=str(reference), node=None if source in _SOURCES else source)


def _bindings(node: PlannedNode) -> Iterator[Binding]:
    for place, kind, name in bound_names(type(node.config), node.config.model_dump()):
        yield Binding(field=str(place[0]), kind=kind, name=name)


def _policies(node: PlannedNode) -> NodePolicies:
    if not node.type.fails:
        on_error = "cannot fail"
    elif node.default is not None:
        on_error = "goes on with its default"
    else:
        on_error = "leaves by error" if ERROR in node.handles else "fails the run"
    return NodePolicies.model_validate(
        {
            "timeout_s": node.timeout_s,
            "retry": node.retry,
            "on_error": on_error,
            "default": node.default.default if node.default else None,
            "cache": node.cache,
        }
    )


def _after_a_crash(node: PlannedNode) -> AfterCrash:
    if node.holds_graphs:
        return "done by the nodes inside"
    return "taken from the journal" if node.journalled else "worked out anew"
