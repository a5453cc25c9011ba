"""What there is to make graphs of: every node type, described for programs that show or write graphs."""

from __future__ import annotations

from functools import cache
from inspect import cleandoc
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.agent.core.base import ERROR, NODE_TYPES, SUCCESS, Effect, NodeConfig, NodeType
from app.agent.core.interfaces import Capability
from app.agent.graph.config_fields import bound_fields
from app.agent.graph.policies import Node
from app.agent.graph.schema import node_model

_OWN = ("id", "type", "config")
_UNSAID = "as it is configured"


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Varying(_Described):
    """What a node type has, and how that depends on a node's configuration; "" where it never does."""

    rule: str = ""


class Handles(Varying):
    """The ways out of a node: `success` as they usually are, one of which is taken, and `error` if it can
    fail."""

    success: list[str]
    error: str | None


class Effects(Varying):
    """What nodes of the type do to the world, unless their `effect` says more."""

    default: Effect


class Requirements(Varying):
    """What the model of a node must be able to do."""

    always: list[Capability]


class Outputs(Varying):
    """JSON Schemas of what a node hands on, by name. A failed one hands on `error` instead."""

    schemas: dict[str, dict[str, Any]]


class NodeTypeRead(_Described):
    """One node type. `streams` is the output that is told while it is written, if any."""

    type: str
    summary: str
    description: str
    config_schema: dict[str, Any] = Field(description="JSON Schema (2020-12) of a node's `config`.")
    config_required: bool
    outputs: Outputs
    handles: Handles
    effect: Effects
    can_fail: bool
    streams: str | None
    requires: Requirements
    binds: dict[str, str] = Field(description="Fields that name an entry of `bindings`, and of which kind.")
    example: dict[str, Any] = Field(description="A node, without policies.")


class NodeTypeDetail(NodeTypeRead):
    """With the whole node: its configuration, and the policies that every node type has."""

    node_schema: dict[str, Any]


class NodeCatalogue(_Described):
    """Every node type of this installation. `policies_schema` is the same for all of them."""

    items: list[NodeTypeRead]
    policies_schema: dict[str, Any]


@cache
def catalogue() -> NodeCatalogue:
    return NodeCatalogue(items=[described(kind) for kind in NODE_TYPES.values()], policies_schema=policies())


def detail(kind: NodeType) -> NodeTypeDetail:
    return NodeTypeDetail(**dict(described(kind)), node_schema=node_model(kind).model_json_schema())


def described(kind: NodeType) -> NodeTypeRead:
    config = kind.config
    example: dict[str, Any] = {"id": f"my_{kind.name}", "type": kind.name}
    return NodeTypeRead(
        type=kind.name,
        summary=kind.summary,
        description=cleandoc(config.__doc__ or ""),
        config_schema=config.model_json_schema(),
        config_required=kind.config_required,
        outputs=Outputs(
            schemas={
                name: adapter.json_schema(mode="serialization") for name, adapter in kind.outputs.items()
            },
            rule=_rule(config, "given"),
        ),
        handles=Handles(
            success=list(_handles(kind)), error=ERROR if kind.fails else None, rule=_rule(config, "handles")
        ),
        effect=Effects(default=kind.effect, rule=_rule(config, "effect")),
        can_fail=kind.fails,
        streams=kind.streams,
        requires=Requirements(always=sorted(kind.requires), rule=_rule(config, "requires")),
        binds=dict(bound_fields(config)),
        example=example | ({"config": config.example} if config.example else {}),
    )


def policies() -> dict[str, Any]:
    """The JSON Schema of what every node may have besides its identity and its `config`."""
    schema = Node.model_json_schema()
    own = {name: part for name, part in schema["properties"].items() if name not in _OWN}
    definitions = {name: part for name, part in schema["$defs"].items() if name != NodeConfig.__name__}
    return {"type": "object", "properties": own, "$defs": definitions}


def _handles(kind: NodeType) -> tuple[str, ...]:
    """Those of the example, where they depend on the configuration."""
    if kind.config.handles is NodeConfig.handles:
        return (SUCCESS,)
    if kind.config_required and not kind.config.example:
        return ()
    return kind.config.model_validate(kind.config.example).handles()


def _rule(config: type[NodeConfig], method: str) -> str:
    """What the configuration's own `method` says of itself."""
    own = getattr(config, method)
    if own is getattr(NodeConfig, method):
        return ""
    return cleandoc(own.__doc__) if own.__doc__ else _UNSAID
