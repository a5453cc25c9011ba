"""Plain text: charsets, paragraphs, what PostgreSQL cannot hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.rag.components.parsers.charset import decode
from app.rag.components.parsers.draft import clean
from app.rag.components.parsers.errors import ParseError
from app.rag.components.parsers.limits import ParseLimits
from tests.rag.components.samples import blocks_of, parse

GERMAN = "Die Straße ist für alle geöffnet, außer an Feiertagen. Größe und Übermut tun selten gut."
RUSSIAN = "Привет, это обычный русский текст для проверки кодировки документа."
JAPANESE = "これは日本語の文章です。文字コードの判定を確認します。"


class TestDecode:
    @pytest.mark.parametrize(
        ("text", "encoding"),
        [
            (GERMAN, "utf-8"),
            (GERMAN, "utf-8-sig"),
            (GERMAN, "utf-16"),
            (GERMAN, "utf-16-be"),
            (GERMAN, "utf-32"),
            (GERMAN, "cp1252"),
            ("El niño comió una manzana mañana; ¿qué pasó?", "cp1252"),
            (RUSSIAN, "cp1251"),
            (RUSSIAN, "koi8-r"),
            (JAPANESE, "shift_jis"),
            ("Zażółć gęślą jaźń, proszę państwa o wyrozumiałość.", "cp1250"),
        ],
    )
    def test_finds_the_encoding(self, text: str, encoding: str) -> None:
        assert decode(text.encode(encoding)) == text

    def test_finds_it_after_a_long_ascii_start(self) -> None:
        text = "plain words " * 20_000 + GERMAN
        assert decode(text.encode("cp1252")) == text

    def test_a_few_broken_bytes_leave_utf8(self) -> None:
        assert decode((GERMAN * 20).encode() + b"\xff") == GERMAN * 20 + "\ufffd"

    def test_believes_a_declaration_that_fits(self) -> None:
        assert decode("Ж".encode("koi8-r"), declared="KOI8-R") == "Ж"

    @pytest.mark.parametrize("declared", ["rot13", "unicode_escape", "no-such", "utf-7"])
    def test_a_declaration_cannot_name_other_codecs(self, declared: str) -> None:
        assert decode(b"\\u0041 +AEE-", declared=declared) == "\\u0041 +AEE-"


class TestClean:
    @pytest.mark.parametrize(
        ("raw", "cleaned"),
        [
            ("a\x00b", "ab"),
            ("a\ud800b", "ab"),
            ("a\r\nb\rc", "a\nb\nc"),
            ("a\xa0b", "a b"),
            ("\ufeffa\u200bb\xadc", "abc"),
            ("a\tb\nc", "a\tb\nc"),
            ("emoji \U0001f600", "emoji \U0001f600"),
        ],
    )
    def test_leaves_only_what_can_be_stored(self, raw: str, cleaned: str) -> None:
        assert clean(raw) == cleaned


class TestPlain:
    def test_paragraphs_keep_their_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "poem.txt"
        path.write_text("Roses are red,\nviolets blue.\n \n\nSecond stanza.\n")
        assert blocks_of(parse(path), "paragraph") == ["Roses are red,\nviolets blue.", "Second stanza."]

    def test_underlined_lines_are_headings(self, tmp_path: Path) -> None:
        path = tmp_path / "guide.rst"
        path.write_text("Guide\n=====\n\nIntro text.\n\nInstall\n-------\nRun it.\n")
        draft = parse(path)
        assert blocks_of(draft, "heading") == ["Guide", "Install"]
        assert [block.level for block in draft.blocks if block.kind == "heading"] == [1, 2]
        assert draft.title == "Guide"

    def test_blocks_are_separated_by_one_blank_line(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("one\n\n\n\n\ntwo\n\nthree")
        draft = parse(path)
        assert draft.text == "\n\n".join(blocks_of(draft)) == "one\n\ntwo\n\nthree"

    def test_a_long_run_of_spaces_costs_no_time(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("a" + " " * 2_000_000 + "b")
        assert len(parse(path).text) == 2_000_002

    def test_too_much_text(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("word " * 1000)
        with pytest.raises(ParseError) as caught:
            parse(path, limits=ParseLimits(max_text_bytes=1000))
        assert caught.value.code == "too_large"

    def test_white_space_alone_is_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text(" \n\n\t \n")
        with pytest.raises(ParseError) as caught:
            parse(path)
        assert caught.value.code == "empty"
