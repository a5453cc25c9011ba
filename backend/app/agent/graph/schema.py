"""The agent document: the one definition behind storage, API and compiler.

The schema of a node is a union discriminated by `type`, built from the registered node types.
Its defaults are part of `schema_version`: they never change under a version, so the canonical form
may leave them out.
"""

from __future__ import annotations

import hashlib
from functools import cache
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import rfc8785
from pydantic import Field, JsonValue, create_model, model_validator
from pydantic_core import PydanticCustomError

import app.agent.graph.nodes  # noqa: F401  (registers the node types the union below is made of)
from app.agent.core.base import NODE_TYPES, SUCCESS, Closed, NodeType
from app.agent.core.state import Reducer
from app.agent.graph.issues import Findings
from app.agent.graph.limits import check_size
from app.agent.graph.policies import Name, Node, NodeId

__all__ = ["AgentGraph", "Bindings", "Edge", "Interface", "Node", "StateField", "node_model"]

Target = Annotated[str, Field(min_length=1, max_length=200)]


class Interface(Closed):
    """Which inputs are the user's message, the history and the files; which output is the answer.

    A graph without it can be run, but shows no text while it runs.
    """

    message: str | None = Field(None, description="The input, a string, that is the user's message.")
    history: str | None = Field(None, description="The input, an array, of the messages before it.")
    files: str | None = Field(None, description="The input, an array, of the user's files.")
    answer: str | None = Field(
        None,
        description="The output, which every `end` has, that is the answer. Only the answer is shown as text "
        "(`TEXT_MESSAGE_*` events): while it is written, where the output is exactly a model's text, such as "
        "`{{ write.text }}` or `{{ write.text ?? apology.text }}`; in one piece at the end, where it is "
        "composed. Without `answer` no text is shown; outputs are in the run's `output` when it has ended.",
    )


class StateField(Closed):
    """One shared variable; without `initial` it is unset until first written."""

    type: Literal["string", "number", "integer", "boolean", "array", "object"]
    reducer: Reducer = Reducer.REPLACE
    initial: JsonValue = None


class Bindings(Closed):
    """Names used in the graph → slugs (or ids) of what they stand for here."""

    models: dict[Name, Target] = Field(default_factory=dict)
    collections: dict[Name, Target] = Field(default_factory=dict)
    tools: dict[Name, Target] = Field(default_factory=dict)
    agents: dict[Name, Target] = Field(default_factory=dict)


class Edge(Closed):
    """From a handle of one node to another node; `out` is the handle of success."""

    source: str
    handle: str = SUCCESS
    target: str


@cache
def node_model(node_type: NodeType) -> type[Node]:
    """The closed schema of one node type's nodes."""
    default = ... if node_type.config_required else node_type.config()
    fields: dict[str, Any] = {
        "type": (Literal[node_type.name], ...),
        "config": (node_type.config, default),
    }
    title = node_type.name.title().replace("_", "") + "Node"
    return create_model(title, __base__=Node, __doc__=node_type.summary, **fields)


def _union() -> Any:
    models = [cast(Any, node_model(entry)) for entry in NODE_TYPES.values()]
    union = models[0]
    for model in models[1:]:
        union = or_(union, model)
    return Annotated[union, Field(discriminator="type")]


if TYPE_CHECKING:
    AnyNode = Node
else:
    AnyNode = _union()


def _no_inputs() -> dict[str, JsonValue]:
    return {"type": "object", "properties": {}}


class AgentGraph(Closed):
    """A whole agent. `layout` is for editors only and never touches the content hash.

    `durability`: what a run did is stored before it goes on (`step`), or, cheaper, for sure only at its
    `exit`: then a run whose process dies does again what was not stored yet.
    """

    schema_version: Literal["1"]
    inputs: dict[str, JsonValue] = Field(default_factory=_no_inputs)
    interface: Interface | None = None
    state: dict[NodeId, StateField] = Field(default_factory=dict)
    bindings: Bindings = Bindings()
    durability: Literal["step", "exit"] = "step"
    nodes: list[AnyNode]
    edges: list[Edge] = Field(default_factory=list)
    layout: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _is_plain_json(cls, document: Any) -> Any:
        """What passes can be canonicalized, and walked without fear for the stack."""
        findings = Findings()
        if isinstance(document, dict) and not check_size(document, findings):
            message = findings.report(document).issues[0].message
            raise PydanticCustomError("not_json", "{problem}", {"problem": message})
        return document

    def document(self) -> dict[str, Any]:
        """The plain JSON document, defaults left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def canonical_json(self) -> bytes:
        """RFC 8785: equal documents give equal bytes; reading them back gives an equal document."""
        return rfc8785.dumps(self.document())

    @property
    def content_hash(self) -> str:
        """SHA-256, in hex, of the canonical form without `layout`."""
        document = self.document()
        document.pop("layout", None)
        return hashlib.sha256(rfc8785.dumps(document)).hexdigest()
