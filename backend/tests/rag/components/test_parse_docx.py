"""DOCX to blocks."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from app.rag.components.parsers.draft import Draft
from app.rag.components.parsers.errors import ParseError
from app.rag.components.parsers.limits import ParseLimits
from tests.rag.components.samples import WORD_XMLNS, blocks_of, parse, raw_docx, word_file, word_paragraph

P = word_paragraph


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return parse(word_file(tmp_path / "a.docx"))


def code_of(path: Path, limits: ParseLimits | None = None) -> str:
    with pytest.raises(ParseError) as caught:
        parse(path, limits=limits)
    return caught.value.code


class TestWordFile:
    def test_blocks_are_in_document_order(self, draft: Draft) -> None:
        assert [block.kind for block in draft.blocks] == [
            "heading",
            "paragraph",
            "heading",
            "list",
            "table",
            "paragraph",
        ]

    def test_headings_have_their_ranks(self, draft: Draft) -> None:
        assert [block.level for block in draft.blocks if block.kind == "heading"] == [1, 2]

    def test_lists_keep_their_markers(self, draft: Draft) -> None:
        assert blocks_of(draft, "list") == ["- Saw\n- File\n1. Cut\n2. Polish"]

    def test_tables_become_markdown(self, draft: Draft) -> None:
        assert blocks_of(draft, "table") == [
            "| A | B | C |\n| --- | --- | --- |\n| 1 | 2\\|3 |  |\n| 4 | 5 | 6 |"
        ]

    def test_headers_and_footers_are_left_out(self, draft: Draft) -> None:
        assert "header" not in draft.text
        assert "footer" not in draft.text

    def test_title_and_author_come_from_the_properties(self, draft: Draft) -> None:
        assert draft.title == "Clockwork"
        assert draft.metadata["author"] == "A. Clockmaker"


class TestMarkup:
    def test_tracked_deletions_are_left_out(self, tmp_path: Path) -> None:
        body = "<w:p><w:r><w:t>kept </w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        body += "<w:ins><w:r><w:t>added</w:t></w:r></w:ins></w:p>"
        assert parse(raw_docx(tmp_path / "a.docx", body)).text == "kept added"

    def test_content_controls_are_read(self, tmp_path: Path) -> None:
        body = f"<w:sdt><w:sdtPr/><w:sdtContent>{P('inside')}</w:sdtContent></w:sdt>"
        assert parse(raw_docx(tmp_path / "a.docx", body)).text == "inside"

    def test_a_cell_over_rows_is_repeated(self, tmp_path: Path) -> None:
        def cell(text: str, properties: str = "") -> str:
            return f"<w:tc><w:tcPr>{properties}</w:tcPr>{P(text)}</w:tc>"

        merge = "<w:vMerge/>"
        rows = [cell("2024", '<w:vMerge w:val="restart"/>') + cell("Jan"), cell("", merge) + cell("Feb")]
        body = "<w:tbl>" + "".join(f"<w:tr>{row}</w:tr>" for row in rows) + "</w:tbl>"
        assert parse(raw_docx(tmp_path / "a.docx", body)).text.splitlines()[2] == "| 2024 | Feb |"

    def test_a_table_of_one_cell_is_a_frame(self, tmp_path: Path) -> None:
        body = f"<w:tbl><w:tr><w:tc>{P('one')}{P('two')}</w:tc></w:tr></w:tbl>"
        assert blocks_of(parse(raw_docx(tmp_path / "a.docx", body)), "paragraph") == ["one", "two"]

    def test_text_boxes_follow_their_paragraph_once(self, tmp_path: Path) -> None:
        box = f"<w:txbxContent>{P('boxed')}</w:txbxContent>"
        body = f"<w:p><w:r><w:t>around</w:t><Choice>{box}</Choice><Fallback>{box}</Fallback></w:r></w:p>"
        assert blocks_of(parse(raw_docx(tmp_path / "a.docx", body))) == ["around", "boxed"]

    def test_an_outline_level_makes_a_heading(self, tmp_path: Path) -> None:
        draft = parse(raw_docx(tmp_path / "a.docx", P("Head", '<w:outlineLvl w:val="2"/>') + P("Body")))
        assert [(block.kind, block.level) for block in draft.blocks] == [("heading", 3), ("paragraph", 0)]

    def test_strict_ooxml_is_read(self, tmp_path: Path) -> None:
        main = f'<w:document xmlns:w="{WORD_XMLNS}"><w:body>{P("strict")}</w:body></w:document>'
        strict = main.replace(WORD_XMLNS, "http://purl.oclc.org/ooxml/wordprocessingml/main")
        assert parse(raw_docx(tmp_path / "a.docx", strict.encode())).text == "strict"

    def test_two_hundred_thousand_levels_are_read(self, tmp_path: Path) -> None:
        depth = 200_000
        body = "<w:sdt><w:sdtContent>" * depth + P("deep") + "</w:sdtContent></w:sdt>" * depth
        limits = ParseLimits(max_archive_ratio=100_000)
        assert parse(raw_docx(tmp_path / "a.docx", body), limits=limits).text == "deep"


class TestHostile:
    def test_a_dense_entry_is_a_bomb(self, tmp_path: Path) -> None:
        path = raw_docx(tmp_path / "a.docx", P("x"), {"word/media/image1.png": bytes(30_000_000)})
        assert code_of(path) == "too_large"

    def test_the_unpacked_size_is_bounded(self, tmp_path: Path) -> None:
        path = raw_docx(
            tmp_path / "a.docx", P("x"), {"word/a.bin": bytes(900_000), "word/b.bin": bytes(900_000)}
        )
        assert code_of(path, ParseLimits(memory_bytes=1_500_000)) == "too_large"

    def test_the_number_of_entries_is_bounded(self, tmp_path: Path) -> None:
        assert (
            code_of(raw_docx(tmp_path / "a.docx", P("x"), {f"word/{n}": "" for n in range(20_001)}))
            == "too_large"
        )

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_entities_are_refused(self, tmp_path: Path, encoding: str) -> None:
        main = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY l "lol">]>'
        main += f'<w:document xmlns:w="{WORD_XMLNS}"><w:body>{P("&l;")}</w:body></w:document>'
        assert code_of(raw_docx(tmp_path / "a.docx", main.encode(encoding))) == "corrupt"

    def test_entities_are_refused_in_other_parts_too(self, tmp_path: Path) -> None:
        styles = f'<!DOCTYPE a [<!ENTITY l "lol">]><w:styles xmlns:w="{WORD_XMLNS}">&l;</w:styles>'
        assert code_of(raw_docx(tmp_path / "a.docx", P("x"), {"word/styles.xml": styles})) == "corrupt"

    @pytest.mark.parametrize("main", [b"<w:document", b"", b"not xml at all", b"<a>\x00</a>"])
    def test_broken_xml_is_corrupt(self, tmp_path: Path, main: bytes) -> None:
        assert code_of(raw_docx(tmp_path / "a.docx", main)) == "corrupt"

    def test_damaged_content_is_corrupt(self, tmp_path: Path) -> None:
        path = word_file(tmp_path / "a.docx")
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            start = archive.getinfo("word/document.xml").header_offset
        data[start + 60 : start + 400] = bytes(340)
        path.write_bytes(data)
        assert code_of(path) == "corrupt"

    def test_an_archive_with_password_is_encrypted(self, tmp_path: Path) -> None:
        path = raw_docx(tmp_path / "a.docx", P("x"))
        data = bytearray(path.read_bytes())
        at = -1
        while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
            data[at + 8] |= 1
        path.write_bytes(data)
        assert code_of(path) == "encrypted"
