"""What each kind of failure is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from app.api import quoting
from app.api.bodies import check_charset, too_large
from app.api.problems import problem, problem_of
from app.api.unread import ask_guard
from app.api.validation import malformed, place, pointer
from app.core.errors import AppError, BadRequest, Conflict, FieldError, NotFound, StorageFull
from app.db.outage import is_disk_full, is_lost_race, is_outage
from app.services.idempotency_service import AlreadyDone

logger = structlog.get_logger(__name__)

_CODES = {
    400: "bad_request",
    405: "method_not_allowed",
    408: "request_timeout",
}


async def _app_error(request: Request, error: AppError) -> Response:
    if error.status >= 500:
        logger.warning("request_failed", code=error.code, detail=error.detail)
    return problem_of(request, error)


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        unreadable = malformed(error.__cause__)
        if unreadable is not None:
            return await _unread(request, unreadable)
    errors = tuple(
        FieldError(pointer(*place(one, error.body)), one["type"], quoting.message(request, one))
        for one in found
    )
    return problem(
        request,
        status=422,
        code="invalid",
        title="Validation failed",
        detail="; ".join(f"{e.pointer}: {e.message}" for e in errors[:5]),
        errors=errors,
    )


async def _http_error(request: Request, error: HTTPException) -> Response:
    unreadable = malformed(error.__cause__) if error.status_code == 400 else None
    if unreadable is not None:
        return await _unread(request, unreadable)
    if error.status_code == 404:
        return problem_of(request, NotFound(f"There is no route {request.method} {request.url.path}."))
    if error.status_code == 413:
        return problem_of(request, too_large(request))
    if error.status_code == 405:
        return _method_error(request)
    return problem(
        request,
        status=error.status_code,
        code=_CODES.get(error.status_code, "http_error"),
        title=str(error.detail),
        detail=f"{error.detail}: {request.method} {request.url.path}",
        headers=dict(error.headers or {}),
    )


async def _unread(request: Request, error: AppError) -> Response:
    """The answer to a body that FastAPI could not read; the guard has the first word."""
    try:
        await ask_guard(request)
        check_charset(request)
    except Exception as refusal:
        return await response_to(request, refusal)
    return problem_of(request, error)


def _method_error(request: Request) -> Response:
    """405, or what OPTIONS asks for; `Allow` names the methods of every route with this path."""
    allowed: set[str] = set()
    for context in iter_route_contexts(request.app.router.routes):
        if context.matches(request.scope)[0] is not Match.NONE:
            allowed |= context.methods or set()
    if "GET" in allowed:
        allowed.add("HEAD")
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": ", ".join(sorted(allowed | {"OPTIONS"}))})
    headers = {"Allow": ", ".join(sorted(allowed))}
    return problem(
        request,
        status=405,
        code="method_not_allowed",
        title="Method not allowed",
        detail=f"{request.url.path} does not take {request.method}, but {headers['Allow']}.",
        headers=headers,
    )


async def _already_done(request: Request, error: AlreadyDone) -> Response:
    """What the first of these requests was answered."""
    answer = error.answer
    if answer.body is not None:
        headers = answer.headers | {"Idempotency-Replayed": "true"}
        return Response(answer.body, answer.status, headers)
    made = f"It made {str(answer.subject_id)!r}. " if answer.subject_id else ""
    return problem_of(
        request,
        Conflict(
            f"The request with this Idempotency-Key had its effect, but its answer is not kept, because it "
            f"holds a secret or speaks of what has been deleted. {made}Look at that, or use a new key.",
            code="idempotency_not_replayable",
        ),
    )


async def _client_gone(request: Request, _: ClientDisconnect) -> Response:
    return problem_of(request, BadRequest("The client went away before its request was complete."))


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


_HANDLERS: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
    AlreadyDone: _already_done,
    AppError: _app_error,
    RequestValidationError: _validation_error,
    HTTPException: _http_error,
    ClientDisconnect: _client_gone,
    DBAPIError: _database_error,
    PoolTimeout: _database_error,
    Exception: _unexpected,
}


async def response_to(request: Request, error: Exception) -> Response:
    """The answer to `error`, for what fails outside of the routes."""
    kind = next(kind for kind in type(error).__mro__ if kind in _HANDLERS)
    return await _HANDLERS[kind](request, error)


def install_error_handlers(app: FastAPI) -> None:
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
