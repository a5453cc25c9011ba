"""The one root of every error that a caller may see, and what it carries to the wire (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: where it is (RFC 6901 pointer), which rule it broke, and what to do."""

    pointer: str
    code: str
    message: str


class AppError(Exception):
    """Root of all expected failures. `status` is an HTTP status, `code` is stable for programs.

    `retriable`: the same request may succeed at another time.
    """

    status: ClassVar[int] = 500
    code: str = "internal_error"
    title: ClassVar[str] = "Internal error"
    retry_after_s: float | None = None

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: Iterable[FieldError] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retriable = self.status >= 500
        if code:
            self.code = code
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class BadRequest(AppError):
    status, code, title = 400, "bad_request", "Bad request"


class Unauthenticated(AppError):
    status, code, title = 401, "unauthenticated", "Authentication required"


class Forbidden(AppError):
    status, code, title = 403, "forbidden", "Permission missing"


class CrossSite(Forbidden):
    """Perhaps a page of somebody else had the caller's browser send this."""

    code, title = "cross_site", "Not proven to come from our own pages"


class NotFound(AppError):
    status, code, title = 404, "not_found", "Not found"


class Conflict(AppError):
    status, code, title = 409, "conflict", "Conflict"


class Gone(AppError):
    """It was there, and will not be again."""

    status, code, title = 410, "gone", "Gone"


class PreconditionFailed(AppError):
    status, code, title = 412, "precondition_failed", "Precondition failed"


class TooLarge(AppError):
    status, code, title = 413, "too_large", "Request too large"


class UriTooLong(AppError):
    status, code, title = 414, "uri_too_long", "URI too long"


class UnsupportedMediaType(AppError):
    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class Invalid(AppError):
    status, code, title = 422, "invalid", "Validation failed"


class RateLimited(AppError):
    status, code, title = 429, "rate_limited", "Too many requests"


class HeadersTooLarge(AppError):
    status, code, title = 431, "headers_too_large", "Request header fields too large"


class Unavailable(AppError):
    """Something we depend on (database, model provider, queue) does not answer."""

    status, code, title = 503, "unavailable", "Service unavailable"


class BlobMissing(AppError):
    """Bytes that were taken in are not where they were stored; another try does not help."""

    status, code, title = 500, "blob_missing", "Stored bytes missing"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.retriable = False


class StorageFull(AppError):
    status, code, title = 507, "storage_full", "Storage full"


class Misconfigured(AppError):
    """The operator's settings or machine keep the platform from starting; says what to do."""

    code, title = "misconfigured", "Configuration error"
