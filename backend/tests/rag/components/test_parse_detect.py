"""What a file is, by content."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from app.rag.components.parsers.detect import DOCX, HTML, MARKDOWN, PDF, PLAIN, detect, detect_file
from app.rag.components.parsers.errors import ParseError
from tests.rag.components.samples import handbook, word_file, zip_of

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)


class TestDocuments:
    def test_pdf_under_any_name(self, tmp_path: Path) -> None:
        assert detect(handbook(tmp_path / "a.pdf", pages=1).read_bytes(), "holiday.png") == PDF

    def test_pdf_after_junk(self, tmp_path: Path) -> None:
        assert detect(b"junk\r\n" * 100 + handbook(tmp_path / "a.pdf", pages=1).read_bytes(), "a") == PDF

    def test_a_text_about_pdf_is_not_one(self) -> None:
        assert detect(b"A PDF begins with %PDF-1.7 and its version.", "note.txt") == PLAIN

    def test_docx_under_any_name(self, tmp_path: Path) -> None:
        with word_file(tmp_path / "a.docx").open("rb") as file:
            assert detect_file(file, "a.zip") == DOCX

    def test_docx_from_its_head_alone(self) -> None:
        assert detect(zip_of(["[Content_Types].xml", "word/document.xml"]), "a") == DOCX


class TestText:
    @pytest.mark.parametrize(
        ("text", "name", "expected"),
        [
            ("<!DOCTYPE html><html><body>x", "page.txt", HTML),
            ("\n<!-- c -->\n<html lang=en>", "page", HTML),
            ('<?xml version="1.0"?>\n<html xmlns="x">', "page", HTML),
            ("<div><p>One</p><p>Two</p></div>", "page", HTML),
            ("<p>Fragment", "page.html", HTML),
            ('<div align="center">logo</div>\n\n# Title', "README.md", MARKDOWN),
            ("just text", "note.md", MARKDOWN),
            ("# One\n\ntext **bold**\n\n# Two\n", "README", MARKDOWN),
            ("| a | b |\n| --- | --- |\n| 1 | 2 |\n\n[link](http://x)\n", "t.txt", MARKDOWN),
            ("# a comment\nimport os\n\n# another\nprint(os)\n", "tool.py", PLAIN),
            ("Plain words. <b>Not</b> HTML.", "note.txt", PLAIN),
            ("a,b\n1,2\n", "t.csv", PLAIN),
            ("A MZ story, of no importance", "x.txt", PLAIN),
            ("MZ is a postal code", "x.txt", PLAIN),
        ],
    )
    def test_kind(self, text: str, name: str, expected: str) -> None:
        assert detect(text.encode(), name) == expected

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1251"])
    def test_any_encoding_is_text(self, encoding: str) -> None:
        text = "Привет, мир" if encoding == "cp1251" else "Hello, world"
        assert detect(text.encode(encoding), "a.txt") == PLAIN

    def test_a_stray_nul_does_not_make_text_binary(self) -> None:
        assert detect(b"some words\x00 and more words", "a.txt") == PLAIN


class TestRefusals:
    @pytest.mark.parametrize(
        ("head", "found"),
        [
            (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image"),
            (b"\xff\xd8\xff\xe0" + bytes(50), "a JPEG image"),
            (b"\x1f\x8b\x08\x00" + bytes(50), "a gzip archive"),
            (b"MZ\x90\x00\x03" + bytes(50), "a Windows program"),
            (b"{\\rtf1 text}", "an RTF document"),
            (OLE + "WordDocument".encode("utf-16-le"), "a legacy Word document"),
            (OLE, "a legacy Office"),
            (zip_of(["xl/workbook.xml"]), "an Excel workbook"),
            (zip_of(["ppt/presentation.xml"]), "a PowerPoint presentation"),
            (zip_of(["readme.txt"]), "a ZIP archive"),
            (bytes(range(256)) * 4, "binary data"),
        ],
    )
    def test_says_what_it_is_and_what_is_read(self, head: bytes, found: str) -> None:
        with pytest.raises(ParseError) as caught:
            detect(head, "file.txt")
        assert caught.value.code == "unsupported"
        assert f"'file.txt' is {found}" in caught.value.detail
        assert caught.value.detail.endswith("supported are PDF, DOCX, HTML, Markdown, plain text")

    def test_an_office_file_with_password_is_encrypted(self) -> None:
        directory_at_sector_1 = bytearray(OLE + bytes(2048))
        directory_at_sector_1[0x1E], directory_at_sector_1[0x30] = 9, 1
        data = bytes(directory_at_sector_1[:1024]) + "EncryptedPackage".encode("utf-16-le")
        with pytest.raises(ParseError) as caught:
            detect_file(BytesIO(data), "secret.docx")
        assert caught.value.code == "encrypted"

    def test_nothing_is_empty(self) -> None:
        with pytest.raises(ParseError) as caught:
            detect(b"", "a.txt")
        assert caught.value.code == "empty"

    def test_a_cut_zip_is_corrupt(self) -> None:
        with pytest.raises(ParseError) as caught:
            detect_file(BytesIO(zip_of(["word/document.xml"])[:-30]), "a.docx")
        assert caught.value.code == "corrupt"
