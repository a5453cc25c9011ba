"""Multipart uploads as incoming documents: read after the caller is known, never whole in memory."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import PurePosixPath
from typing import Any

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.api.idempotency import look_once_read
from app.api.quoting import unknown_field
from app.api.schemas.rag import UploadItem
from app.api.validation import pointer
from app.core.errors import FieldError, Invalid, StorageFull
from app.services.intake_service import Incoming

FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "additionalProperties": False,
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "items": {
                            "type": "string",
                            "description": "JSON: file name → {external_id, title, metadata}",
                        },
                    },
                }
            }
        },
    }
}
_CHUNK = 1 << 20
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ITEMS = TypeAdapter(dict[str, UploadItem])


class _Form(MultiPartParser):
    """A form that was cut off is refused: what it lacks nobody could name."""

    def __init__(self, request: Request, *, max_files: int, max_fields: int) -> None:
        stream = self._to_its_end(request.stream())
        super().__init__(request.headers, stream, max_files=max_files, max_fields=max_fields)
        self._ended = False

    def on_end(self) -> None:
        self._ended = True

    async def parse(self) -> FormData:
        async with aclosing(self.stream):
            return await super().parse()

    async def _to_its_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async with aclosing(stream):
            async for chunk in stream:
                yield chunk
        if not self._ended:
            raise MultiPartException("The form ends before its last boundary: it was cut off.")


@asynccontextmanager
async def uploaded(request: Request, max_files: int) -> AsyncIterator[AsyncIterator[Incoming]]:
    """The form's files with what its `items` field says of them; temporary files go with the block."""
    try:
        form = await _Form(request, max_files=max_files, max_fields=4).parse()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull("There is no room for uploads in the server's temporary folder.") from error
    except (UnicodeError, LookupError) as error:
        raise _invalid("/body", "charset", f"a part has no usable charset: {error}") from error
    except MultiPartException as error:
        raise _invalid("/body", "multipart", _said(error, max_files)) from error
    try:
        await look_once_read(request)
        files = _files(form)
        described = _described(form, {file.filename for file in files})
        yield _incoming(files, described)
    finally:
        await form.close()


def _said(error: MultiPartException, max_files: int) -> str:
    too_many = error.message.startswith("Too many files")
    return f"Too many files; at most {max_files} files are taken at once." if too_many else error.message


def _files(form: FormData) -> list[UploadFile]:
    unknown = sorted(set(form) - {"files", "items"})
    if unknown:
        raise _invalid(
            pointer("body", unknown[0]),
            "extra_forbidden",
            f"unknown field {unknown[0]!r}; valid: 'files', 'items'",
        )
    files = [part for part in form.getlist("files") if isinstance(part, UploadFile)]
    if not files:
        raise _invalid("/body/files", "missing", "send at least one file in the multipart field `files`")
    return files


def _described(form: FormData, names: set[str | None]) -> dict[str, UploadItem]:
    raw = form.get("items")
    if raw is None:
        return {}
    try:
        described = _ITEMS.validate_python(json.loads(raw if isinstance(raw, str) else ""))
    except (ValueError, RecursionError) as error:
        detail = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        if detail.get("type") == "extra_forbidden":
            detail["msg"] = unknown_field(UploadItem, ())
        raise _invalid(
            pointer("body", "items", *detail["loc"]),
            "invalid_items",
            f"`items` is not JSON of the right shape: {detail['msg']}",
        ) from error
    strangers = sorted(set(described) - names)
    if strangers:
        raise _invalid(
            pointer("body", "items", strangers[0]),
            "unknown_file",
            f"{strangers[0]!r} is none of the files: {sorted(filter(None, names))}",
        )
    return described


async def _incoming(files: list[UploadFile], described: dict[str, UploadItem]) -> AsyncIterator[Incoming]:
    for file in files:
        item = described.get(file.filename or "", UploadItem(metadata={}))
        yield Incoming(
            name=_shown_name(file.filename),
            content=_chunks(file),
            media_type=_media_type(file.content_type),
            external_id=item.external_id,
            title=item.title,
            metadata=item.metadata,
        )


def _shown_name(filename: str | None) -> str:
    """The last part of a path some clients send; only ever shown, never opened."""
    name = _UNSTORABLE.sub("", PurePosixPath((filename or "").replace("\\", "/")).name)
    return name[:255] or "unnamed"


def _media_type(declared: str | None) -> str | None:
    """What the client says it is; a hint only, and none where it is not even printable."""
    return declared[:255] if declared and declared.isprintable() else None


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(_CHUNK):
        yield chunk


def _invalid(place: str, code: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(place, code, message)])
