"""How calls of a model provider fail, as `ModelError`: by status, by report within a stream, by transport."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import SecretStr

from app.agent.core.interfaces import ModelError
from app.core.egress import EgressBusy, EgressDenied, EgressTimeout, EgressTooLarge
from app.core.errors import AppError
from app.core.retry_after import retry_after_s

MAX_ERROR_BYTES = 16 * 2**10
"""Of an error's body; the rest is not read."""
_MAX_SHOWN, _MAX_PIECE = 500, 100
"""Characters of what a server says as an error, and as something that is none of its protocol."""
_BY_STATUS = {
    401: "auth",
    403: "auth",
    408: "timeout",
    409: "server_error",
    429: "rate_limit",
    504: "timeout",
}
_OF_THE_PLACE = (404, 405, 421)
"""Statuses of servers that were asked for something that they do not have."""
_BY_NAME = {
    "rate_limit": "rate_limit",
    "insufficient_quota": "rate_limit",
    "authentication": "auth",
    "invalid_api_key": "auth",
    "permission": "auth",
    "timeout": "timeout",
    "invalid": "bad_request",
    "bad_request": "bad_request",
    "badrequest": "bad_request",
    "context_length": "bad_request",
    "not_found": "bad_request",
}


class ProviderErrors:
    """Errors of calls for one model: messages name it, quote what its server says, and never hold its key.

    `model` is how they name it; `place`, where it is called, is added where that may be what is wrong.
    """

    def __init__(self, model: str, key: SecretStr | None, *, place: str) -> None:
        self._model = model
        self._located = f"{model} at {place}"
        self._key = key.get_secret_value() if key else ""

    def of_status(self, status: int, headers: Mapping[str, str], body: bytes) -> ModelError:
        """An answer that is no 2xx; `body` is the beginning of its body."""
        said = _said(_parsed(body)) or _text(body)
        if 300 <= status < 400:
            said = f"it redirects to {headers.get('location', '')!r}: correct the base URL"
        named = self._located if 300 <= status < 400 or status in _OF_THE_PLACE else self._model
        message = f"{named} answered {status}{_phrase(status)}"
        if said:
            message += f": {self._scrubbed(said)}"
        return ModelError(_code(status), message, retry_after_s=retry_after_s(headers))

    def reported(self, error: Any, *, begun: bool) -> ModelError:
        """A failure that the server reports under a 200; `begun`: in the midst of its answer."""
        said = _said(error) or "no reason given"
        failed = "broke off its answer" if begun else "answered with an error"
        message = f"{self._model} {failed}: {self._scrubbed(said)}"
        return ModelError(_reported_code(error), message)

    def malformed(self, what: str, said: Any = None) -> ModelError:
        """Something else than an answer; `said` is the piece of it that `what` speaks of."""
        if said is not None:
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            what = f"{self._scrubbed(text, _MAX_PIECE)!r} {what}"
        return ModelError("server_error", f"{self._located} gave no answer of its protocol: {what}")

    def broken_off(self) -> ModelError:
        return ModelError("server_error", f"{self._model} broke off before its answer was finished")

    def of_transport(self, error: AppError, *, begun: bool) -> ModelError:
        """An error of the way out; `begun`: an answer had begun."""
        match error:
            case EgressBusy():
                code = "rate_limit"
            case EgressTimeout():
                code = "timeout"
            case EgressDenied() | EgressTooLarge():
                code = "bad_request"
            case _:
                code = "server_error"
        failed = "broke off its answer" if begun else "gave no answer"
        message = f"{self._located} {failed}: {error.detail}"
        return ModelError(code, message, retry_after_s=error.retry_after_s)

    def _scrubbed(self, said: str, most: int = _MAX_SHOWN) -> str:
        """What others say without our key, and then bounded: a piece of the key would be left else."""
        said = said.replace(self._key, "…") if self._key else said
        return said if len(said) <= most else said[: most - 1] + "…"


def _code(status: int) -> str:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return "server_error" if status >= 500 else "bad_request"


def _reported_code(error: Any) -> str:
    """Servers give a status, or a name of the kind; none of them says which."""
    if not isinstance(error, dict):
        return "server_error"
    for key in ("code", "status", "type"):
        value = error.get(key)
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if isinstance(value, int) and 400 <= value < 600:
            return _code(value)
        for name, code in _BY_NAME.items():
            if isinstance(value, str) and name in value.lower():
                return code
    return "server_error"


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _said(error: Any) -> str:
    """The server's own message: `error.message`, `error`, `message` or `detail`, as servers have it."""
    if isinstance(error, list) and error:
        error = error[0]
    for _ in range(3):
        if not isinstance(error, dict):
            break
        error = error.get("error") or error.get("message") or error.get("detail") or ""
    return error.strip() if isinstance(error, str) else json.dumps(error) if error else ""


def _text(body: bytes) -> str:
    """A body that is no JSON, unless it is a page."""
    text = " ".join(body.decode("utf-8", "replace").split())
    return "" if text.startswith("<") else text


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
