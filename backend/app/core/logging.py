"""Logs: structlog, as JSON lines or for a console, with the request id in every line; to standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from app.core.config import Settings
from app.core.masking import mask_credentials

# Without local variables: they hold credentials and documents.
_TRACEBACKS = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
_QUIET = (
    "httpcore2",  # would show headers
    "httpx2",
    "uvicorn.access",
    "alembic",
    "celery.worker.strategy",
    "celery.app.trace",
)


def _masked(_: Any, __: str, line: Any) -> str:
    return mask_credentials(line)


_PROCESSORS: list[Any] = []
"""One list for good: loggers keep the one that they were first used with."""


def configure_logging(settings: Settings) -> None:
    """Sends structlog and the standard library's loggers through one formatter."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([_TRACEBACKS] if as_json else []),
                renderer,
                _masked,
            ],
        )
    )
    _PROCESSORS[:] = [*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
    structlog.configure(
        processors=_PROCESSORS,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
