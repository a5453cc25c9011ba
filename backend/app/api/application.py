"""FastAPI as we need it: our middleware outermost, and errors described as they are sent."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from app.api.middleware import RequestContext, TooLargeAsProblem
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
    """The application's class; `main.create_app` makes the one instance."""

    def build_middleware_stack(self) -> ASGIApp:
        """FastAPI answers 413 and 500 from outside of whatever `add_middleware` adds."""
        return RequestContext(TooLargeAsProblem(super().build_middleware_stack()))

    def openapi(self) -> dict[str, Any]:
        """The description, with the schema that `NATIVE_RESPONSES` refers to; made once."""
        fresh = self.openapi_schema is None
        document = super().openapi()
        if fresh:
            problem = Problem.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
            schemas: dict[str, Any] = document["components"]["schemas"]
            schemas |= problem.pop("$defs") | {Problem.__name__: problem}
            document["components"]["schemas"] = dict(sorted(schemas.items()))
        return document
