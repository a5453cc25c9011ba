"""The sample handbook: its built files are up to date, and it answers the questions that come with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from docx import Document
from docx.table import Table
from pypdfium2 import PdfDocument
from selectolax.lexbor import LexborHTMLParser

from scripts.build_handbook import HANDBOOK, SOURCES, Block, build, parse, render_docx

EXAMPLES = HANDBOOK.parent


@dataclass(frozen=True, slots=True)
class Question:
    question: str
    document: str
    phrases: Sequence[str]
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Unanswerable:
    question: str
    absent: str


CATALOGUE = yaml.safe_load((EXAMPLES / "questions.yaml").read_text(encoding="utf-8"))
QUESTIONS = [Question(**entry) for entry in CATALOGUE["questions"]]
UNANSWERABLE = [Unanswerable(**entry) for entry in CATALOGUE["unanswerable"]]
DOCUMENTS = sorted(path.name for path in HANDBOOK.iterdir())
BUILT = sorted(path.stem for path in SOURCES.iterdir())


def pages(path: Path) -> list[str]:
    """The text of each page, runs of white space as one space; unpaged formats have one page."""
    match path.suffix:
        case ".pdf":
            with PdfDocument(path) as document:
                texts = [page.get_textpage().get_text_range() for page in document]
        case ".docx":
            texts = ["\n".join(docx_lines(path))]
        case ".html":
            tree = LexborHTMLParser(path.read_text(encoding="utf-8"))
            texts = [main.text(separator=" ") for main in tree.css("main")]
        case _:
            texts = [path.read_text(encoding="utf-8")]
    return [" ".join(text.split()) for text in texts]


def docx_lines(path: Path) -> list[str]:
    lines = []
    for item in Document(str(path)).iter_inner_content():
        rows = item.rows if isinstance(item, Table) else ()
        lines += [cell.text for row in rows for cell in row.cells] or [getattr(item, "text", "")]
    return lines


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("handbook")
    build(target)
    return target


class TestBuild:
    @pytest.mark.parametrize("name", BUILT)
    def test_gives_the_committed_bytes(self, rebuilt: Path, name: str) -> None:
        assert (rebuilt / name).read_bytes() == (HANDBOOK / name).read_bytes()

    def test_covers_every_pdf_and_docx(self) -> None:
        assert [name for name in DOCUMENTS if name.endswith((".pdf", ".docx"))] == BUILT


class TestParse:
    def test_reads_a_table_with_its_column_titles(self) -> None:
        blocks = parse("# Title\n\n| a | b |\n|---|---|\n| 1 | |\n")
        assert blocks[1] == Block("table", (("a", "b"), ("1", "")))

    @pytest.mark.parametrize("source", ["", "text", "# one\n\n# two", "## section\n\n# late title"])
    def test_demands_one_title_at_the_beginning(self, source: str) -> None:
        with pytest.raises(ValueError, match="one heading of level 1"):
            parse(source)

    @pytest.mark.parametrize("block", ["a **bold** word", "- outer\n  - inner", "- one\n\n  two"])
    def test_quotes_text_that_is_not_plain(self, block: str) -> None:
        with pytest.raises(ValueError, match="only plain text"):
            parse(f"# Title\n\n{block}")

    def test_names_a_block_outside_the_subset(self) -> None:
        with pytest.raises(ValueError, match="'fence' is not one of"):
            parse("# Title\n\n```\ncode\n```\n")


class TestRenderDocx:
    def test_refuses_a_second_numbered_list(self) -> None:
        with pytest.raises(ValueError, match="one numbered list at most"):
            render_docx(parse("# Title\n\n1. a\n\ntext\n\n1. b"))


class TestHandbook:
    def test_has_five_formats(self) -> None:
        assert {Path(name).suffix for name in DOCUMENTS} == {".pdf", ".docx", ".html", ".md", ".txt"}

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_has_documents_of_600_to_1800_words(self, name: str) -> None:
        assert 600 <= sum(len(page.split()) for page in pages(HANDBOOK / name)) <= 1800

    @pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.endswith(".pdf")])
    def test_has_pdfs_of_four_numbered_pages_or_more(self, name: str) -> None:
        found = pages(HANDBOOK / name)
        assert len(found) >= 4
        assert all(page.endswith(f" Page {number}") for number, page in enumerate(found, start=1))


class TestQuestions:
    @pytest.mark.parametrize("entry", QUESTIONS, ids=lambda entry: entry.question)
    def test_find_their_phrases_in_the_document(self, entry: Question) -> None:
        found = pages(HANDBOOK / entry.document)
        text = found[entry.page - 1] if entry.page else found[0]
        assert [phrase for phrase in entry.phrases if phrase not in text] == []

    @pytest.mark.parametrize("entry", QUESTIONS, ids=lambda entry: entry.question)
    def test_name_a_page_of_pdfs_only(self, entry: Question) -> None:
        assert (entry.page is not None) == entry.document.endswith(".pdf")

    def test_ask_about_every_document(self) -> None:
        assert sorted({entry.document for entry in QUESTIONS}) == DOCUMENTS

    @pytest.mark.parametrize("entry", UNANSWERABLE, ids=lambda entry: entry.question)
    def test_without_an_answer_ask_for_something_absent(self, entry: Unanswerable) -> None:
        word = re.compile(rf"\b{re.escape(entry.absent)}", re.IGNORECASE)
        assert [name for name in DOCUMENTS if any(map(word.search, pages(HANDBOOK / name)))] == []

    def test_answer_lies_in_one_document_when_it_is_a_sentence(self) -> None:
        sentences = [entry for entry in QUESTIONS if len(entry.phrases) == 1]
        texts = {name: " ".join(pages(HANDBOOK / name)) for name in DOCUMENTS}
        homes = [[name for name in DOCUMENTS if entry.phrases[0] in texts[name]] for entry in sentences]
        assert homes == [[entry.document] for entry in sentences]
