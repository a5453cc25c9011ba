"""What an exception of a node is called."""

from __future__ import annotations

import logging

from app.agent.core.events import Failure
from app.agent.core.interfaces import ModelError
from app.agent.graph.plan import PlannedNode
from app.core.errors import AppError, RateLimited, Unavailable

_log = logging.getLogger(__name__)


def failure_of(error: Exception, node: PlannedNode) -> tuple[Failure, float | None]:
    """An exception as code and message, and the wait that a provider asked for."""
    match error:
        case ModelError():
            return Failure(code=error.code, message=error.message), error.retry_after_s
        case RateLimited():
            return Failure(code="rate_limit", message=error.detail), error.retry_after_s
        case Unavailable():
            return Failure(code="server_error", message=error.detail), error.retry_after_s
        case AppError():
            return Failure(code=error.code, message=error.detail), error.retry_after_s
        case TimeoutError():
            limit = f" within {node.timeout_s:g} s" if node.timeout_s else " in time"
            return Failure(code="timeout", message=f"node {node.id!r} did not finish{limit}"), None
    _log.error("node %r of type %r raised", node.id, node.type.name, exc_info=error)
    return Failure(code="internal_error", message=f"node {node.id!r} failed unexpectedly"), None
