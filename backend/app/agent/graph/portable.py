"""An agent as one self-contained document, to be kept in files and taken elsewhere.

It names what it needs by slugs, never by ids, and holds no secret: only their names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import Field, JsonValue

from app.agent.core.base import NODE_TYPES, Closed, NodeConfig
from app.agent.core.interfaces import Capability
from app.agent.graph.config_fields import bound_names
from app.agent.graph.schema import AgentGraph
from app.core.constants import SLUG_PATTERN


class NeededModel(Closed):
    """What the model behind a name is bound to, and what it must be able to do."""

    target: str
    capabilities: list[Capability] = Field(default_factory=list)


class Needed(Closed):
    """What a name is bound to."""

    target: str


class Requires(Closed):
    """What a graph needs of a project, by the names in its bindings; secrets by their own names.

    It follows from the graph: an import reads none of it.
    """

    models: dict[str, NeededModel] = Field(default_factory=dict)
    collections: dict[str, Needed] = Field(default_factory=dict)
    tools: dict[str, Needed] = Field(default_factory=dict)
    agents: dict[str, Needed] = Field(default_factory=dict)
    secrets: list[str] = Field(default_factory=list)


class PortableAgent(Closed):
    """One agent. `graph` is an `AgentGraph`; what is imported may be unfinished."""

    kind: Literal["agent"]
    schema_version: Literal["1"]
    slug: Annotated[str, Field(pattern=SLUG_PATTERN)]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    description: Annotated[str, Field(max_length=2000)] = ""
    graph: dict[str, JsonValue]
    requires: Requires = Requires()

    def document(self) -> dict[str, Any]:
        """The plain JSON document, defaults left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def canonical_json(self) -> bytes:
        """RFC 8785: the same agent gives the same bytes."""
        return rfc8785.dumps(self.document())


Configured = tuple[type[NodeConfig], dict[str, Any], frozenset[Capability]]


def configs_in(document: Mapping[str, Any]) -> Iterator[Configured]:
    """The raw configuration of each node of a sound graph, also of graphs inside of nodes, with its type and
    what it needs of its model."""
    for node in document.get("nodes", ()):
        kind, raw = NODE_TYPES[node["type"]], node.get("config", {})
        yield kind.config, raw, kind.requires | kind.config.model_validate(raw).requires()
        if kind.config.holds_graph():
            yield from configs_in(raw["graph"])


def capabilities(document: Mapping[str, Any]) -> Mapping[str, frozenset[Capability]]:
    """What nodes need of the models that they name, by those names."""
    found: defaultdict[str, frozenset[Capability]] = defaultdict(frozenset)
    for config, raw, needed in configs_in(document):
        for _, what, name in bound_names(config, raw):
            if what == "models":
                found[name] |= needed
    return found


def requirements(graph: AgentGraph) -> Requires:
    """What `graph` needs of the project that it is to run in."""
    document = graph.document()
    needed, bound = capabilities(document), graph.bindings.model_dump()
    secrets = {name for config, raw, _ in configs_in(document) for _, name in config.secrets(raw)}
    return Requires(
        models={
            name: NeededModel(target=target, capabilities=sorted(needed.get(name, ())))
            for name, target in bound["models"].items()
        },
        secrets=sorted(secrets),
        **{
            kind: {name: Needed(target=target) for name, target in bound[kind].items()}
            for kind in ("collections", "tools", "agents")
        },
    )
