"""What the rest of the platform knows of outgoing calls: a call, its limits, its answer. No HTTP library."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

_CHARSET = re.compile(r"(utf-?8|utf-?16|iso-?8859|latin|windows-|cp\d|gb|big5|euc|shift|koi8|ascii|us-ascii)")
"""Python also decodes `zlib` or `punycode`: no text, or in quadratic time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may cost.

    `connect_s`: looking the name up and connecting, and again for TLS; also waiting for a free
    connection, and before that for one of the organization's share. `first_byte_s`: from asking to the
    head of the answer, all that but the share included, on each redirect.
    `idle_s`: between two pieces of the body. `total_s`: the whole call with its redirects.
    `max_bytes`: of the body, both as sent and decompressed. `max_event_bytes`: of one server-sent event.
    """

    connect_s: float = 10
    first_byte_s: float = 60
    idle_s: float = 30
    total_s: float = 120
    max_bytes: int = 32 * 2**20
    max_event_bytes: int = 2**20
    max_redirects: int = 5


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to an absolute http(s) URL; `follow` its redirects.

    `limits`: those of the installation if None. Headers that frame the message (`Host`,
    `Content-Length`, `Connection`, …) are not the caller's to give.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    limits: Limits | None = None
    follow: bool = True

    @classmethod
    def with_json(
        cls,
        method: str,
        url: str,
        value: object,
        *,
        headers: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        follow: bool = True,
    ) -> Call:
        """A call whose body is `value` as JSON."""
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        typed = {"Content-Type": "application/json", **(headers or {})}
        return cls(method, url, typed, body, limits, follow)


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer. `url` is the last one after redirects; header names are in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body by the charset of its content type, else UTF-8; what does not decode is replaced."""
        _, _, charset = self.headers.get("content-type", "").lower().partition("charset=")
        charset = charset.partition(";")[0].strip(" \"'")
        try:
            return self.body.decode(charset if _CHARSET.match(charset) else "utf-8", "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Raises `ValueError` if the body is not JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event (WHATWG HTML, 9.2)."""

    event: str
    data: str
    id: str


class ReplyStream(Protocol):
    """An answer whose head has arrived; its body is read once, in one of three forms."""

    @property
    def url(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Decompressed bytes as they arrive."""
        ...

    def lines(self) -> AsyncIterator[str]:
        """Lines of UTF-8, without their ends."""
        ...

    def events(self) -> AsyncIterator[ServerEvent]:
        """Server-sent events; `EgressFailed` if the content type is another."""
        ...


class Egress(Protocol):
    """The one way out for addresses that users or documents supply.

    Every status is an answer, also 4xx and 5xx. Raises `EgressDenied`, `EgressFailed`, `EgressTimeout`,
    `EgressTooLarge` and `EgressBusy`, also while a stream is read.
    """

    @property
    def limits(self) -> Limits: ...

    async def fetch(self, call: Call) -> Reply:
        """The whole answer, in memory."""
        ...

    def stream(self, call: Call) -> AbstractAsyncContextManager[ReplyStream]:
        """The answer as it arrives; leaving the context closes what was not read."""
        ...
