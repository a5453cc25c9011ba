"""Build the PDF and DOCX files of `examples/handbook` from the texts in `handbook_sources`.

    python -m scripts.build_handbook [FOLDER]

A source `name.pdf.md` or `name.docx.md` is Markdown reduced to headings, paragraphs, flat lists and tables
without inline markup. The same source gives the same bytes on every machine: dates are fixed, and nothing is
compressed, because the output of zlib differs from build to build.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape
from zipfile import ZipFile, ZipInfo

from docx import Document
from docx.document import Document as WordDocument
from docx.enum.style import WD_STYLE_TYPE
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from reportlab import platypus as pdf
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm

SOURCES = Path(__file__).parent / "handbook_sources"
HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook"
COMPANY = "Korrimede Instruments"
PUBLISHED = datetime(2026, 3, 1, tzinfo=UTC)
MARGIN, TEXT_WIDTH = 24 * mm, A4[0] - 48 * mm
WORD_STYLES = dict(h1="Title", h2="Heading 1", h3="Heading 2", p="Normal", ul="List Bullet", ol="List Number")


@dataclass(frozen=True, slots=True)
class Block:
    """`tag` is h1, h2, h3, p, ul, ol or table; only a table has rows of more than one text."""

    tag: str
    rows: tuple[tuple[str, ...], ...]

    @property
    def text(self) -> str:
        return self.rows[0][0]


def parse(source: str) -> list[Block]:
    """The blocks of a source, its title first. ValueError quotes whatever lies outside the subset."""
    root = SyntaxTreeNode(MarkdownIt("commonmark").enable("table").parse(source))
    blocks = [Block(node.tag, _rows(node)) for node in root.children]
    if [number for number, block in enumerate(blocks) if block.tag == "h1"] != [0]:
        raise ValueError("a source has one heading of level 1, its title, at the very beginning")
    return blocks


def _rows(node: SyntaxTreeNode) -> tuple[tuple[str, ...], ...]:
    match node.tag:
        case "h1" | "h2" | "h3" | "p":
            return ((_text(node),),)
        case "ul" | "ol":
            return tuple((_text(*item.children),) for item in node.children)
        case "table":
            return tuple(tuple(map(_text, row.children)) for part in node.children for row in part.children)
    raise ValueError(f"{node.type!r} is not one of h1, h2, h3, p, ul, ol, table")


def _text(node: SyntaxTreeNode, *more: SyntaxTreeNode) -> str:
    content = "".join(child.content for child in node.children)
    marked = {run.type for child in node.children for run in child.children} - {"text", "softbreak"}
    if more or marked:
        raise ValueError(f"only plain text is possible here: {content!r}")
    return " ".join(content.split())


def render_pdf(blocks: Sequence[Block]) -> bytes:
    """An A4 PDF with page numbers, repeated column titles and an outline entry per section."""
    title, out = blocks[0].text, BytesIO()
    fixed = {"author": COMPANY, "lang": "en", "invariant": 1, "pageCompression": 0}
    document = pdf.BaseDocTemplate(out, pagesize=A4, title=title, **fixed)

    def footer(canvas: Any, page: Any) -> None:
        canvas.setFont("Helvetica", 8.5)
        canvas.drawString(MARGIN, 13 * mm, f"{COMPANY} | {title}")
        canvas.drawRightString(MARGIN + TEXT_WIDTH, 13 * mm, f"Page {page.page}")

    def outline(flowable: Any) -> None:
        if flowable.__class__ is pdf.Paragraph and flowable.style.name == "h2":
            text = flowable.getPlainText()
            document.canv.bookmarkPage(text)
            document.canv.addOutlineEntry(text, text)

    frame = pdf.Frame(MARGIN, MARGIN, TEXT_WIDTH, A4[1] - 2 * MARGIN, 0, 0, 0, 0)
    document.addPageTemplates(pdf.PageTemplate(frames=[frame], onPageEnd=footer))
    document.afterFlowable = outline
    document.build([flowable for block in blocks for flowable in _flowables(block)])
    return out.getvalue()


def _flowables(block: Block) -> list[Any]:
    styles = getSampleStyleSheet()
    body = ParagraphStyle("Body", parent=styles["Normal"], fontSize=11, leading=15.5, spaceAfter=6)
    match block.tag:
        case "table":
            return [_grid(block), pdf.Spacer(1, 4 * mm)]
        case "ul" | "ol":
            bullets = {"bulletType": "1"} if block.tag == "ol" else {"bulletType": "bullet", "start": "•"}
            items = [pdf.Paragraph(escape(text), body) for (text,) in block.rows]
            return [pdf.ListFlowable(items, **bullets)]
        case "p":
            return [pdf.Paragraph(escape(block.text), body)]
        case tag:
            heading = ParagraphStyle(tag, parent=styles[f"Heading{tag[1]}"], keepWithNext=1)
            return [pdf.Paragraph(escape(block.text), heading)]


def _grid(table: Block) -> Any:
    """Columns as wide as their longest cell needs, within reason, and all narrower if the page is."""
    cell = ParagraphStyle("Cell", fontSize=9.5, leading=12)
    column_title = ParagraphStyle("ColumnTitle", parent=cell, fontName="Helvetica-Bold")
    cells = [
        [pdf.Paragraph(escape(text), cell if number else column_title) for text in row]
        for number, row in enumerate(table.rows)
    ]
    longest = [max(len(text) for text in column) for column in zip(*table.rows[1:], strict=True)]
    widths = [min(max(length, 12), 36) * 5.2 + 14 for length in longest]
    shrink = min(1.0, TEXT_WIDTH / sum(widths))
    look = [("GRID", (0, 0), (-1, -1), 0.5, colors.grey), ("VALIGN", (0, 0), (-1, -1), "TOP")]
    return pdf.LongTable(cells, [width * shrink for width in widths], repeatRows=1, hAlign="LEFT", style=look)


def render_docx(blocks: Sequence[Block]) -> bytes:
    """A Word document with a title, heading styles, real lists and tables."""
    if sum(block.tag == "ol" for block in blocks) > 1:
        raise ValueError("a DOCX source holds one numbered list at most: Word would count on in the next")
    document = Document()
    _drop_unused(document)
    properties = document.core_properties
    properties.title, properties.author, properties.last_modified_by = blocks[0].text, COMPANY, COMPANY
    properties.comments, properties.created, properties.modified = "", PUBLISHED, PUBLISHED
    document.sections[0].footer.paragraphs[0].text = f"{COMPANY} | {blocks[0].text}"
    for block in blocks:
        _append(document, block)
    return _repacked(document)


def _drop_unused(document: WordDocument) -> None:
    """Remove nine tenths of python-docx's template: styles for Word 2010 and a hundred table designs."""
    for key, relation in list(document.part.rels.items()):
        if relation.reltype.endswith("/stylesWithEffects"):
            document.part.rels.pop(key)
    for style in list(document.styles):
        if style.type == WD_STYLE_TYPE.TABLE and style.name not in ("Normal Table", "Table Grid"):
            style.delete()


