"""PDF to blocks, with exact pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from app.rag.components.parsers.draft import Draft
from app.rag.components.parsers.errors import ParseError
from app.rag.components.parsers.limits import ParseLimits
from tests.rag.components.samples import PARAGRAPHS, blocks_of, handbook, lines_pdf, parse, raw_pdf


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Draft:
    return parse(handbook(tmp_path_factory.mktemp("pdf") / "book.pdf"))


def code_of(path: Path, limits: ParseLimits | None = None) -> str:
    with pytest.raises(ParseError) as caught:
        parse(path, limits=limits)
    return caught.value.code


class TestHandbook:
    def test_every_block_names_its_page(self, book: Draft) -> None:
        for page in range(1, 5):
            texts = [book.text[b.start : b.end] for b in book.blocks if b.page == page]
            assert texts[0] == f"Chapter {page}"
            assert any(text.endswith(f"This is page {page}.") for text in texts)

    def test_page_count_title_and_author(self, book: Draft) -> None:
        assert (book.page_count, book.title, book.metadata["author"]) == (4, "Handbook", "A. Clockmaker")

    def test_lines_are_joined_to_paragraphs(self, book: Draft) -> None:
        assert blocks_of(book, "paragraph")[:2] == [PARAGRAPHS[0], f"{PARAGRAPHS[1]} This is page 1."]

    def test_larger_lines_are_headings(self, book: Draft) -> None:
        headings = [(book.text[b.start : b.end], b.level) for b in book.blocks if b.kind == "heading"]
        assert headings[:2] == [("Chapter 1", 1), ("Parts of chapter 1", 2)]
        assert len(headings) == 8

    def test_lists_are_lists(self, book: Draft) -> None:
        assert blocks_of(book, "list") == ["- a wheel\n- a crank"] * 4

    def test_tables_are_rows_with_their_columns(self, book: Draft) -> None:
        table = "| Planet | Teeth | Days |\n| --- | --- | --- |\n| Earth | 83 | 365 |\n| Mars |  | 687 |"
        assert blocks_of(book, "table") == [table] * 4

    def test_running_heads_and_page_numbers_are_dropped(self, book: Draft) -> None:
        assert "Orrery Handbook" not in book.text
        assert "of 4" not in book.text

    def test_blocks_cover_the_text(self, book: Draft) -> None:
        assert book.text == "\n\n".join(blocks_of(book))


class TestLines:
    def test_a_word_broken_at_the_line_end_is_made_whole(self, tmp_path: Path) -> None:
        lines = [
            (72, 700, "It is an inter-"),
            (72, 688, "national treaty of the Anglo-"),
            (72, 676, "Saxon years."),
        ]
        text = parse(lines_pdf(tmp_path / "a.pdf", [lines])).text
        assert text == "It is an international treaty of the Anglo-Saxon years."

    def test_a_gap_makes_a_paragraph(self, tmp_path: Path) -> None:
        lines = [
            (72, 700, "One line here"),
            (72, 688, "and on it goes."),
            (72, 664, "Another paragraph"),
            (72, 652, "it is."),
        ]
        assert blocks_of(parse(lines_pdf(tmp_path / "a.pdf", [lines]))) == [
            "One line here and on it goes.",
            "Another paragraph it is.",
        ]

    def test_columns_drawn_line_by_line_are_read_one_after_the_other(self, tmp_path: Path) -> None:
        lines = []
        for row in range(6):
            lines += [(72.0, 700.0 - 12 * row, f"left column text in its line {row}")]
            lines += [(320.0, 700.0 - 12 * row, f"right column text in its line {row}")]
        left, right = blocks_of(parse(lines_pdf(tmp_path / "a.pdf", [lines])))
        assert left.startswith("left column text in its line 0 left column")
        assert right.endswith("right column text in its line 5")

    def test_chapter_titles_at_one_place_are_not_furniture(self, tmp_path: Path) -> None:
        pages = [[(72, 780, f"Chapter {n}"), (72, 740, f"Text of number {n}.")] for n in range(1, 6)]
        assert "Chapter 3" in parse(lines_pdf(tmp_path / "a.pdf", pages)).text

    def test_equal_pages_keep_their_text(self, tmp_path: Path) -> None:
        page = [(72, 780 - 12 * row, f"The same line {row} on all pages") for row in range(20)]
        draft = parse(lines_pdf(tmp_path / "a.pdf", [page] * 5))
        assert draft.text.count("The same line 0 on all pages") == 5

    def test_a_rotated_page_is_read_like_another(self, tmp_path: Path) -> None:
        path = tmp_path / "a.pdf"
        canvas = Canvas(str(path), pagesize=(600, 800))
        canvas.setPageRotation(90)
        canvas.rotate(90)
        canvas.translate(0, -600)
        for row in range(3):
            canvas.drawString(100, 450 - 14 * row, f"key{row}")
            canvas.drawString(300, 450 - 14 * row, f"value{row}")
        canvas.save()
        assert blocks_of(parse(path), "table")[0].endswith("| key2 | value2 |")

    def test_characters_beyond_the_basic_plane_do_not_shift_places(self, tmp_path: Path) -> None:
        lines = [(72, 700, "Name"), (300, 700, "Sum"), (72, 680, "Bread"), (300, 680, "12")]
        draft = parse(lines_pdf(tmp_path / "a.pdf", [lines]))
        assert draft.text == "| Name | Sum |\n| --- | --- |\n| Bread | 12 |"


class TestRefusals:
    def test_a_password_is_encrypted(self, tmp_path: Path) -> None:
        path = handbook(tmp_path / "a.pdf", pages=1, encryption=StandardEncryption("user", strength=128))
        assert code_of(path) == "encrypted"

    def test_an_owner_password_alone_is_no_obstacle(self, tmp_path: Path) -> None:
        encryption = StandardEncryption("", ownerPassword="owner", strength=128)
        assert "Chapter 1" in parse(handbook(tmp_path / "a.pdf", pages=1, encryption=encryption)).text

    def test_no_text_layer_seems_scanned(self, tmp_path: Path) -> None:
        path = tmp_path / "a.pdf"
        canvas = Canvas(str(path))
        canvas.rect(100, 100, 200, 200, fill=1)
        canvas.showPage()
        canvas.save()
        with pytest.raises(ParseError, match="scanned") as caught:
            parse(path)
        assert caught.value.code == "empty"

    def test_too_many_pages(self, tmp_path: Path) -> None:
        assert code_of(handbook(tmp_path / "a.pdf", pages=3), ParseLimits(max_pages=2)) == "too_many_pages"

    def test_too_much_text(self, tmp_path: Path) -> None:
        assert code_of(handbook(tmp_path / "a.pdf", pages=3), ParseLimits(max_text_bytes=500)) == "too_large"

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
    def test_a_cut_file_ends_in_a_document_or_an_error(self, tmp_path: Path, share: float) -> None:
        path = handbook(tmp_path / "a.pdf", pages=3)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert code_of(path) in {"corrupt", "empty"}

    def test_text_without_unstorable_characters(self, tmp_path: Path) -> None:
        path = raw_pdf(tmp_path / "a.pdf", b"BT /F1 12 Tf 72 700 Td (A\\000B\\001C) Tj ET")
        assert parse(path).text == "ABC"
