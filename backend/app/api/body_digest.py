"""The digest of a request's query and body, taken while the body is read."""

from __future__ import annotations

from hashlib import sha256

from python_multipart.multipart import parse_options_header
from starlette.types import Message, Receive, Scope


class BodyDigest:
    """Tells equal requests from others. Holds no more of the body than the length of a boundary.

    A multipart body counts without its boundaries, which clients draw anew for each attempt.
    """

    def __init__(self, scope: Scope) -> None:
        query = b"&".join(sorted(scope["query_string"].split(b"&")))
        self._hash = sha256(query + b"\0")
        self._boundary = _boundary(dict(scope["headers"]).get(b"content-type", b""))
        self._rest = b""
        self.complete = False

    def reading(self, receive: Receive) -> Receive:
        """`receive`, with all that comes through it taken into the digest."""

        async def read() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self._add(message.get("body", b""))
                self.complete = not message.get("more_body", False)
            return message

        return read

    def value(self) -> bytes:
        """32 bytes, once the body has been read."""
        if not self.complete:
            raise RuntimeError("the body was not read before its digest was asked for")
        whole = self._hash.copy()
        whole.update(self._rest)
        return whole.digest()

    def _add(self, chunk: bytes) -> None:
        if not self._boundary:
            self._hash.update(chunk)
            return
        *parts, last = (self._rest + chunk).split(self._boundary)
        for part in parts:
            self._hash.update(part)
        settled = max(0, len(last) - len(self._boundary) + 1)  # a boundary may go on with the next chunk
        self._hash.update(last[:settled])
        self._rest = last[settled:]


def _boundary(content_type: bytes) -> bytes:
    kind, options = parse_options_header(content_type)
    return options.get(b"boundary", b"") if kind == b"multipart/form-data" else b""
