"""Failures as `application/problem+json` (RFC 9457), with the request id."""

from __future__ import annotations

import json
from math import ceil
from typing import Any, Final

import structlog
from fastapi import Request
from fastapi.responses import Response

from app.core.errors import AppError, FieldError
from app.core.masking import mask_credentials

PROBLEM: Final = "orrery.problem"
"""In the scope: the code of the problem that was answered, for the access log."""


def problem(
    request: Request,
    *,
    status: int,
    code: str,
    title: str,
    detail: str,
    errors: tuple[FieldError, ...] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    body: dict[str, Any] = {
        "type": f"urn:orrery:error:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "instance": request.url.path,
        "request_id": structlog.contextvars.get_contextvars().get("request_id"),
        "errors": [{"pointer": e.pointer, "code": e.code, "message": e.message} for e in errors],
    }
    request.scope[PROBLEM] = code
    # ASCII, because what is quoted may not be text at all (half a surrogate pair).
    text = mask_credentials(json.dumps(body, separators=(",", ":")))
    return Response(text, status, headers, media_type="application/problem+json")


def problem_of(request: Request, error: AppError) -> Response:
    headers: dict[str, str] = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, ceil(error.retry_after_s)))
    return problem(
        request,
        status=error.status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        errors=error.errors,
        headers=headers,
    )
