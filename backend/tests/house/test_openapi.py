"""The committed description of the API is that of the code, and reads well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from app.api.bodies import media_types
from app.api.dependencies import Public
from app.api.guard import api_routes, calls_of
from app.api.idempotency import Idempotent
from app.core.config import Settings
from main import create_app
from scripts import export_openapi

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def written() -> str:
    return export_openapi.document()


@pytest.fixture(scope="module")
def document(written: str) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(written)
    return described


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Path and description of every operation."""
    return [
        (path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def references(part: Any) -> set[str]:
    """Every `$ref` inside, also below names of properties."""
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


class TestCommittedFile:
    def test_is_what_the_code_says(self) -> None:
        assert export_openapi.difference() == []

    def test_does_not_depend_on_the_environment(self, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ORRERY_DOCS_ENABLED", "false")
        monkeypatch.setenv("ORRERY_MAX_UPLOAD_FILES", "3")
        assert export_openapi.document() == written


class TestCheck:
    def test_of_an_old_file_shows_what_changed(self, written: str, tmp_path: Path) -> None:
        old = tmp_path / "openapi.json"
        old.write_text(written.replace("agents_create", "agents_make"))
        shown = "\n".join(export_openapi.difference(old))
        assert "agents_make" in shown
        assert "agents_create" in shown

    def test_of_a_missing_file_shows_something(self, tmp_path: Path) -> None:
        assert export_openapi.difference(tmp_path / "openapi.json")

    def test_of_the_committed_file_succeeds(self) -> None:
        assert export_openapi.main(["--check"]) == 0


class TestKeys:
    def test_are_described_where_they_are_taken(self, document: dict[str, Any]) -> None:
        app = create_app(Settings(_env_file=None))
        taking = {
            str(route.operation_id)
            for route in api_routes(app.routes)
            if any(isinstance(call, Idempotent) for call in calls_of(route.dependant))
        }
        described = {
            operation["operationId"]
            for _, operation in operations(document)
            if any(p["name"] == "Idempotency-Key" for p in operation.get("parameters", []))
        }
        assert described == taking
        assert {"agents_create", "runs_create", "documents_upload", "api_keys_create"} <= taking


class TestOperations:
    def test_have_ids_of_their_own(self, document: dict[str, Any]) -> None:
        ids = [operation["operationId"] for _, operation in operations(document)]
        assert len(set(ids)) == len(ids)
        assert all(name.isidentifier() and "__" not in name for name in ids)

    def test_have_a_summary_of_their_own_and_a_description(self, document: dict[str, Any]) -> None:
        found = operations(document)
        for path, operation in found:
            summary = operation["summary"]
            assert " " in summary.strip() == summary, f"{path}: {summary!r} says too little"
            assert operation.get("description", "").strip(), f"{path}: {summary} has no docstring"
        assert len({operation["summary"] for _, operation in found}) == len(found)

    def test_have_a_known_tag(self, document: dict[str, Any]) -> None:
        tags = [tag["name"] for tag in document["tags"]]
        assert {tag for _, operation in operations(document) for tag in operation["tags"]} == set(tags)

    def test_describe_their_errors_as_problems(self, document: dict[str, Any]) -> None:
        for path, operation in operations(document):
            if path.startswith("/api/v1/"):
                content = operation["responses"]["default"]["content"]
                assert content == {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                }, path
            assert "422" not in operation["responses"], path

    def test_ask_for_a_credential_unless_they_are_public(self, document: dict[str, Any]) -> None:
        app = create_app(Settings(_env_file=None))
        public = {
            str(route.operation_id)
            for route in api_routes(app.routes)
            if any(isinstance(call, Public) for call in calls_of(route.dependant))
        }
        for path, operation in operations(document):
            name = operation["operationId"]
            if name not in ("auth_logout",):  # it takes one, and does without
                assert bool(operation.get("security")) == (name not in public), path


def _bodies() -> list[Any]:
    """Every route that takes JSON, by its operation id."""
    app = create_app(Settings(_env_file=None))
    return [
        pytest.param(route, id=str(route.operation_id))
        for route in api_routes(app.routes)
        if media_types(route) == ["application/json"]
    ]


class TestExamples:
    @pytest.mark.parametrize("route", _bodies())
    def test_are_there_for_every_body_and_valid(self, document: dict[str, Any], route: APIRoute) -> None:
        (operation,) = [o for _, o in operations(document) if o["operationId"] == route.operation_id]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        found = [
            example
            for reference in references(schema)
            for example in document["components"]["schemas"][reference.rpartition("/")[2]].get("examples", [])
        ]
        assert found
        assert route.body_field
        for example in found:
            _, errors = route.body_field.validate(example, {}, loc=("body",))
            assert not errors, example


class TestComponents:
    def test_are_all_there(self, document: dict[str, Any]) -> None:
        schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert references(document["paths"]) | references(document["components"]) <= schemas

    def test_show_the_agent_document(self, document: dict[str, Any]) -> None:
        graph = document["components"]["schemas"]["AgentGraph"]
        kinds = graph["properties"]["nodes"]["items"]["discriminator"]["mapping"]
        assert {"start", "end", "llm", "retrieve", "template"} <= set(kinds)
        create = document["components"]["schemas"]["AgentCreate"]["properties"]["graph"]
        assert "#/components/schemas/AgentGraph" in references(create)
