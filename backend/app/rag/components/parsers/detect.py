"""What a file is, by what it holds. The name decides only between kinds of text."""

from __future__ import annotations

import re
import zipfile
from codecs import getincrementaldecoder
from pathlib import PurePath
from typing import BinaryIO, Final

from app.rag.components.parsers.charset import decode, marked_encoding
from app.rag.components.parsers.errors import ParseError
from app.rag.components.parsers.signatures import (
    ENCRYPTED_OFFICE,
    OLE,
    binary_format,
    ole_directory,
    zip_format,
)

PDF: Final = "application/pdf"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
HTML: Final = "text/html"
MARKDOWN: Final = "text/markdown"
PLAIN: Final = "text/plain"

SUPPORTED: Final = {PDF: "PDF", DOCX: "DOCX", HTML: "HTML", MARKDOWN: "Markdown", PLAIN: "plain text"}

HEAD_BYTES: Final = 64 * 1024

_CONTROLS: Final = (*range(8), *range(14, 27), *range(28, 32))
_PDF_MAGIC = re.compile(rb"%PDF-\d")
_PDF_OBJECT = re.compile(rb"\d+\s+\d+\s+obj\b")
_ZIP_NAME = re.compile(rb"PK\x03\x04.{22}(..)..", re.DOTALL)

_HTML_START = re.compile(
    r"\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--(?>.*?-->)\s*+)*+<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
_HTML_TAG = re.compile(
    r"<(?:title|meta|link|style|script|div|p|span|h[1-6]|table|ul|ol|dl|section|article|main|header|nav|br|a|b|font"
    r"|center|form|img|pre|blockquote)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_MARKDOWN_NAMES = frozenset({".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"})
_HTML_NAMES = frozenset({".html", ".htm", ".xhtml", ".xht"})
_OPEN_NAMES = frozenset({"", ".txt", ".text"})
_TABLE_RULE = re.compile(r"^\|?(?:[ \t]*+:?-{3,}+:?[ \t]*+\|)++(?:[ \t]*+:?-{3,}+:?)?[ \t]*$", re.MULTILINE)
_MARKDOWN_SIGNS = (
    (2, re.compile(r"^#{1,6} \S.*\n(?:.*\n)+?#{1,6} \S", re.MULTILINE)),  # two headings
    (2, _TABLE_RULE),
    (1, re.compile(r"^#{1,6} \S", re.MULTILINE)),
    (1, re.compile(r"^(```|~~~)", re.MULTILINE)),
    (1, re.compile(r"\[[^\]\n]+\]\([^)\s]+\)")),
    (1, re.compile(r"\*\*\S[^*\n]*\*\*")),
    (1, re.compile(r"^[-*+] \S.*\n[-*+] \S", re.MULTILINE)),
)


def detect(head: bytes, name: str, *, entries: list[str] | None = None) -> str:
    """The media type of a file that begins with `head` (at best its first 64 KiB), a key of `SUPPORTED`.

    `entries` are the names in a ZIP archive where known; else those visible in `head` count. Raises
    `ParseError` (`unsupported`, `encrypted` or `empty`) that says what was found.
    """
    if not head:
        raise ParseError("empty", f"{name!r} is empty")
    if _is_pdf(head):
        return PDF
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_type(name, _names_in(head) if entries is None else entries)
    encoding = marked_encoding(head)
    if encoding is None and (found := binary_format(head)):
        if found == ENCRYPTED_OFFICE:
            raise ParseError("encrypted", f"{name!r} is {found}; save it without a password")
        raise unsupported(name, found)
    if encoding is None and _is_binary(head):
        raise unsupported(name, "binary data of an unknown format")
    return _text_type(decode(head), PurePath(name).suffix.lower())


def detect_file(file: BinaryIO, name: str) -> str:
    """`detect` for an open file, which also reads the directory of a ZIP archive or OLE file."""
    head = file.read(HEAD_BYTES)
    entries = None
    if head.startswith(OLE):
        file.seek(ole_directory(head))
        head += file.read(8192)
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ParseError(
                "corrupt", f"{name!r} is a damaged ZIP archive or office file: {error}"
            ) from error
    file.seek(0)
    return detect(head, name, entries=entries)


def unsupported(name: str, found: str) -> ParseError:
    """The error for content that no parser reads."""
    return ParseError("unsupported", f"{name!r} is {found}; supported are {', '.join(SUPPORTED.values())}")


def _is_pdf(head: bytes) -> bool:
    found = _PDF_MAGIC.search(head[:1024])
    if found is None:
        return False
    # Readers accept junk before the magic; a text that only speaks of PDF has no objects.
    return found.start() == 0 or bool(_PDF_OBJECT.search(head, found.end())) or _is_binary(head)


def _names_in(head: bytes) -> list[str]:
    names = []
    for entry in _ZIP_NAME.finditer(head):
        length = int.from_bytes(entry[1], "little")
        names.append(head[entry.end() : entry.end() + length].decode("utf-8", "replace"))
    return names


def _zip_type(name: str, entries: list[str]) -> str:
    if "word/document.xml" in entries or any(entry.startswith("word/") for entry in entries):
        return DOCX
    raise unsupported(name, zip_format(entries))


def _is_binary(head: bytes) -> bool:
    """Whether control characters are too many for a text: sound UTF-8 is forgiven more of them."""
    controls = sum(head.count(bytes([code])) for code in _CONTROLS)
    if not controls:
        return False
    try:
        getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return controls * 50 > len(head)
    return controls * 5 > len(head)


def _text_type(text: str, suffix: str) -> str:
    if _HTML_START.match(text[:8192]):
        return HTML
    if suffix in _MARKDOWN_NAMES:
        return MARKDOWN
    start = text[:8192].lstrip()
    tags = len(_HTML_TAG.findall(text[:8192]))
    if tags and suffix in _HTML_NAMES:
        return HTML
    if suffix not in _OPEN_NAMES:
        return PLAIN
    if tags > 2 and _HTML_TAG.match(start):
        return HTML
    score = sum(points for points, sign in _MARKDOWN_SIGNS if sign.search(text[:16384]))
    return MARKDOWN if score >= 3 or (text.startswith("---\n") and score >= 2) else PLAIN
