"""What a node type is: a closed configuration, named sockets, behaviour; and the registry of them all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from app.agent.core.interfaces import (
    Capability,
)
from app.agent.core.scope import Scope
from app.agent.core.value_types import ValueType, given_by, taken_by
from app.core.errors import AppError

SUCCESS, ERROR = "out", "error"
"""Handles: the default way out of a node, and the way out of one that failed."""


class Closed(BaseModel):
    """A piece of an agent document: a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Effect(StrEnum):
    """What running a node does to the world, from least to most."""

    PURE = "pure"
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a configuration though it keeps its schema; `path` leads there from it."""

    path: tuple[str | int, ...]
    message: str
    fix: str


class NodeConfig(Closed):
    """Base of every node's `config`. `type` is the name used in documents."""

    type: ClassVar[str]
    example: ClassVar[dict[str, Any]] = {}
    """A small configuration that is valid, for documentation: it reads inputs alone, and no other nodes."""
    inside: ClassVar[Mapping[str, ValueType]] = {}
    """What the graph in the field `graph` reads besides `inputs`, where there is one."""
    aware: ClassVar[Mapping[str, frozenset[str]]] = {}
    """Fields that read some of `inside`, too, though they are outside of the graph."""
    delegates: ClassVar[bool] = False
    """Whether all that it does is done by the nodes of agents that it calls."""
    keeps_calls: ClassVar[bool] = False
    """Whether its calls are journalled one by one, and hold whenever it is tried again."""

    @classmethod
    def holds_graph(cls) -> bool:
        """Whether the node has a graph inside of it."""
        return "graph" in cls.model_fields

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterable[Mistake]:
        """What no schema tells. Parts of `raw` that break the schema are told of already, and passed over.

        Every check of a whole belongs here, not into a validator, so that it is made whatever else is wrong.
        """
        return ()

    @classmethod
    def secrets(cls, raw: Mapping[str, Any]) -> Iterable[tuple[tuple[str | int, ...], str]]:
        """The secrets of the project that a configuration names, each with its place; `raw` as above."""
        return ()

    def handles(self) -> tuple[str, ...]:
        """The ways out when the node succeeds; it takes exactly one of them per run."""
        return (SUCCESS,)

    def fallback(self) -> str:
        """The way out of a node that failed and goes on with the default of its `on_error`."""
        return self.handles()[0]

    def writes(self) -> frozenset[str]:
        """The state fields the node may write."""
        return frozenset(self.written())

    def written(self) -> Mapping[str, tuple[str | int, ...]]:
        """Where the configuration holds what is written to which state field, as far as it does."""
        return {}

    def waits(self) -> bool:
        """Whether the node may wait for a person or a time as configured, besides what its type does."""
        return False

    def effect(self) -> Effect | None:
        """What the node does to the world as configured; None: what every node of its type does."""
        return None

    def requires(self) -> frozenset[Capability]:
        """What its model must be able to do, besides what every node of the type needs of one."""
        return frozenset()

    def given(self, types: Mapping[str, ValueType]) -> Mapping[str, ValueType]:
        """The outputs of a node that is configured like this; `types` are those of its type."""
        return types

    def gathered(self, types: Mapping[str, ValueType], inside: ValueType) -> Mapping[str, ValueType]:
        """The same of a node whose graph inside gives `inside`; `types` are those that are given anyway."""
        return types


BindingKind = Literal["models", "collections", "tools", "agents"]


@dataclass(frozen=True, slots=True)
class Binds:
    """Marks a `str` that names an entry of the document's `bindings`: a field, or the items of a list."""

    kind: BindingKind


@dataclass(frozen=True, slots=True)
class Expects:
    """Marks a `Template` field whose value must be of a type (a text field needs no mark)."""

    type: ValueType


def expects(annotation: Any) -> Expects:
    """`Annotated[Template, expects(list[Passage])]`: the field takes what reads as this."""
    return Expects(taken_by(annotation))


