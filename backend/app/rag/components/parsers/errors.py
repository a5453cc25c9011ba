"""Why a file gave no document."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from app.core.errors import AppError

ParseCode = Literal[
    "unsupported", "encrypted", "corrupt", "too_large", "too_many_pages", "timeout", "out_of_memory", "empty"
]
PARSE_CODES: frozenset[str] = frozenset(get_args(ParseCode))


class ParseError(AppError):
    """A file that cannot become a document. `retriable`: the same file may succeed at another time."""

    status: ClassVar[int] = 422
    title: ClassVar[str] = "Document cannot be read"

    def __init__(self, code: ParseCode, detail: str, *, retriable: bool = False) -> None:
        super().__init__(detail, code=code)
        self.retriable = retriable
