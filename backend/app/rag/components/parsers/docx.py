"""DOCX to blocks, read as a stream from the XML itself.

Reading the parts directly keeps memory flat, leaves pictures packed, and takes strict OOXML (ISO/IEC
29500) as well as the transitional form. Headers and footers are separate parts and never read.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from app.rag.components.parsers.archive import office_file, xml_part, xml_tree
from app.rag.components.parsers.detect import DOCX
from app.rag.components.parsers.docx_styles import (
    Numbering,
    Numberings,
    Styles,
    child,
    local,
    numbering_of,
    outline_rank,
    value,
)
from app.rag.components.parsers.draft import Draft, Kind, Writer, one_line
from app.rag.components.parsers.errors import ParseError
from app.rag.components.parsers.limits import ParseLimits

_WRAPPERS: Final = frozenset({"sdt", "sdtContent", "ins", "moveTo", "smartTag", "customXml", "txbxContent"})
_SKIPPED: Final = frozenset(
    {
        "pPr",
        "rPr",
        "tblPr",
        "trPr",
        "tcPr",
        "sdtPr",
        "del",
        "delText",
        "moveFrom",
        "Fallback",
        "instrText",
        "rt",
    }
)
_CHARACTERS: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_PROPERTIES: Final = {
    "creator": "author",
    "subject": "subject",
    "keywords": "keywords",
    "created": "created",
    "modified": "modified",
}


def parse_docx(file: BinaryIO, limits: ParseLimits) -> Draft:
    """Paragraphs, headings, lists, code and tables in document order."""
    with office_file(file, limits) as archive:
        main = _main_part(archive)
        folder = posixpath.dirname(main)
        reader = _Reader(
            Writer(limits.max_text_bytes),
            Styles(xml_tree(archive, posixpath.join(folder, "styles.xml"))),
            Numberings(xml_tree(archive, posixpath.join(folder, "numbering.xml"))),
        )
        with xml_part(archive, main) as stream:
            for element in _body(stream):
                reader.read(element)
        reader.flush()
        title, language, metadata = _properties(archive)
    writer = reader.writer
    title = title or writer.first_heading()
    return Draft(DOCX, writer.text(), writer.blocks, title, language=language, metadata=metadata)


def _main_part(archive: zipfile.ZipFile) -> str:
    for relation in xml_tree(archive, "_rels/.rels"):
        if (value(relation, "Type") or "").endswith("/officeDocument"):
            name = posixpath.normpath((value(relation, "Target") or "").lstrip("/"))
            if name in archive.NameToInfo:
                return name
    if "word/document.xml" not in archive.NameToInfo:
        raise ParseError("corrupt", "The DOCX has no main document part")
    return "word/document.xml"


def _body(stream: BinaryIO) -> Iterator[Element]:
    """The elements of the body one by one; each is forgotten after its turn."""
    open_elements: list[Element] = []
    for event, element in ElementTree.iterparse(stream, ("start", "end")):  # noqa: S314
        if event == "start":
            open_elements.append(element)
            continue
        open_elements.pop()
        if len(open_elements) == 2:
            yield element
            open_elements[-1].clear()


class _Reader:
    """Turns body elements into blocks; consecutive items of a list or lines of code become one."""

    def __init__(self, writer: Writer, styles: Styles, numberings: Numberings) -> None:
        self.writer = writer
        self._styles = styles
        self._numberings = numberings
        self._kind: Kind = "list"
        self._lines: list[str] = []

    def read(self, element: Element) -> None:
        """A paragraph, a table, or a wrapper around some, however deep."""
        pending = [element]
        while pending:
            current = pending.pop()
            tag = local(current)
            if tag == "p":
                pending += reversed(self._paragraph(current))
            elif tag == "tbl":
                pending += reversed(self._table(current))
            elif tag in _WRAPPERS or tag == "tc":
                pending += reversed(current)

    def flush(self) -> None:
        """Writes the list or code that was gathered."""
        if self._lines:
            self.writer.add(self._kind, "\n".join(self._lines))
            self._lines.clear()

    def _paragraph(self, paragraph: Element) -> list[Element]:
        """Writes the text; returns the text boxes anchored in it, which follow."""
        boxes: list[Element] = []
        text = _text(paragraph, boxes.append)
        properties = child(paragraph, "pPr")
        style = self._styles.of(value(child(properties, "pStyle")))
        numbering = numbering_of(properties) or style.numbering
        rank = outline_rank(properties) if style.rank is None else style.rank
        if not text.strip() or style.is_contents:
            return boxes
        if rank is not None and len(text) < 1000:
            self.flush()
            self.writer.heading(text, rank)
        elif style.is_code:
            self._gather("code", text)
        elif numbering and numbering.number_id != "0":
            self._gather("list", self._item(numbering, text))
        else:
            self.flush()
            self.writer.add("paragraph", text)
        return boxes

    def _item(self, numbering: Numbering, text: str) -> str:
        return "  " * numbering.depth + self._numberings.marker(numbering) + text.strip()

    def _gather(self, kind: Kind, line: str) -> None:
        if kind != self._kind:
            self.flush()
        self._kind = kind
        self._lines.append(line)

    def _table(self, table: Element) -> list[Element]:
        """Writes the table; one of a single cell is a frame, whose content is returned instead."""
        self.flush()
        rows = [list(_children(row, "tc")) for row in _children(table, "tr")]
        if len(rows) == 1 and len(rows[0]) == 1:
            return rows[0]
        self.writer.table(_filled([[text for cell in row for text in _cell(cell)] for row in rows]))
        return []


def _filled(rows: list[list[str | None]]) -> list[list[str]]:
    """A cell over several rows is repeated in each, so that every row can be read by itself."""
    filled: list[list[str]] = []
    for row in rows:
        above = filled[-1] if filled else []
        filled.append(
            [(above[at] if at < len(above) else "") if text is None else text for at, text in enumerate(row)]
        )
    return filled


def _cell(cell: Element) -> list[str | None]:
    """The cell's text (None: the one above goes on), and an empty one for every further column it spans."""
    properties = child(cell, "tcPr")
    span = value(child(properties, "gridSpan")) or "1"
    merge = child(properties, "vMerge")
    covered = merge is not None and value(merge) != "restart"
    more = min(int(span), 50) - 1 if span.isdecimal() and len(span) < 5 else 0
    return [None if covered else _text(cell), *[""] * more]