InnerGraph = Annotated[
    dict[str, JsonValue],
    Field(
        description="A graph with `nodes` and `edges` like those of an agent, from its own `start` to its "
        "own `end`, and perhaps with `inputs`, a JSON Schema of an object. It reads nothing from outside."
    ),
]
"""As it is written: the compiler checks it like the graph around it."""


class NodeError(AppError):
    """A node's own failure; `code` is what `error.code` shows and `retry.on` matches."""

    code = "node_failed"


Config = TypeVar("Config", bound=NodeConfig)
Outputs = Mapping[str, Any]
Behaviour = Callable[[Config, Scope], Awaitable[Outputs]]


@dataclass(frozen=True, slots=True, eq=False)
class NodeType:
    """One entry of the registry. `streams` names the output that `scope.say` spells out. `suspends`: its
    nodes wait for a person or a time, for which no process is kept.

    `effect` is the least that its nodes do; `effect_of` is what one does, as configured.
    """

    name: str
    summary: str
    config: type[NodeConfig]
    run: Behaviour[Any]
    outputs: Mapping[str, TypeAdapter[Any]]
    types: Mapping[str, ValueType]
    effect: Effect
    fails: bool
    streams: str | None
    requires: frozenset[Capability]
    suspends: bool = False

    @property
    def config_required(self) -> bool:
        return any(field.is_required() for field in self.config.model_fields.values())

    def effect_of(self, config: NodeConfig) -> Effect:
        return config.effect() or self.effect

    def dump(self, outputs: Outputs) -> dict[str, Any]:
        """Outputs as plain JSON values, which is what state, journal and references hold."""
        return {
            name: self.outputs[name].dump_python(value, mode="json") if name in self.outputs else value
            for name, value in outputs.items()
        }


def node_type(
    config: type[Config],
    run: Behaviour[Config],
    *,
    outputs: Mapping[str, Any],
    pure: bool = False,
    effect: Effect = Effect.WRITE,
    fails: bool = True,
    streams: str | None = None,
    requires: Iterable[Capability] = (),
    suspends: bool = False,
) -> NodeType:
    """Describes a node type. `outputs` maps names to Python types; `pure` is short for that effect."""
    adapters = {name: TypeAdapter(annotation) for name, annotation in outputs.items()}
    return NodeType(
        name=config.type,
        summary=(config.__doc__ or "").strip().partition("\n")[0],
        config=config,
        run=run,
        outputs=adapters,
        types={name: given_by(annotation) for name, annotation in outputs.items()},
        effect=Effect.PURE if pure else effect,
        fails=fails,
        streams=streams,
        requires=frozenset(requires),
        suspends=suspends,
    )


class NodeTypes(Mapping[str, NodeType]):
    """Node types by name, in order of registration. A name is taken once."""

    def __init__(self, types: Iterable[NodeType] = ()) -> None:
        self._types: dict[str, NodeType] = {}
        for entry in types:
            self.add(entry)

    def add(self, entry: NodeType) -> None:
        """Raises `ValueError` where the name is taken."""
        if entry.name in self._types:
            taken = self._types[entry.name].config.__module__
            raise ValueError(f"node type {entry.name!r} is already registered by {taken}")
        self._types[entry.name] = entry

    def __getitem__(self, name: str) -> NodeType:
        return self._types[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)


NODE_TYPES = NodeTypes()


def node(
    config: type[Config],
    *,
    outputs: Mapping[str, Any],
    pure: bool = False,
    effect: Effect = Effect.WRITE,
    fails: bool = True,
    streams: str | None = None,
    requires: Iterable[Capability] = (),
    suspends: bool = False,
) -> Callable[[Behaviour[Config]], Behaviour[Config]]:
    """Registers the decorated coroutine function as the behaviour of `config.type`."""

    def register(run: Behaviour[Config]) -> Behaviour[Config]:
        NODE_TYPES.add(
            node_type(
                config,
                run,
                outputs=outputs,
                pure=pure,
                effect=effect,
                fails=fails,
                streams=streams,
                requires=requires,
                suspends=suspends,
            )
        )
        return run

    return register
