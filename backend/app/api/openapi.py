"""The description of the API (OpenAPI 3.1): what the routes declare, with errors as they are sent."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from app.api.schemas.common import Problem

_SCHEMAS = "#/components/schemas/"

NATIVE_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What went wrong (RFC 9457); `errors` points at the fields",
        "content": {"application/problem+json": {"schema": {"$ref": f"{_SCHEMAS}{Problem.__name__}"}}},
    }
}
"""The `responses` of every native route. FastAPI would file a `model` here under `application/json`."""


class Api(FastAPI):
    """A FastAPI whose description has the schema that `NATIVE_RESPONSES` refers to."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once, equal for equal code and settings."""
        fresh = self.openapi_schema is None
        document = super().openapi()
        if fresh:
            problem = Problem.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
            schemas: dict[str, Any] = document["components"]["schemas"]
            schemas |= problem.pop("$defs") | {Problem.__name__: problem}
            document["components"]["schemas"] = dict(sorted(schemas.items()))
        return document
