"""HTML to blocks: the main content in document order, by a walk that never recurses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from selectolax.lexbor import LexborHTMLParser, LexborNode

from app.rag.components.parsers.charset import decode
from app.rag.components.parsers.draft import Draft, Writer, one_line
from app.rag.components.parsers.html_depth import flatten
from app.rag.components.parsers.html_table import is_layout, read_table
from app.rag.components.parsers.html_tags import DROPPED, DROPPED_ROLES, HEADINGS, INLINE, SECTIONING
from app.rag.components.parsers.limits import ParseLimits
from app.rag.components.parsers.listing import Listing

_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\n\r\f]+")
_SPACE_RUN = re.compile(r" {2,}")
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_ENOUGH_CHARS: Final = 200


def parse_html(data: bytes, limits: ParseLimits) -> Draft:
    """The content of `<main>` or the one `<article>` when it holds the text, else of the body."""
    declared = _CHARSET.search(data[:4096])
    source = decode(data, declared=declared[1].decode("ascii") if declared else None)
    tree = LexborHTMLParser(flatten(source.replace("\x00", "")))
    writer = _read(_main(tree), limits)
    if len(writer.text()) < _ENOUGH_CHARS:
        whole = _read(tree.body, limits)
        writer = whole if len(whole.text()) > 5 * len(writer.text()) else writer
    return Draft(
        "text/html",
        writer.text(),
        writer.blocks,
        title=_title(tree) or writer.first_heading(),
        language=_language(tree),
        metadata=_metadata(tree),
    )


def read_fragment(writer: Writer, fragment: str) -> None:
    """Appends the blocks of a piece of HTML, such as one inside Markdown."""
    _read_into(writer, LexborHTMLParser(flatten(fragment)).body)


def visible_text(root: LexborNode) -> str:
    """All visible text below `root`, blocks and line breaks as newlines, whitespace not yet collapsed."""
    parts: list[str] = []

    def enter(node: LexborNode, tag: str) -> bool:
        if tag == "-text":
            parts.append(node.text_content or "")
        elif not tag.startswith("-") and not _is_dropped(node, tag):
            _break_unless_inline(tag)
            return True
        return False

    def _break_unless_inline(tag: str) -> None:
        if tag not in INLINE:
            parts.append("\n")

    walk(root, enter, _break_unless_inline)
    return "".join(parts)


def walk(root: LexborNode, enter: Callable[[LexborNode, str], bool], leave: Callable[[str], None]) -> None:
    """Depth-first over everything below `root`; where `enter` says yes, children and then `leave` follow."""
    node, parents = root.child, [root]
    while node is not None:
        tag = node.tag or ""
        if enter(node, tag):
            if (child := node.child) is not None:
                parents.append(node)
                node = child
                continue
            leave(tag)
        following = node.next
        while following is None and len(parents) > 1:
            node = parents.pop()
            leave(node.tag or "")
            following = node.next
        node = following


class _Reader:
    """Turns elements into blocks; inline text gathers in `_inline` until a block ends."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._inline: list[str] = []
        self._sections = 0
        self._lists: list[bool] = []
        self._listing = Listing(writer)

    def enter(self, node: LexborNode, tag: str) -> bool:
        if tag == "-text":
            self._inline.append(_SPACE.sub(" ", node.text_content or ""))
            return False
        if (
            tag.startswith("-")
            or _is_dropped(node, tag)
            or (tag in ("header", "footer") and not self._sections)
        ):
            return False
        if tag == "br":
            self._inline.append("\n")
        elif tag not in INLINE:
            return self._open_block(node, tag)
        return True

    def leave(self, tag: str) -> None:
        if tag in INLINE or tag == "br":
            return
        if tag in SECTIONING:
            self._sections -= 1
        self.flush(level=HEADINGS.get(tag, 0))
        if tag in ("ul", "ol", "dl") and self._lists and self._lists.pop():
            self._listing.close()

    def flush(self, *, level: int = 0) -> None:
        """Ends the block whose inline text was gathered."""
        text = re.sub(r" *\n *", "\n", _SPACE_RUN.sub(" ", "".join(self._inline))).strip()
        self._inline.clear()
        if not text:
            return
        if self._listing.is_open:
            self._listing.text(text)
        elif level:
            self.writer.heading(text, level)
        else:
            self.writer.add("paragraph", text)

    def _open_block(self, node: LexborNode, tag: str) -> bool:
        self.flush()
        if tag in SECTIONING:
            self._sections += 1
        elif tag in ("ul", "ol", "dl"):
            self._open_list(node, tag)
        elif tag in ("li", "dt", "dd"):
            self._listing.item(detail=tag == "dd")
        elif tag == "pre":
            self._preformatted(node)
            return False
        elif tag == "table" and not is_layout(node):
            rows = read_table(node, visible_text)
            if self._listing.is_open:
                for row in rows:
                    self._listing.text(" | ".join(map(one_line, row)))
            else:
                self.writer.table(rows)
            return False
        return True

    def _open_list(self, node: LexborNode, tag: str) -> None:
        # A list of cards (headings, tables) is layout; inside a list everything is part of it.
        real = self._listing.is_open or node.css_first("h1, h2, h3, h4, h5, h6, table") is None
        self._lists.append(real)
        if real:
            start = node.attributes.get("start") or ""
            self._listing.open(
                ordered=tag == "ol", start=int(start) if start.isdigit() and len(start) < 9 else 1
            )

    def _preformatted(self, node: LexborNode) -> None:
        parts: list[str] = []

        def enter(child: LexborNode, tag: str) -> bool:
            if tag == "-text":
                parts.append(child.text_content or "")
            elif tag == "br":
                parts.append("\n")
            return not tag.startswith("-") and not _is_dropped(child, tag)

        walk(node, enter, lambda _tag: None)
        if self._listing.is_open:
            self._listing.text("".join(parts).strip("\n"))
        else:
            self.writer.add("code", "".join(parts))


