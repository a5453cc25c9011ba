"""PDF to blocks through pdfium: its text in its reading order, page by page.

Only the raw bindings are used: the helper package doubles the start-up time of a child.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pypdfium2_raw as pdfium  # type: ignore[import-untyped]

from app.rag.components.parsers.detect import PDF
from app.rag.components.parsers.draft import Draft, Writer, one_line
from app.rag.components.parsers.errors import ParseError
from app.rag.components.parsers.limits import ParseLimits
from app.rag.components.parsers.pdf_lines import Page, read_page
from app.rag.components.parsers.pdf_structure import write_pages

_INFO: Final = {"Author": "author", "Subject": "subject", "Keywords": "keywords", "CreationDate": "created"}
_DATE = re.compile(r"D:(\d{4})(\d{2})(\d{2})")
_WORD = re.compile(r"\w")
_FILLER = re.compile(r"\(?(?:anonymous|unspecified)\)?|untitled|unknown", re.IGNORECASE)
_FILE_NAME = re.compile(
    r"microsoft word - .*|document\d*|.*\.(?:docx?|dvi|tex|indd|rtf|html?)", re.IGNORECASE
)
_SECURITY_ERRORS: Final = frozenset({pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY})

pdfium.FPDF_InitLibrary()  # here, so that a process which forks for every file pays for it once


def parse_pdf(path: Path, limits: ParseLimits) -> Draft:
    """Every block lies on one page. Unreadable pages are listed in `metadata["unreadable_pages"]`."""
    with _opened(path) as document:
        count = pdfium.FPDF_GetPageCount(document)
        if count > limits.max_pages:
            raise ParseError(
                "too_many_pages", f"The PDF has {count} pages; at most {limits.max_pages} are allowed"
            )
        pages, unreadable = _pages(document, count, limits)
        title, metadata = _information(document)
    writer = Writer(limits.max_text_bytes)
    write_pages(writer, pages)
    _refuse_nothing(writer, count, unreadable)
    if unreadable:
        metadata["unreadable_pages"] = unreadable[:100]
    return Draft(PDF, writer.text(), writer.blocks, title or writer.first_heading(), count, metadata=metadata)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    document = pdfium.FPDF_LoadDocument(bytes(path), None)
    if not document:
        if pdfium.FPDF_GetLastError() in _SECURITY_ERRORS:
            raise ParseError("encrypted", "The PDF is protected by a password; save it without one")
        raise ParseError("corrupt", "The PDF is damaged: it has no readable structure")
    try:
        yield document
    finally:
        pdfium.FPDF_CloseDocument(document)


def _pages(document: Any, count: int, limits: ParseLimits) -> tuple[list[Page], list[int]]:
    pages: list[Page] = []
    unreadable: list[int] = []
    characters = 0
    for index in range(count):
        page = _page(document, index)
        if page is None:
            unreadable.append(index + 1)
        pages.append(page or Page())
        characters += sum(len(line.text) for line in pages[-1].lines)
        if characters > limits.max_text_bytes:
            raise ParseError(
                "too_large", f"The text is larger than allowed: at most {limits.max_text_bytes} bytes"
            )
    return pages, unreadable


def _page(document: Any, index: int) -> Page | None:
    page = pdfium.FPDF_LoadPage(document, index)
    if not page:
        return None
    text_page = pdfium.FPDFText_LoadPage(page)
    try:
        return read_page(page, text_page) if text_page else None
    finally:
        if text_page:
            pdfium.FPDFText_ClosePage(text_page)
        pdfium.FPDF_ClosePage(page)


def _refuse_nothing(writer: Writer, count: int, unreadable: list[int]) -> None:
    if count == 0 or len(unreadable) == count:
        raise ParseError("corrupt", "The PDF is damaged: none of its pages can be read")
    if not _WORD.search(writer.text()):
        raise ParseError(
            "empty", f"The PDF ({count} pages) has no text layer; it seems to be scanned and would need OCR"
        )


def _information(document: Any) -> tuple[str | None, dict[str, Any]]:
    metadata: dict[str, Any] = {}
    for key, ours in _INFO.items():
        if found := _info(document, key):
            metadata[ours] = found
    if date := _DATE.match(metadata.get("created", "")):
        metadata["created"] = "-".join(date.groups())
    title = _info(document, "Title")
    return None if not title or _FILE_NAME.fullmatch(title) else title, metadata


def _info(document: Any, key: str) -> str:
    size = pdfium.FPDF_GetMetaText(document, key.encode(), None, 0)
    if not 2 < size < 100_000:
        return ""
    buffer = ctypes.create_string_buffer(size)
    pdfium.FPDF_GetMetaText(document, key.encode(), buffer, size)
    text = one_line(buffer.raw.decode("utf-16-le", "ignore"))[:2000]
    return "" if _FILLER.fullmatch(text) else text
