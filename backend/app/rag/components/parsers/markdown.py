"""Markdown (CommonMark and tables) to blocks; inline marks fall away, their text stays."""

from __future__ import annotations

from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from app.rag.components.parsers.charset import decode
from app.rag.components.parsers.draft import Draft, Writer, clean, one_line
from app.rag.components.parsers.front_matter import split_front_matter
from app.rag.components.parsers.html import read_fragment
from app.rag.components.parsers.limits import ParseLimits
from app.rag.components.parsers.listing import Listing

_PARSER: Final = MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"])
_BREAKS: Final = {"softbreak": " ", "hardbreak": "\n"}


def parse_markdown(data: bytes, limits: ParseLimits) -> Draft:
    """Front matter becomes metadata; raw HTML inside is read as HTML."""
    metadata, body = split_front_matter(clean(decode(data)))
    reader = _Reader(Writer(limits.max_text_bytes))
    for token in _PARSER.parse(body):
        reader.take(token)
    writer = reader.writer
    title = metadata.get("title")
    language = metadata.get("lang") or metadata.get("language")
    return Draft(
        "text/markdown",
        writer.text(),
        writer.blocks,
        title=one_line(title) if isinstance(title, str) and title.strip() else writer.first_heading(),
        language=language[:2].lower() if isinstance(language, str) and language[:2].isalpha() else None,
        metadata=metadata,
    )


class _Reader:
    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._listing = Listing(writer)
        self._rows: list[list[str]] | None = None
        self._level = 0

    def take(self, token: Token) -> None:
        """The next token of the document, in order."""
        match token.type:
            case "inline":
                self._text(_inline_text(token))
            case "heading_open":
                self._level = int(token.tag[1])
            case "heading_close":
                self._level = 0
            case "fence" | "code_block":
                self._code(token.content)
            case "html_block":
                self._html(token.content)
            case "table_open" | "tr_open" | "table_close":
                self._table(token.type)
            case _:
                self._list(token)

    def _list(self, token: Token) -> None:
        match token.type:
            case "bullet_list_open":
                self._listing.open(ordered=False)
            case "ordered_list_open":
                self._listing.open(ordered=True, start=int(token.attrGet("start") or 1))
            case "list_item_open":
                self._listing.item()
            case "bullet_list_close" | "ordered_list_close":
                self._listing.close()

    def _text(self, text: str) -> None:
        if self._rows is not None:
            self._rows[-1].append(text)
        elif self._listing.is_open:
            self._listing.text(text)
        elif self._level:
            self.writer.heading(text, self._level)
        else:
            self.writer.add("paragraph", text)

    def _code(self, code: str) -> None:
        if self._listing.is_open:
            self._listing.text(code.strip("\n"))
        else:
            self.writer.add("code", code)

    def _html(self, source: str) -> None:
        if not self._listing.is_open:
            read_fragment(self.writer, source)
            return
        inner = Writer(len(source.encode()) * 2)
        read_fragment(inner, source)
        if text := inner.text():
            self._listing.text(text)

    def _table(self, event: str) -> None:
        if event == "table_open":
            self._rows = []
        elif self._rows is not None and event == "tr_open":
            self._rows.append([])
        elif self._rows is not None:
            rows, self._rows = self._rows, None
            if self._listing.is_open:
                self._listing.text("\n".join(" | ".join(row) for row in rows))
            else:
                self.writer.table(rows)


def _inline_text(token: Token) -> str:
    parts = []
    for child in token.children or ():
        if child.type in _BREAKS:
            parts.append(_BREAKS[child.type])
        elif child.type == "html_inline":
            parts.append("\n" if child.content.lower().startswith("<br") else "")
        else:
            parts.append(child.content)
    return "".join(parts)
