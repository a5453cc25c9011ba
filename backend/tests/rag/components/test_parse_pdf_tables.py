"""Tables of PDFs: wrapped heads and cells, with and without rules, and what is no table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BalancedColumns,
    Flowable,
    LongTable,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

from app.rag.components.parsers.draft import Draft
from tests.rag.components.samples import PARAGRAPHS, blocks_of, lines_pdf, parse

BODY = getSampleStyleSheet()["Normal"]
CELL = ParagraphStyle("cell", fontName="Helvetica", fontSize=9, leading=11)
HEAD = ParagraphStyle("head", parent=CELL, fontName="Helvetica-Bold")
GRID = ("GRID", (0, 0), (-1, -1), 0.5, colors.black)
LINES = ("LINEBELOW", (0, 0), (-1, -1), 0.5, colors.black)
HEAD_LINE = ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.black)
STRIPES = ("ROWBACKGROUNDS", (0, 0), (-1, -1), [colors.lightgrey, colors.white])
LOOKS: dict[str, list[tuple[object, ...]]] = {
    "grid": [GRID],
    "rows": [LINES],
    "head": [HEAD_LINE],
    "stripes": [STRIPES],
    "plain": [("FONTSIZE", (0, 0), (0, 0), 9)],
}
PER_DIEMS = [
    ["City", "Country", "Per diem, full day (EUR)", "Hotel ceiling per night (EUR)"],
    ["Innsbruck", "Austria", "48", "135"],
    ["Santa Cruz de La Palma", "Spain", "43", "110"],
    ["Any other place", "", "45", "130"],
    ["Oslo", "Norway", "78", "195"],
]
EQUIPMENT = [
    ["Area", "Eyes", "Ears", "Hands"],
    ["Machine hall", "safety glasses", "required above 85 dB", "none at rotating machines"],
    ["Coating laboratory", "goggles", "not required", "nitrile gloves"],
    ["Electronics room", "not required", "not required", "wrist strap"],
    ["Dome test field", "safety glasses", "not required", "leather gloves and no rings"],
]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def table(
    rows: Sequence[Sequence[str]],
    widths: Sequence[float],
    look: str = "grid",
    *,
    valign: str = "TOP",
    kind: type[Table] = Table,
) -> Table:
    cells = [[Paragraph(text, CELL if number else HEAD) for text in row] for number, row in enumerate(rows)]
    style = [*LOOKS[look], ("VALIGN", (0, 0), (-1, -1), valign)]
    return kind(cells, list(widths), repeatRows=1, hAlign="LEFT", style=style)


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Draft]:
    def made(*story: Flowable) -> Draft:
        path = tmp_path / "a.pdf"
        SimpleDocTemplate(str(path), pagesize=A4, topMargin=30).build(list(story))
        draft = parse(path)
        assert draft.text == "\n\n".join(blocks_of(draft))
        return draft

    return made


class TestWrappedHead:
    @pytest.mark.parametrize("look", LOOKS)
    @pytest.mark.parametrize("valign", ["TOP", "MIDDLE", "BOTTOM"])
    def test_is_one_row(self, page: Callable[..., Draft], look: str, valign: str) -> None:
        draft = page(
            Paragraph(PARAGRAPHS[0], BODY),
            table(PER_DIEMS, [130, 90, 60, 70], look, valign=valign),
            Paragraph(PARAGRAPHS[1], BODY),
        )
        assert blocks_of(draft) == [PARAGRAPHS[0], markdown(PER_DIEMS), PARAGRAPHS[1]]

    @pytest.mark.parametrize("look", LOOKS)
    def test_may_begin_with_a_wrapped_cell(self, page: Callable[..., Draft], look: str) -> None:
        rows = [
            ["Estimated total cost of the trip", "Who approves"],
            ["Up to EUR 1,200", "Team lead"],
            ["Above that", "Finance"],
        ]
        draft = page(Paragraph(PARAGRAPHS[0], BODY), Spacer(1, 9), table(rows, [90, 100], look))
        assert blocks_of(draft, "table") == [markdown(rows)]

    def test_of_the_size_of_the_text_is_no_heading(self, page: Callable[..., Draft]) -> None:
        head = [Paragraph(f"<b>{text}</b>", BODY) for text in ("Work", "Stop work at", "Secure it and leave")]
        rows = [["Lifting", "8 m/s", "11 m/s"], ["Ladders", "10 m/s", "13 m/s"]]
        draft = page(
            Paragraph(PARAGRAPHS[0], BODY),
            Table([head, *([Paragraph(text, BODY) for text in row] for row in rows)], [110, 90, 70]),
        )
        expected = [["Work", "Stop work at", "Secure it and leave"], *rows]
        assert blocks_of(draft) == [PARAGRAPHS[0], markdown(expected)]

    def test_drawn_line_by_line_is_one_row(self, tmp_path: Path) -> None:
        lines = [(300, 700, "Per diem,"), (72, 688, "City"), (300, 688, "full day")]
        lines += [(72, 668, "Vienna"), (300, 668, "50"), (72, 648, "Porto"), (300, 648, "44")]
        text = parse(lines_pdf(tmp_path / "a.pdf", [lines])).text
        assert text == markdown([["City", "Per diem, full day"], ["Vienna", "50"], ["Porto", "44"]])

    def test_with_an_empty_corner_is_not_the_first_row(self, tmp_path: Path) -> None:
        lines = [(200, 700, "2024"), (300, 700, "2025")]
        for number, name in enumerate(("Sales", "Costs", "Rest")):
            y = 688 - 12 * number
            lines += [(72, y, name), (200, y, f"1{number}"), (300, y, f"2{number}")]
        expected = [["", "2024", "2025"], ["Sales", "10", "20"], ["Costs", "11", "21"], ["Rest", "12", "22"]]
        assert parse(lines_pdf(tmp_path / "a.pdf", [lines])).text == markdown(expected)


class TestWrappedCells:
    @pytest.mark.parametrize("look", LOOKS)
    @pytest.mark.parametrize("valign", ["TOP", "MIDDLE"])
    def test_stay_in_their_row(self, page: Callable[..., Draft], look: str, valign: str) -> None:
        draft = page(
            Paragraph(PARAGRAPHS[0], BODY),
            table(EQUIPMENT, [75, 65, 80, 95], look, valign=valign),
            Paragraph(PARAGRAPHS[1], BODY),
        )
        assert blocks_of(draft) == [PARAGRAPHS[0], markdown(EQUIPMENT), PARAGRAPHS[1]]

    def test_are_told_by_their_first_column_when_rows_are_as_close_as_lines(self, tmp_path: Path) -> None:
        lines = [(72, 700, "Part"), (200, 700, "Use")]
        lines += [(72, 688, "Lathe"), (200, 688, "turning round"), (200, 676, "parts")]
        lines += [(72, 664, "Mill"), (200, 664, "flat parts"), (72, 652, "Saw"), (200, 652, "wood")]
        rows = [["Part", "Use"], ["Lathe", "turning round parts"], ["Mill", "flat parts"], ["Saw", "wood"]]
        assert parse(lines_pdf(tmp_path / "a.pdf", [lines])).text == markdown(rows)

    def test_a_word_broken_in_a_cell_is_made_whole(self, tmp_path: Path) -> None:
        canvas = Canvas(str(tmp_path / "a.pdf"))
        for number, (name, texts) in enumerate({"Wheel": ["inter-", "national"], "Saw": ["local"]}.items()):
            canvas.drawString(72, 700 - 40 * number, name)
            for line, text in enumerate(texts):
                canvas.drawString(200, 700 - 40 * number - 12 * line, text)
        canvas.grid([70, 198, 300], [640, 674, 714])
        canvas.save()
        assert "| Wheel | international |" in parse(tmp_path / "a.pdf").text


class TestRules:
    def test_tell_the_columns_of_text_without_gaps(self, tmp_path: Path) -> None:
        canvas = Canvas(str(tmp_path / "a.pdf"))
        for row in range(3):
            for column in range(3):
                canvas.drawString(72 + 40 * column, 700 - 20 * row, f"cell{row}{column}x")
        canvas.grid([70, 110, 150, 190], [655, 675, 695, 715])
        canvas.save()
        rows = [[f"cell{row}{column}x" for column in range(3)] for row in range(3)]
        assert parse(tmp_path / "a.pdf").text == markdown(rows)

    def test_around_the_body_only_do_not_make_it_one_row(self, tmp_path: Path) -> None:
        canvas = Canvas(str(tmp_path / "a.pdf"))
        rows = [["City", "Country"], ["Vienna", "Austria"], ["Porto", "Portugal"], ["Oslo", "Norway"]]
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                canvas.drawString(72 + 100 * column, 700 - 14 * number, text)
        canvas.grid([70, 170, 270], [650, 696, 712])
        canvas.save()
        assert parse(tmp_path / "a.pdf").text == markdown(rows)

    @pytest.mark.parametrize("rotation", [90, 180, 270])
    def test_are_found_on_rotated_pages(self, tmp_path: Path, rotation: int) -> None:
        canvas = Canvas(str(tmp_path / "a.pdf"), pagesize=(600, 800))
        canvas.setPageRotation(rotation)
        canvas.translate(*{90: (600, 0), 180: (600, 800), 270: (0, 800)}[rotation])
        canvas.rotate(rotation)
        for x, y, text in [(72, 450, "Key"), (112, 450, "The long"), (112, 438, "value"), (72, 420, "a")]:
            canvas.drawString(x, y, text)
        canvas.drawString(112, 420, "1")
        canvas.grid([70, 110, 170], [414, 434, 464])
        canvas.save()
        assert parse(tmp_path / "a.pdf").text == markdown([["Key", "The long value"], ["a", "1"]])

    def test_of_a_drawing_are_no_table(self, tmp_path: Path) -> None:
        canvas = Canvas(str(tmp_path / "a.pdf"))
        canvas.grid([100, 200, 300, 400], [100, 200, 300, 400])
        canvas.drawString(72, 700, "A chart follows.")
        canvas.drawString(210, 250, "peak")
        canvas.save()
        assert blocks_of(parse(tmp_path / "a.pdf"), "table") == []

    def test_too_many_of_them_are_ignored(self, tmp_path: Path) -> None:
        canvas = Canvas(str(tmp_path / "a.pdf"))
        canvas.drawString(72, 700, "A map follows.")
        for number in range(21_000):
            canvas.line(10, number % 600, 500, number % 600)
        canvas.save()
        assert parse(tmp_path / "a.pdf").text == "A map follows."


class TestSeveral:
    @pytest.mark.parametrize("look", LOOKS)
    def test_tables_on_a_page_stay_apart(self, page: Callable[..., Draft], look: str) -> None:
        draft = page(
            table(PER_DIEMS, [130, 90, 60, 70], look),
            Paragraph(PARAGRAPHS[0], BODY),
            table(EQUIPMENT, [75, 65, 80, 95], look),
        )
        assert blocks_of(draft) == [markdown(PER_DIEMS), PARAGRAPHS[0], markdown(EQUIPMENT)]

    def test_tables_side_by_side_stay_apart(self, page: Callable[..., Draft]) -> None:
        left, right = [["a", "b"], ["1", "2"]], [["c", "d"], ["3", "4"]]
        draft = page(Table([[table(left, [50, 50]), table(right, [50, 50])]], [200, 200]))
        assert blocks_of(draft, "table") == [markdown(left), markdown(right)]

    @pytest.mark.parametrize("look", LOOKS)
    def test_pages_of_one_table_have_its_head_each(self, page: Callable[..., Draft], look: str) -> None:
        rows = [["Number", "Name of the part in the list", "Price"]]
        rows += [[str(number), f"Part {number} of the machine", f"{number}.50"] for number in range(1, 151)]
        draft = page(table(rows, [60, 90, 60], look, kind=LongTable))
        tables = [(block.page, draft.text[block.start : block.end]) for block in draft.blocks]
        assert [number for number, _ in tables] == list(range(1, len(tables) + 1))
        assert len(tables) > 3
        assert all(text.startswith(markdown(rows[:1])) for _, text in tables)
        assert sum(text.count("of the machine") for _, text in tables) == 150


class TestNoTables:
    def test_prose_in_two_columns(self, page: Callable[..., Draft]) -> None:
        texts = [f"Number {number}. {PARAGRAPHS[number % 2]}" for number in range(12)]
        draft = page(BalancedColumns([Paragraph(text, BODY) for text in texts], nCols=2))
        assert blocks_of(draft, "table") == []
        assert blocks_of(draft)[0] == texts[0]

    def test_prose_in_three_columns_drawn_line_by_line(self, tmp_path: Path) -> None:
        lines = [
            (50.0 + 170 * column, 700.0 - 12 * row, f"the text of column {column} in line {row}")
            for row in range(8)
            for column in range(3)
        ]
        draft = parse(lines_pdf(tmp_path / "a.pdf", [lines], size=9))
        assert [text[:20] for text in blocks_of(draft, "paragraph")] == [
            f"the text of column {column}" for column in range(3)
        ]

    def test_prose_in_two_columns_with_rules_between(self, tmp_path: Path) -> None:
        canvas = Canvas(str(tmp_path / "a.pdf"))
        for left in (72, 320):
            for row in range(12):
                canvas.drawString(left, 700 - 14 * row, f"Column text of {left} that runs on {row}")
        canvas.line(310, 720, 310, 520)
        canvas.line(70, 720, 540, 720)
        canvas.save()
        draft = parse(tmp_path / "a.pdf")
        assert blocks_of(draft, "table") == []
        assert draft.text.index("320 that runs on 0") > draft.text.index("72 that runs on 11")

    def test_a_page_laid_out_with_rules(self, page: Callable[..., Draft]) -> None:
        cell = [Paragraph(text, BODY) for text in PARAGRAPHS * 3]
        draft = page(Table([[cell, cell], [cell, cell]], [200, 200], style=[GRID]))
        assert blocks_of(draft, "table") == []

    def test_numbered_paragraphs_are_a_list(self, tmp_path: Path) -> None:
        lines = []
        for number in range(1, 4):
            y = 700 - 30 * number
            lines += [(72.0, y, str(number)), (95.0, y, "The customer packs the device in its crate and")]
            lines += [(95.0, y - 12, "writes the number on it.")]
        expected = [
            f"{number} The customer packs the device in its crate and writes the number on it."
            for number in range(1, 4)
        ]
        draft = parse(lines_pdf(tmp_path / "a.pdf", [lines]))
        assert blocks_of(draft, "list") == ["\n".join(expected)]

    def test_a_paragraph_above_stays_apart(self, tmp_path: Path) -> None:
        lines = [(72, 712, "These are the prices"), (72, 700, "Name"), (300, 700, "Sum")]
        lines += [(72, 688, "Bread"), (300, 688, "12"), (72, 676, "Cheese"), (300, 676, "14")]
        draft = parse(lines_pdf(tmp_path / "a.pdf", [lines]))
        assert blocks_of(draft) == [
            "These are the prices",
            markdown([["Name", "Sum"], ["Bread", "12"], ["Cheese", "14"]]),
        ]

    def test_a_heading_above_stays_apart(self, page: Callable[..., Draft]) -> None:
        draft = page(
            Paragraph(PARAGRAPHS[0], BODY),
            Paragraph("<b>Per diems</b>", BODY),
            table(PER_DIEMS, [130, 90, 60, 70], "plain"),
        )
        assert blocks_of(draft)[1:] == ["Per diems", markdown(PER_DIEMS)]
