"""A small client of our own API for the commands that speak HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from app.cli.credentials import Server
from app.core.constants import API_PREFIX
from app.core.errors import AppError

_AWKWARD = re.compile(r'["\\\r\n]')
_ARGUMENTS = {
    "collections": "--collection",
    "files": "PATHS",
    "input": "QUESTION",
    "mode": "--mode",
    "q": "--query",
    "query": "QUERY",
    "run_id": "RUN",
    "status": "--status",
    "top_k": "--top-k",
}
"""Fields of requests that come from an argument or option."""
_TIMEOUT = httpx2.Timeout(30, read=300)
_QUIET_STREAM = httpx2.Timeout(30, read=60)
"""Longer than a few heartbeats: a connection that lost its other end is noticed."""
_AWAY = (502, 503, 504)


class ApiError(AppError):
    """What the server answered instead of what was asked for."""

    code, title = "api_error", "The server refused"


class Unreachable(ApiError):
    """Nobody answers there, for now at least."""

    code, title = "unavailable", "No server answers"


@dataclass(slots=True)
class Client:
    """Raises `ApiError` with the server's own words."""

    http: httpx2.Client

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, params=query)

    def text(self, path: str) -> str:
        """What is answered, as it is."""
        return self._response("GET", path).text

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, json=body)

    def upload(self, collection: str, files: Sequence[Path], names: Sequence[str]) -> Any:
        """Sends files under `names`, also their external ids: a repetition is recognised."""
        handles = [path.open("rb") for path in files]
        try:
            sent = [_AWKWARD.sub("_", name) for name in names]  # multipart would escape these
            parts = [("files", (name, handle)) for name, handle in zip(sent, handles, strict=True)]
            items = {name: {"external_id": own} for name, own in zip(sent, names, strict=True)}
            path = f"/collections/{segment(collection)}/documents"
            return self._call("POST", path, files=parts, data={"items": json.dumps(items)})
        finally:
            for handle in handles:
                handle.close()

    def stream(self, path: str, body: Any) -> Iterator[dict[str, Any]]:
        """Events of a streamed run: the JSON envelope of each."""
        return self._streamed("POST", path, json=body)

    def events(self, run_id: str, *, after: int) -> Iterator[dict[str, Any]]:
        """Envelopes of a run's events behind `after`, until its end or until the server ends the stream."""
        headers = {"Last-Event-ID": str(after)}
        path = f"/runs/{segment(run_id)}/events"
        return self._streamed("GET", path, headers=headers, timeout=_QUIET_STREAM)

    def ready(self) -> bool:
        """Whether the server can serve now."""
        try:
            return self.http.get("/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    def _streamed(self, method: str, path: str, **options: Any) -> Iterator[dict[str, Any]]:
        try:
            with self.http.stream(method, API_PREFIX + path, **options) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _refused(response)
                for data in event_data(response.iter_bytes()):
                    yield json.loads(data)
        except httpx2.TransportError as error:
            raise _unreachable(self.http, error) from error

    def _call(self, method: str, path: str, **options: Any) -> Any:
        response = self._response(method, path, **options)
        return response.json() if response.content else None

    def _response(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            response = self.http.request(method, API_PREFIX + path, **options)
        except httpx2.TransportError as error:
            raise _unreachable(self.http, error) from error
        if response.status_code >= 400:
            raise _refused(response)
        return response


def event_data(chunks: Iterable[bytes]) -> Iterator[str]:
    """The data of server-sent events (WHATWG HTML, section 9.2); an event that was cut off is none.

    Lines end at line feeds only, as our server writes them: texts may hold what else Unicode calls an end.
    """
    rest, data = b"", list[str]()
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].decode().removeprefix(" "))
            elif not line and data:
                yield "\n".join(data)
                data.clear()


def segment(reference: str) -> str:
    """A slug or id as one segment of a path, whatever characters it has."""
    if reference in ("", ".", ".."):
        raise ApiError(f"{reference!r} is neither a slug nor an id.")
    return quote(reference, safe="", errors="replace")


def readiness(url: str, *, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """Status code and body of `health/ready`; `ApiError` where nothing sensible answers."""
    with httpx2.Client(base_url=url, timeout=timeout_s, trust_env=False) as http:
        try:
            answer = http.get("/health/ready")
            return answer.status_code, dict(answer.json())
        except (httpx2.TransportError, ValueError, TypeError) as error:
            raise _unreachable(http, error) from error


@contextmanager
def open_client(server: Server) -> Iterator[Client]:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    tls = server.url.startswith("https:")  # reading the certificates takes longer than most commands
    with httpx2.Client(
        base_url=server.url, headers=headers, timeout=_TIMEOUT, trust_env=False, verify=tls
    ) as http:
        yield Client(http)


def _unreachable(http: httpx2.Client, error: Exception) -> Unreachable:
    why = type(error).__name__
    return Unreachable(f"{http.base_url} does not answer ({why}): is `orrery serve` running?")


def _argument(pointer: str) -> str:
    """What a place in a request is called on the command line, as far as it has a name there."""
    parts = [part for part in pointer.split("/") if part and not part.isdecimal()]
    if parts[:1] in (["body"], ["query"], ["path"]):
        parts = parts[1:]
    name = parts[0] if parts else "request"
    return _ARGUMENTS.get(name, " ".join(parts) or name)


def _refused(response: httpx2.Response) -> ApiError:
    try:
        problem = response.json()
        wrong = [f"{_argument(e['pointer'])}: {e['message']}" for e in problem.get("errors", [])]
        return ApiError("; ".join(wrong) or problem["detail"], code=problem["code"])
    except (ValueError, KeyError, TypeError):
        kind = Unreachable if response.status_code in _AWAY else ApiError  # a proxy, for a server
        return kind(f"The server answered {response.status_code}: {response.text[:200]}")