def _read(root: LexborNode | None, limits: ParseLimits) -> Writer:
    writer = Writer(limits.max_text_bytes)
    _read_into(writer, root)
    return writer


def _read_into(writer: Writer, root: LexborNode | None) -> None:
    if root is None:
        return
    reader = _Reader(writer)
    if root.tag in SECTIONING:
        reader.enter(root, root.tag)
    walk(root, reader.enter, reader.leave)
    reader.flush()


def _is_dropped(node: LexborNode, tag: str) -> bool:
    if tag in DROPPED:
        return True
    attributes = node.attributes
    if not attributes:
        return False
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or (attributes.get("role") or "") in DROPPED_ROLES
        or bool(_HIDDEN.search(attributes.get("style") or ""))
    )


def _main(tree: LexborHTMLParser) -> LexborNode | None:
    mains = tree.css("main, [role=main]")
    if mains:
        return mains[0]
    articles = tree.css("article")
    return articles[0] if len(articles) == 1 else tree.body


def _title(tree: LexborHTMLParser) -> str | None:
    found = tree.css_first("head > title")
    title = one_line(found.text()) if found is not None else ""
    return title or _meta(tree, 'meta[property="og:title"]') or None


def _meta(tree: LexborHTMLParser, selector: str) -> str:
    found = tree.css_first(selector)
    return one_line(found.attributes.get("content") or "")[:2000] if found is not None else ""


def _language(tree: LexborHTMLParser) -> str | None:
    found = tree.css_first("html[lang]")
    lang = (found.attributes.get("lang") or "").strip().lower() if found is not None else ""
    match = re.match(r"([a-z]{2,3})(?:[-_]|$)", lang)
    return match[1] if match else None


def _metadata(tree: LexborHTMLParser) -> dict[str, str]:
    names = ("description", "author", "keywords")
    return {name: value for name in names if (value := _meta(tree, f"meta[name={name} i]"))}
