"""Real files made on the spot: PDFs by reportlab, DOCX by python-docx, and hostile ones byte by byte."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import docx
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    ListFlowable,
    PageBreak,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from app.rag.components.parsers.draft import Draft
from app.rag.components.parsers.limits import ParseLimits
from app.rag.components.parsers.parse import parse_file

WORD_XMLNS = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
PARAGRAPHS = (
    "The orrery shows how the planets move around the sun, and it does so with brass wheels that a clock"
    " maker cut by hand in the year of the great comet.",
    "Every wheel has a number of teeth that stands for the length of a year. When the crank is turned once,"
    " the earth goes round once and the moon thirteen times.",
)


def parse(path: Path, *, media_type: str | None = None, limits: ParseLimits | None = None) -> Draft:
    """Parses in this process."""
    return parse_file(path, path.name, limits or ParseLimits(), media_type=media_type)


def blocks_of(draft: Draft, kind: str | None = None) -> list[str]:
    """The texts of the blocks, or of those of one kind."""
    return [draft.text[each.start : each.end] for each in draft.blocks if kind in (None, each.kind)]


def handbook(path: Path, *, pages: int = 4, encryption: StandardEncryption | None = None) -> Path:
    """A PDF with running head and foot, and on every page two headings, text, a list and a table."""
    styles = getSampleStyleSheet()
    story: list[object] = []
    for number in range(1, pages + 1):
        story += [
            Paragraph(f"Chapter {number}", styles["Heading1"]),
            Paragraph(PARAGRAPHS[0], styles["Normal"]),
            Spacer(1, 8),
            Paragraph(f"{PARAGRAPHS[1]} This is page {number}.", styles["Normal"]),
            Paragraph(f"Parts of chapter {number}", styles["Heading2"]),
            ListFlowable(
                [Paragraph(part, styles["Normal"]) for part in ("a wheel", "a crank")], bulletType="bullet"
            ),
            Table(
                [["Planet", "Teeth", "Days"], ["Earth", "83", "365"], ["Mars", "", "687"]],
                style=TableStyle([("GRID", (0, 0), (-1, -1), 1, colors.black)]),
            ),
            PageBreak(),
        ]

    def furniture(canvas: Canvas, document: SimpleDocTemplate) -> None:
        canvas.drawString(50, 820, "The Orrery Handbook")
        canvas.drawString(280, 20, f"Page {document.page} of {pages}")

    template = SimpleDocTemplate(
        str(path), pagesize=A4, title="Handbook", author="A. Clockmaker", encrypt=encryption
    )
    template.build(story, onFirstPage=furniture, onLaterPages=furniture)
    return path


def lines_pdf(path: Path, pages: Iterable[Iterable[tuple[float, float, str]]], *, size: float = 10) -> Path:
    """A PDF of lines at (x, y) in points."""
    canvas = Canvas(str(path), pagesize=A4)
    for page in pages:
        canvas.setFont("Helvetica", size)
        for x, y, text in page:
            canvas.drawString(x, y, text)
        canvas.showPage()
    canvas.save()
    return path


def raw_pdf(path: Path, content: bytes) -> Path:
    """A PDF of one page with this content stream, compressed."""
    packed = zlib.compress(content, 9)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(packed), packed),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    data, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj%sendobj\n" % (number, body)
    table = len(data)
    data += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % each for each in offsets)
    data += b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % table
    path.write_bytes(data)
    return path


def word_file(path: Path) -> Path:
    """A DOCX with headings, text, lists, a table, header, footer and properties."""
    document = docx.Document()
    document.core_properties.title = "Clockwork"
    document.core_properties.author = "A. Clockmaker"
    document.sections[0].header.paragraphs[0].text = "Confidential header"
    document.sections[0].footer.paragraphs[0].text = "Page footer"
    document.add_heading("Wheels", 1)
    document.add_paragraph("Wheels turn.")
    document.add_heading("Brass wheels", 2)
    document.add_paragraph("Saw", style="List Bullet")
    document.add_paragraph("File", style="List Bullet")
    document.add_paragraph("Cut", style="List Number")
    document.add_paragraph("Polish", style="List Number")
    table = document.add_table(rows=3, cols=3)
    for row, texts in zip(table.rows, (["A", "B", "C"], ["1", "2|3", ""], ["4", "5", "6"]), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    document.add_paragraph("After the table.")
    document.save(str(path))
    return path


def raw_docx(path: Path, body: str | bytes, parts: Mapping[str, str | bytes] | None = None) -> Path:
    """A DOCX whose `w:body` is `body`, or whose whole main part is `body` if bytes; plus further parts."""
    main = (
        body
        if isinstance(body, bytes)
        else f'<w:document xmlns:w="{WORD_XMLNS}"><w:body>{body}</w:body></w:document>'
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", main)
        for name, content in (parts or {}).items():
            archive.writestr(name, content)
    return path


def word_paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def zip_of(names: Iterable[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return buffer.getvalue()
