"""The parser components of ingestion pipelines: which files each takes; the work is `parsers.pool`'s."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from app.rag.components.parsers.detect import DOCX, HTML, MARKDOWN, PDF, PLAIN
from app.rag.components.parsers.limits import ParseLimits
from app.rag.components.parsers.pool import ParserPool
from app.rag.pipeline.component import component
from app.rag.types import ParsedDocument


@component("parser.auto")
@dataclass(frozen=True, slots=True)
class AutoParser:
    """Reads any supported file, told by its content. `tables`: how tables stand in the text."""

    media_type: ClassVar[str | None] = None

    tables: Literal["markdown"] = "markdown"

    async def parse(self, pool: ParserPool, path: Path, name: str, *, limits: ParseLimits) -> ParsedDocument:
        """The document in `path`. Raises `ParseError`, also for a file of another kind."""
        return await pool.parse(path, name, limits=limits, media_type=self.media_type)


@component("parser.pdf")
@dataclass(frozen=True, slots=True)
class PdfParser(AutoParser):
    """Reads PDF only."""

    media_type = PDF


@component("parser.docx")
@dataclass(frozen=True, slots=True)
class DocxParser(AutoParser):
    """Reads DOCX only."""

    media_type = DOCX


@component("parser.html")
@dataclass(frozen=True, slots=True)
class HtmlParser(AutoParser):
    """Reads any text as HTML."""

    media_type = HTML


@component("parser.markdown")
@dataclass(frozen=True, slots=True)
class MarkdownParser(AutoParser):
    """Reads any text as Markdown."""

    media_type = MARKDOWN


@component("parser.text")
@dataclass(frozen=True, slots=True)
class TextParser(AutoParser):
    """Reads any text as it stands."""

    media_type = PLAIN
