"""Every failure as `application/problem+json` (RFC 9457), with the request id."""

from __future__ import annotations

import json
from socket import gaierror
from typing import Any

import structlog
from asyncpg import PostgresError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.api import quoting
from app.core.errors import AppError, FieldError, StorageFull
from app.core.masking import mask_credentials
from app.db.outage import is_disk_full, is_lost_race, is_outage

logger = structlog.get_logger(__name__)

_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}


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
    # ASCII, because what is quoted may not be text at all (half a surrogate pair).
    text = mask_credentials(json.dumps(body, separators=(",", ":")))
    return Response(text, status, headers, media_type="application/problem+json")


async def _app_error(request: Request, error: AppError) -> Response:
    if error.status >= 500:
        logger.warning("request_failed", code=error.code, detail=error.detail)
    return problem_of(request, error)


def problem_of(request: Request, error: AppError) -> Response:
    headers: dict[str, str] = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return problem(
        request,
        status=error.status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        errors=error.errors,
        headers=headers,
    )


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    errors = tuple(
        FieldError(pointer(*found["loc"]), found["type"], quoting.message(request, found))
        for found in error.errors()
    )
    return problem(
        request,
        status=422,
        code="invalid",
        title="Validation failed",
        detail="; ".join(f"{e.pointer}: {e.message}" for e in errors[:5]),
        errors=errors,
    )


def pointer(*parts: object) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


async def _http_error(request: Request, error: HTTPException) -> Response:
    code = _CODES.get(error.status_code, "http_error")
    return problem(
        request,
        status=error.status_code,
        code=code,
        title=str(error.detail),
        detail=f"{error.detail}: {request.method} {request.url.path}",
        headers=dict(error.headers or {}),
    )


async def _database_error(request: Request, error: Exception) -> Response:
    if is_disk_full(error):
        return await _app_error(request, StorageFull("The database's disk is full; nothing was stored."))
    if not is_outage(error) and not is_lost_race(error):
        return await _unexpected(request, error)
    logger.warning("database_unavailable", error=repr(error))
    return problem(
        request,
        status=503,
        code="unavailable",
        title="Service unavailable",
        detail="The database does not answer right now; try again.",
        headers={"Retry-After": "2"},
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("request_crashed", path=request.url.path, error=type(error).__name__)  # uvicorn says more
    return problem(
        request,
        status=500,
        code="internal_error",
        title="Internal error",
        detail="Something went wrong on our side; the log has it under this request id.",
    )


def install_error_handlers(app: FastAPI) -> None:
    handlers: dict[type[Exception], Any] = {
        AppError: _app_error,
        RequestValidationError: _validation_error,
        HTTPException: _http_error,
        DBAPIError: _database_error,
        PoolTimeout: _database_error,
        ConnectionError: _database_error,
        TimeoutError: _database_error,
        gaierror: _database_error,
        PostgresError: _database_error,
        Exception: _unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
