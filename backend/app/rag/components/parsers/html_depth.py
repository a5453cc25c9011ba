"""Bounds how deep a document nests: building a tree of depth n takes time in n squared."""

from __future__ import annotations

import re
from typing import Final

from app.rag.components.parsers.html_tags import NOT_NESTING

MAX_DEPTH: Final = 512  # where browsers stop nesting, too

_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|textarea|title)\b.*?(?:</\1\b|\Z)|<(/?)([a-z][^\s/>]*)[^>]*>?",
    re.IGNORECASE | re.DOTALL,
)


def flatten(html: str) -> str:
    """`html` without the tags deeper than `MAX_DEPTH`; their text stays."""
    if html.count("<") <= MAX_DEPTH:
        return html
    depth, kept_from, kept = 0, 0, []
    for tag in _TAG.finditer(html):
        name = tag[3]
        if name is None or name.lower() in NOT_NESTING:
            continue
        if tag[2]:
            too_deep, depth = depth > MAX_DEPTH, max(0, depth - 1)
        else:
            depth += 1
            too_deep = depth > MAX_DEPTH
        if too_deep:
            kept.append(html[kept_from : tag.start()])
            kept_from = tag.end()
    return html if not kept_from else "".join(kept) + html[kept_from:]
