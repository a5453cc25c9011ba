"""Conditional requests (RFC 9110, section 13): `ETag`, `If-Match`, `If-None-Match`.

An ETag is the resource's revision, which guards writes, and a digest of the answer, which tells readers
whether anything that they see has changed: `"3-9f86d081884c7d65"`. `If-Match` looks at the revision only,
so a client may also make one of the `revision` that it read: `"3"`. It is taken wherever such a resource
is changed or deleted.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Depends, Header, Response
from pydantic import BaseModel

from app.core.constants import MAX_DIGITS
from app.core.errors import BadRequest

_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')
_TAGS = re.compile(rf"{_TAG.pattern}(?:\s*,\s*{_TAG.pattern})*")
_OURS = re.compile(rf"([0-9]{{1,{MAX_DIGITS}}})(?:-[0-9a-f]{{16}})?")

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Nothing has changed since the ETag in `If-None-Match`"}
}


class Revised(Protocol):
    """An answer of something that people edit."""

    revision: int

    def model_dump_json(self) -> str: ...


Answer = TypeVar("Answer", bound=Revised)


async def get_revisions(
    if_match: Annotated[
        str | None, Header(description="The ETag that was read: 412 if it has changed since")
    ] = None,
) -> frozenset[int] | None:
    """The revisions that `If-Match` names; None where it is absent or `*`."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = [_OURS.fullmatch(tag) for tag in _tags(if_match, "If-Match")]
    return frozenset(int(match[1]) for match in found if match)


async def get_known(
    if_none_match: Annotated[
        str | None, Header(description="ETags that the caller has: 304 if one is current")
    ] = None,
) -> frozenset[str]:
    """The ETags that `If-None-Match` names, without quotes."""
    if if_none_match is None:
        return frozenset()
    return frozenset({"*"} if if_none_match.strip() == "*" else _tags(if_none_match, "If-None-Match"))


RevisionsDep = Annotated[frozenset[int] | None, Depends(get_revisions)]
KnownDep = Annotated[frozenset[str], Depends(get_known)]


def tagged(answer: Answer, response: Response) -> Answer:
    """`answer`, with its ETag in the headers of `response`."""
    response.headers["ETag"] = f'"{_tag(answer, answer.model_dump_json())}"'
    return answer


def unless_known(answer: Revised, known: frozenset[str]) -> Response:
    """`answer` with its ETag, or 304 where the caller has it."""
    body = answer.model_dump_json()
    return _unless_known(body, _tag(answer, body), known)


def unless_held(answer: BaseModel, known: frozenset[str]) -> Response:
    """The same for what nobody edits: the ETag is a digest of the answer."""
    body = answer.model_dump_json()
    return _unless_known(body, _digest(body), known)


def _unless_known(body: str, tag: str, known: frozenset[str]) -> Response:
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _tag(answer: Revised, body: str) -> str:
    return f"{answer.revision}-{_digest(body)}"


def _digest(body: str) -> str:
    return sha256(body.encode()).hexdigest()[:16]


def _tags(header: str, name: str) -> list[str]:
    if not _TAGS.fullmatch(header.strip()):
        raise BadRequest(f'The header {name} is {header!r}; it takes an ETag such as "1-5f7464f2d26251ec".')
    return _TAG.findall(header)
