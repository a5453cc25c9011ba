"""Plain text: paragraphs as they stand between blank lines, and headings that are underlined."""

from __future__ import annotations

import re

from app.rag.components.parsers.charset import decode
from app.rag.components.parsers.draft import Draft, Writer, clean
from app.rag.components.parsers.limits import ParseLimits

_BLANK = re.compile(r"\n(?:[ \t]*\n)+")
_UNDERLINED = re.compile(r"(\S[^\n]{0,118})\n(={3,}|-{3,}|~{3,}|\^{3,})[ \t]*(?:\n|$)")
_RANKS = "=-~^"


def parse_plain(data: bytes, limits: ParseLimits) -> Draft:
    """Line breaks inside a paragraph are kept: logs, poems and listings depend on them."""
    writer = Writer(limits.max_text_bytes)
    for paragraph in _BLANK.split(clean(decode(data))):
        underlined = _UNDERLINED.match(paragraph)
        if underlined and len(underlined[2]) >= len(underlined[1].rstrip()) - 2:
            writer.heading(underlined[1], 1 + _RANKS.index(underlined[2][0]))
            paragraph = paragraph[underlined.end() :]
        writer.add("paragraph", paragraph)
    return Draft("text/plain", writer.text(), writer.blocks, title=writer.first_heading())
