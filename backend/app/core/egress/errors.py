"""How an outgoing call fails. Messages name host, port and reason, never an address that was looked up."""

from __future__ import annotations

from app.core.errors import AppError, Unavailable


class EgressDenied(AppError):
    """The call is not allowed, whatever its target answers.

    422: what is wrong is the address (or header) in the caller's request or document. 403 would say that
    the caller lacks a permission, which no permission of theirs could mend.
    """

    status, code, title = 422, "egress_denied", "Address may not be called"


class EgressInvalid(EgressDenied):
    """The call is none that can be sent: its method, URL or headers are wrong as they are written."""

    code, title = "bad_request", "Request cannot be sent"


class EgressTooLarge(AppError):
    """The answer is larger than allowed; asking again does not help."""

    status, code, title = 422, "egress_too_large", "Answer too large"


class EgressFailed(AppError):
    """The other side cannot be reached, or does not keep to HTTP."""

    status, code, title = 502, "egress_failed", "Outgoing call failed"


class EgressTimeout(AppError):
    """The other side took longer than allowed."""

    status, code, title = 504, "egress_timeout", "Outgoing call timed out"


class EgressBusy(Unavailable):
    """All outgoing connections are in use, or all that the organization may have."""

    code = "egress_busy"
    retry_after_s = 1.0
