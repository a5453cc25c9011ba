"""Explanations of agents on the wire: what would run, and what its names stand for in a project."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from app.agent.graph.explaining import Explanation
from app.api.schemas.common import Body, Read, example
from app.core.report import Issue


class Explain(Body):
    """Without a graph, that of the version, and without one, the draft."""

    model_config = example(input={"name": "Ada"})

    version: Annotated[str, Field(description="By number or id")] | None = None
    graph: Any = None
    input: Annotated[Any, Field(description="An input, to be held against the graph's `inputs`")] = None


class ExplainGraph(Body):
    model_config = example(
        graph={
            "schema_version": "1",
            "nodes": [{"id": "start", "type": "start"}, {"id": "done", "type": "end"}],
            "edges": [{"source": "start", "target": "done"}],
        }
    )

    graph: Any
    input: Annotated[Any, Field(description="An input, to be held against the graph's `inputs`")] = None


class BoundRead(Read):
    """One entry of `bindings`, and what it stands for now; `problem` says why it stands for nothing.

    Of a model: what would be called, and why; of others their id and name.
    """

    kind: str
    name: str
    target: str
    stands_for: dict[str, Any] | None
    problem: str | None


class WrongField(Read):
    pointer: str
    code: str
    message: str


class InputRead(Read):
    """`value` is the input as a run would take it, with defaults filled in."""

    valid: bool
    value: dict[str, Any] | None
    errors: list[WrongField]


class AgentExplanation(Read):
    """`issues` is what validation says, also of what this project lacks: with an error none can be run."""

    plan: Explanation
    bindings: list[BoundRead]
    issues: list[Issue]
    input: InputRead | None
