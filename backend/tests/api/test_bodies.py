"""Every request body refuses what it does not know, but for the objects that are free by design."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.api.calls import pointers
from tests.api.operations import DOCUMENT, OURS, Operation

pytestmark = pytest.mark.asyncio(loop_scope="session")

FREE = {"arguments", "data", "extra_body", "from", "graph", "input", "metadata", "to"}
"""Fields that hold an object of the caller's own, or a graph that may be unfinished."""
FREE_IN = {("projects_", "settings"), ("tools_update", "config")}
"""The same for some operations; a tool's `config` is checked as a whole once the change is in it."""

GRAPH = "AgentGraph"
"""Has a checker of its own, which names every unknown key."""

BODIES = [operation for operation in OURS if "requestBody" in operation.description]


def objects(schema: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object inside a schema with the place of it."""
    reference = schema.get("$ref", "")
    if reference:
        name = reference.rpartition("/")[2]
        if name != GRAPH:
            yield from objects(DOCUMENT["components"]["schemas"][name], place)
        return
    for choice in [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]:
        yield from objects(choice, place)
    if schema.get("type") == "object":
        yield place, schema
    for name, inner in schema.get("properties", {}).items():
        yield from objects(inner, f"{place}/{name}")
    if "items" in schema:
        yield from objects(schema["items"], f"{place}/0")
    if isinstance(values := schema.get("additionalProperties"), dict):
        yield from objects(values, f"{place}/*")


def is_free(operation: Operation, place: str) -> bool:
    name = place.rpartition("/")[2]
    return name in FREE or any(operation.id.startswith(begin) and name == field for begin, field in FREE_IN)


class TestBodies:
    @pytest.mark.parametrize("operation", BODIES, ids=lambda operation: operation.id)
    async def test_are_closed(self, operation: Operation) -> None:
        for kind, content in operation.description["requestBody"]["content"].items():
            found = list(objects(content["schema"], ""))
            assert found, kind
            for place, schema in found:
                more = schema.get("additionalProperties")
                closed = more is False or isinstance(more, dict)  # names of the caller's, each for one kind
                assert closed or is_free(operation, place), f"{operation.id} {place or '/'} takes anything"

    @pytest.mark.parametrize(
        "operation",
        [o for o in BODIES if "application/json" in o.description["requestBody"]["content"]],
        ids=lambda operation: operation.id,
    )
    async def test_name_the_unknown_field(self, client: httpx2.AsyncClient, operation: Operation) -> None:
        values = dict.fromkeys(operation.parameters, "01a20343-2636-74ee-ace2-7c4023a5f6c9")
        response = await operation.call(client, values, json={"colour": "red"})
        assert "/body/colour" in pointers(response)
