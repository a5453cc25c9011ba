"""HTML to blocks: the main content."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.rag.components.parsers.draft import Draft
from app.rag.components.parsers.html_depth import MAX_DEPTH, flatten
from tests.rag.components.samples import blocks_of, parse

PAGE = """<!DOCTYPE html><html lang="de-AT"><head><meta charset="utf-8"><title> Wheels &amp; cranks </title>
<meta name="description" content="About wheels"><style>p{}</style></head>
<body><header><a href="/">Site name</a></header><nav><ul><li>Home</li></ul></nav>
<div><h1>Wheels</h1><p>First   <em>para</em>graph<br>with a break.</p>
<script>evil()</script><aside>Advert</aside><p hidden>hidden words</p><p style="display: none">secret</p>
<h2>Parts</h2><ul><li>one</li><li>two<ol start="3"><li>deep</li></ol></li></ul>
<pre>  indented
    <b>code</b></pre>
<table><tr><th>Year</th><th>Month</th><th>Sum</th></tr>
<tr><td rowspan="2">2024</td><td>Jan</td><td>1</td></tr><tr><td>Feb</td><td>2</td></tr>
<tr><td colspan="2">Total | all</td><td>3</td></tr></table>
<dl><dt>Crank</dt><dd>It turns.</dd></dl>loose words</div>
<footer>Imprint</footer></body></html>"""


def read(tmp_path: Path, html: str | bytes) -> Draft:
    path = tmp_path / "page.html"
    path.write_bytes(html if isinstance(html, bytes) else html.encode())
    return parse(path)


@pytest.fixture
def page(tmp_path: Path) -> Draft:
    return read(tmp_path, PAGE)


class TestContent:
    @pytest.mark.parametrize("word", ["Site", "Home", "evil", "Advert", "hidden", "secret", "Imprint", "p{}"])
    def test_what_is_around_the_content_is_dropped(self, page: Draft, word: str) -> None:
        assert word not in page.text

    def test_headings(self, page: Draft) -> None:
        assert [(page.text[b.start : b.end], b.level) for b in page.blocks if b.kind == "heading"] == [
            ("Wheels", 1),
            ("Parts", 2),
        ]

    def test_paragraphs_join_white_space_and_keep_breaks(self, page: Draft) -> None:
        assert blocks_of(page, "paragraph") == ["First paragraph\nwith a break.", "loose words"]

    def test_lists_nest_in_one_block(self, page: Draft) -> None:
        assert blocks_of(page, "list") == ["- one\n- two\n  3. deep", "- Crank\n  It turns."]

    def test_preformatted_text_keeps_its_spaces(self, page: Draft) -> None:
        assert blocks_of(page, "code") == ["  indented\n    code"]

    def test_every_row_of_a_table_can_be_read_alone(self, page: Draft) -> None:
        assert blocks_of(page, "table") == [
            "| Year | Month | Sum |\n| --- | --- | --- |\n| 2024 | Jan | 1 |\n| 2024 | Feb | 2 |\n"
            "| Total \\| all |  | 3 |"
        ]

    def test_title_language_and_description(self, page: Draft) -> None:
        assert (page.title, page.language) == ("Wheels & cranks", "de")
        assert page.metadata == {"description": "About wheels"}

    def test_blocks_cover_the_text(self, page: Draft) -> None:
        assert page.text == "\n\n".join(blocks_of(page))


class TestMain:
    def test_main_is_preferred(self, tmp_path: Path) -> None:
        words = "content words " * 30
        draft = read(tmp_path, f"<html><div>side bar</div><main><header><h1>T</h1></header><p>{words}</main>")
        assert blocks_of(draft) == ["T", words.strip()]

    def test_an_empty_main_is_not(self, tmp_path: Path) -> None:
        draft = read(tmp_path, f"<html><main>Loading</main><div><p>{'real words ' * 50}</p></div>")
        assert "real words" in draft.text

    def test_the_only_article_is_preferred(self, tmp_path: Path) -> None:
        draft = read(tmp_path, f"<html><div>teaser</div><article><p>{'story ' * 60}</article>")
        assert "teaser" not in draft.text

    def test_a_layout_table_is_read_as_content(self, tmp_path: Path) -> None:
        draft = read(tmp_path, "<html><table><tr><td><h1>Title</h1><p>Text</p></td></tr></table>")
        assert [block.kind for block in draft.blocks] == ["heading", "paragraph"]


class TestBytes:
    def test_the_declared_charset_is_believed(self, tmp_path: Path) -> None:
        page = '<html><meta http-equiv="Content-Type" content="text/html; charset=windows-1251"><p>Жизнь'
        assert read(tmp_path, page.encode("cp1251")).text == "Жизнь"

    def test_references_to_unstorable_characters_vanish(self, tmp_path: Path) -> None:
        draft = read(tmp_path, b"<html><p>a&#0;b&#xD800;c\x00d &#x1F600;</p>")
        assert draft.text.replace("\ufffd", "") == "abcd \U0001f600"

    def test_broken_markup_is_read(self, tmp_path: Path) -> None:
        assert "text" in read(tmp_path, "<html><p <b>>text</i></div></p><td>cell<").text


class TestDepth:
    @pytest.mark.parametrize("tags", ["<div>", "<ul><li>", "<table><tr><td>", "<b>", "<blockquote><p>"])
    def test_a_hundred_thousand_levels_are_read(self, tmp_path: Path, tags: str) -> None:
        assert "deep text" in read(tmp_path, "<html><body>" + tags * 100_000 + "deep text").text

    def test_text_beyond_the_depth_stays(self) -> None:
        flat = flatten("<div>a" * 1000 + "</div>" * 1000)
        assert flat.count("<div>") == flat.count("</div>") == MAX_DEPTH
        assert flat.count("a") == 1000

    def test_scripts_do_not_count(self) -> None:
        page = "<p>" + "<script>if (a<b) {'<div>'}</script>" * 1000
        assert flatten(page) == page
