"""FastAPI as we need it: our middleware outermost, and errors described as they are sent."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from app.api.idempotency import IdempotentAnswers
from app.api.middleware import HeadAsGet, RequestContext, TooLargeAsProblem
from app.api.native import SCHEMAS
from app.api.request_limits import RequestLimits
from app.api.schemas.agents import EventRead
from app.api.schemas.common import Problem
from app.api.yaml_bodies import YamlRoute, described
from app.core.config import Settings


def install_middleware(app: FastAPI, settings: Settings) -> None:
    """What stands between the server and the routes; the last one added is the outermost."""
    app.add_middleware(IdempotentAnswers)
    app.add_middleware(HeadAsGet)
    app.add_middleware(
        RequestLimits,
        max_url_bytes=settings.max_url_bytes,
        max_header_bytes=settings.max_header_bytes,
        silence_s=settings.body_silence_s,
        min_bytes_per_s=settings.body_min_bytes_per_s,
    )


class Api(FastAPI):
    """The application's class; `main.create_app` makes the one instance."""

    def build_middleware_stack(self) -> ASGIApp:
        """FastAPI answers 413 and 500 from outside of whatever `add_middleware` adds."""
        return RequestContext(TooLargeAsProblem(super().build_middleware_stack()))

    def openapi(self) -> dict[str, Any]:
        """The description, with the schemas that `responses` of routes refer to; made once."""
        fresh = self.openapi_schema is None
        document = super().openapi()
        if fresh:
            schemas: dict[str, Any] = document["components"]["schemas"]
            for model in (Problem, EventRead):
                schema = model.model_json_schema(ref_template=f"{SCHEMAS}{{model}}")
                schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
            document["components"]["schemas"] = dict(sorted(schemas.items()))
            for route in self.routes:
                if isinstance(route, YamlRoute):
                    described(document, route)
        return document