def _children(element: Element, wanted: str) -> Iterator[Element]:
    """Children with the tag `wanted`, also inside content controls and tracked insertions."""
    pending = list(reversed(element))
    while pending:
        current = pending.pop()
        tag = local(current)
        if tag == wanted:
            yield current
        elif tag in _WRAPPERS:
            pending += reversed(current)


def _text(element: Element, box: Callable[[Element], None] | None = None) -> str:
    """The visible text below `element`, paragraphs ending with a newline; text boxes go to `box` if given."""
    parts: list[str] = []
    pending: list[Element | None] = [element]
    while pending:
        current = pending.pop()
        if current is None:
            parts.append("\n")
            continue
        tag = local(current)
        if tag == "t":
            parts.append(current.text or "")
        elif tag in _CHARACTERS:
            parts.append(_CHARACTERS[tag])
        elif tag == "txbxContent" and box:
            box(current)
        elif tag not in _SKIPPED:
            if tag == "p":
                pending.append(None)
            pending += reversed(current)
    return "".join(parts).rstrip("\n")


def _properties(archive: zipfile.ZipFile) -> tuple[str | None, str | None, dict[str, str]]:
    core = xml_tree(archive, "docProps/core.xml")
    found = {local(each): one_line(each.text)[:2000] for each in core if each.text}
    language = found.get("language", "")[:2].lower()
    metadata = {ours: found[theirs] for theirs, ours in _PROPERTIES.items() if found.get(theirs)}
    return found.get("title") or None, language if language.isalpha() else None, metadata
