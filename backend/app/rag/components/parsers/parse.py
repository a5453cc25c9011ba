"""One file to one draft: what it is decides which parser reads it."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Final

from app.rag.components.parsers.detect import (
    DOCX,
    HTML,
    MARKDOWN,
    PDF,
    PLAIN,
    SUPPORTED,
    detect_file,
    unsupported,
)
from app.rag.components.parsers.draft import Draft
from app.rag.components.parsers.errors import ParseError
from app.rag.components.parsers.limits import ParseLimits

PARSERS: Final = {
    PDF: ("app.rag.components.parsers.pdf", "parse_pdf"),
    DOCX: ("app.rag.components.parsers.docx", "parse_docx"),
    HTML: ("app.rag.components.parsers.html", "parse_html"),
    MARKDOWN: ("app.rag.components.parsers.markdown", "parse_markdown"),
    PLAIN: ("app.rag.components.parsers.plain", "parse_plain"),
}
"""Media type → module and function; a module is imported with the first file that needs it."""

_TEXTS: Final = frozenset({HTML, MARKDOWN, PLAIN})
_MARKUP_FACTOR: Final = 8  # source bytes per byte of text, above which markup is no document
_VISIBLE = re.compile(r"\w")


def parse_file(path: Path, name: str, limits: ParseLimits, *, media_type: str | None = None) -> Draft:
    """Reads `path`. `media_type` overrules the kind of a text, and is demanded of anything else.

    Raises `ParseError`, and `OSError` when the file itself cannot be read.
    """
    with path.open("rb") as file:
        found = detect_file(file, name)
        kind = _chosen(found, media_type, name)
        module, function = PARSERS[kind]
        parse = getattr(import_module(module), function)
        if kind == PDF:
            draft = parse(path, limits)
        elif kind == DOCX:
            draft = parse(file, limits)
        else:
            draft = parse(_read(file, limits, markup=kind == HTML), limits)
    return _not_empty(draft, name)


def _chosen(found: str, wanted: str | None, name: str) -> str:
    if wanted is None or wanted == found or (wanted in _TEXTS and found in _TEXTS):
        return wanted or found
    if wanted not in SUPPORTED:
        raise ValueError(f"media type {wanted!r} is unknown; known are {', '.join(map(repr, SUPPORTED))}")
    raise unsupported(name, f"{SUPPORTED[found]}, not {SUPPORTED[wanted]}")


def _read(file: BinaryIO, limits: ParseLimits, *, markup: bool) -> bytes:
    most = limits.max_text_bytes * (_MARKUP_FACTOR if markup else 2)  # UTF-16 is at most twice as long
    if os.fstat(file.fileno()).st_size > most:
        raise ParseError("too_large", f"The file is larger than allowed for its kind: at most {most} bytes")
    return file.read()


def _not_empty(draft: Draft, name: str) -> Draft:
    if not _VISIBLE.search(draft.text):
        raise ParseError("empty", f"{name!r} holds no text")
    return draft
