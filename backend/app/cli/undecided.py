"""Commands that answer a question by their exit code: 2 is for a question that could not be answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import AppError


class Undecided(AppError):
    """Neither yes nor no; the code and the words are those of what stood in the way."""

    exit_code = 2
    title = "Not decided"


@contextmanager
def undecided() -> Iterator[None]:
    """Whatever fails in the block leaves the command's question open."""
    try:
        yield
    except AppError as error:
        raise Undecided(error.detail, code=error.code, errors=error.errors) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise Undecided(f"{str(error.filename)!r} cannot be read: {error.strerror}.") from error
