"""What travels between the pool and its children: JSON with a length before it, then the text as UTF-8."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from app.rag.components.parsers.draft import KINDS, Draft
from app.rag.components.parsers.errors import ParseCode, ParseError
from app.rag.components.parsers.limits import ParseLimits

HEADER: Final = struct.Struct(">IQ")  # bytes of JSON, bytes of text
UNREADABLE: Final = "unreadable"  # the file itself cannot be read; not a verdict on its content
BROKEN: Final = "broken"  # the parser has a fault


@dataclass(frozen=True, slots=True)
class Job:
    """One file to parse."""

    path: Path
    name: str
    limits: ParseLimits
    media_type: str | None = None


def pack(head: Mapping[str, Any], text: str = "") -> bytes:
    """One message."""
    json_bytes, text_bytes = json.dumps(head, separators=(",", ":")).encode(), text.encode()
    return HEADER.pack(len(json_bytes), len(text_bytes)) + json_bytes + text_bytes


def most_bytes(limits: ParseLimits) -> int:
    """The longest answer within `limits`: the text, and a block for every few bytes of it."""
    return 3 * limits.max_text_bytes + 2**20


def pack_job(job: Job) -> bytes:
    head = {
        "path": os.path.abspath(job.path),  # a child has another working folder
        "name": job.name,
        "limits": asdict(job.limits),
        "media_type": job.media_type,
    }
    return pack(head)


def unpack_job(head: Mapping[str, Any]) -> Job:
    return Job(Path(head["path"]), head["name"], ParseLimits(**head["limits"]), head["media_type"])


def pack_draft(draft: Draft) -> bytes:
    blocks = [(KINDS.index(each.kind), each.start, each.end, each.page, each.level) for each in draft.blocks]
    head = {
        "media_type": draft.media_type,
        "title": draft.title,
        "page_count": draft.page_count,
        "language": draft.language,
        "metadata": draft.metadata,
        "blocks": blocks,
    }
    return pack(head, draft.text)


def pack_error(code: ParseCode | str, detail: str, *, retriable: bool = False) -> bytes:
    return pack({"error": {"code": code, "detail": detail, "retriable": retriable}})


def pack_failure(error: ParseError) -> bytes:
    return pack_error(error.code, error.detail, retriable=error.retriable)