def _append(document: WordDocument, block: Block) -> None:
    if block.tag != "table":
        for (text,) in block.rows:
            document.add_paragraph(text, WORD_STYLES[block.tag])
        return
    table = document.add_table(len(block.rows), len(block.rows[0]), "Table Grid")
    for row, texts in zip(table.rows, block.rows, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    document.add_paragraph()


def _repacked(document: WordDocument) -> bytes:
    """The saved file with fixed timestamps, one system id and stored entries."""
    document.save(package := BytesIO())
    with ZipFile(package) as old, ZipFile(out := BytesIO(), "w") as new:
        for name in old.namelist():
            entry = ZipInfo(name)  # dated 1980-01-01
            entry.create_system = 3
            new.writestr(entry, old.read(name))
    return out.getvalue()


RENDERERS = {".pdf": render_pdf, ".docx": render_docx}


def build(target: Path) -> list[Path]:
    """Write each document that has a source into the folder `target`; the paths, sorted."""
    paths = [target / source.stem for source in sorted(SOURCES.glob("*.md"))]
    for path in paths:
        source = (SOURCES / f"{path.name}.md").read_text(encoding="utf-8")
        path.write_bytes(RENDERERS[path.suffix](parse(source)))
    return paths


if __name__ == "__main__":
    for written in build(Path(sys.argv[1]) if len(sys.argv) > 1 else HANDBOOK):
        print(written, written.stat().st_size, "bytes")
