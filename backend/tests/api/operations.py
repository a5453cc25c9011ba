"""Every operation of the API as the router's table and its description know it, for generated tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from app.api.dependencies import Demand
from app.api.guard import api_routes
from app.core.config import Settings
from app.core.permissions import Permission
from main import create_app
from tests.api.calls import API

PLANTED = {"kind": "agent", "schema_version": "1", "slug": "planted", "name": "Planted", "graph": {}}
BODIES: dict[str, dict[str, Any]] = {
    "agents_create": {"json": {"name": "Planted"}},
    "agents_diff_graphs": {"json": {"from": {}, "to": {}}},
    "agents_import": {"json": {"document": PLANTED}},
    "agents_rollback": {"json": {"version": 1}},
    "agents_validate_graph": {"json": {"graph": {}}},
    "agents_update": {"json": {"name": "Stolen"}},
    "api_keys_create": {"json": {"name": "Planted"}},
    "collections_create": {"json": {"name": "Planted"}},
    "collections_update": {"json": {"name": "Stolen"}},
    "documents_add_text": {"json": {"items": [{"title": "Planted", "text": "Planted."}]}},
    "documents_update": {"json": {"title": "Stolen"}},
    "documents_upload": {"files": [("files", ("planted.txt", b"Planted."))]},
    "model_connections_create": {"json": {"slug": "planted", "base_url": "https://planted.example/v1"}},
    "model_connections_update": {"json": {"description": "Stolen"}},
    "models_create": {"json": {"slug": "planted", "model": "extractive"}},
    "models_update": {"json": {"description": "Stolen"}},
    "projects_create": {"json": {"name": "Planted"}},
    "projects_update": {"json": {"name": "Stolen"}},
    "agents_explain_graph": {"json": {"graph": {}}},
    "runs_answer": {"json": {}},
    "runs_fork": {"json": {"checkpoint": 0}},
    "runs_create": {"json": {"input": {"name": "Eve"}}},
    "search": {"json": {"collections": ["planted"], "query": "gold"}},
    "secrets_create": {"json": {"name": "planted", "value": "planted"}},
    "secrets_replace": {"json": {"value": "stolen"}},
    "secrets_update": {"json": {"description": "Stolen"}},
    "tools_create": {"json": {"slug": "planted", "config": {"kind": "builtin", "function": "calculator"}}},
    "tools_update": {"json": {"description": "Stolen"}},
    "tools_invoke": {"json": {"arguments": {"expression": "1 + 1"}}},
    "tools_refresh": {"json": {}},
}
"""What a route needs besides its path to get as far as looking for what it is about."""

_VARYING = {"date", "x-request-id", "content-length"} | {
    f"ratelimit-{part}"
    for part in ("limit", "remaining", "reset")  # of whichever limit is nearest by now
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route. `permission` is None where it is public."""

    id: str
    method: str
    path: str
    permission: Permission | None
    description: dict[str, Any] = field(repr=False, compare=False, hash=False)

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters in the path."""
        return re.findall(r"{(\w+)}", self.path)

    def names(self, place: str) -> list[str]:
        """Names of the parameters in `query` or `header` that take any text."""
        declared = self.description.get("parameters", [])
        return [p["name"] for p in declared if p["in"] == place and _takes_text(p["schema"])]

    def fields(self, document: dict[str, Any]) -> Iterator[str]:
        """Pointers of the fields of the JSON body that take any text or any object; `0` stands for items."""
        content = self.description.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            yield from _leaves(content["application/json"]["schema"], document, "")

    def answered(self, document: dict[str, Any]) -> dict[str, Any]:
        """The schema of the answer when all goes well."""
        good = [answer for status, answer in self.description["responses"].items() if status.startswith("2")]
        content = good[0].get("content", {}).get("application/json", {})
        return _resolved(content.get("schema", {}), document)

    async def call(
        self, client: httpx2.AsyncClient, values: dict[str, str], **changes: Any
    ) -> httpx2.Response:
        """Sends a request that is right but for `values` in the path, or what `changes` replace."""
        sent = BODIES.get(self.id, {}) | changes
        return await client.request(self.method, self.path.format_map(values), **sent)

    async def answer(
        self, client: httpx2.AsyncClient, values: dict[str, str], **changes: Any
    ) -> tuple[Any, ...]:
        """Status, headers and body, without what must differ between two requests."""
        response = await self.call(client, values, **changes)
        body = re.sub(r'"request_id":"\w+"', "", response.text)
        for name, value in values.items():
            body = body.replace(value, f"<{name}>")
        headers = {name: value for name, value in response.headers.items() if name not in _VARYING}
        return response.status_code, headers, body


def operations(app: FastAPI) -> Iterator[Operation]:
    """From the router's table, so that a new route is in it by itself."""
    permissions = {route.operation_id: _permission(route.dependant) for route in api_routes(app.routes)}
    paths = app.openapi()["paths"]
    for context in iter_route_contexts(app.routes):
        name, path = getattr(context, "operation_id", None), context.path or ""
        if name in permissions:
            for method in sorted(context.methods or ()):
                yield Operation(name, method, path, permissions[name], paths[path][method.lower()])


def _permission(dependant: Dependant) -> Permission | None:
    if isinstance(dependant.call, Demand):
        return dependant.call.permission
    return next(filter(None, map(_permission, dependant.dependencies)), None)


def _takes_text(schema: dict[str, Any]) -> bool:
    choices = schema.get("anyOf", [schema])
    return any(
        choice.get("type") == "string"
        and not {"enum", "const"} & set(choice)
        and choice.get("format") not in ("date", "date-time")
        for choice in choices
    )


def _leaves(schema: dict[str, Any], document: dict[str, Any], place: str) -> Iterator[str]:
    schema = _resolved(schema, document)
    for choice in schema.get("anyOf", []):
        yield from _leaves(choice, document, place)
    for name, item in schema.get("properties", {}).items():
        yield from _leaves(item, document, f"{place}/{name}")
    if "items" in schema:
        yield from _leaves(schema["items"], document, f"{place}/0")
    open_object = schema.get("additionalProperties") not in (None, False)
    if _takes_text(schema) or open_object or not (schema.keys() - {"title", "description", "default"}):
        yield place


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    return _resolved(document["components"]["schemas"][reference.rpartition("/")[2]], document)


APP = create_app(Settings(_env_file=None))
DOCUMENT = APP.openapi()
OPERATIONS = list(operations(APP))
OURS = [operation for operation in OPERATIONS if operation.path.startswith(API)]
