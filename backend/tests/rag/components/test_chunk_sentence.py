"""The sentence chunker."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.rag.components.chunker import SentenceChunker
from app.rag.components.tokens import default_tokens
from app.rag.types import Block, BlockKind, Chunk, ParsedDocument

H, P, L, T, C = BlockKind.HEADING, BlockKind.PARAGRAPH, BlockKind.LIST, BlockKind.TABLE, BlockKind.CODE


def document(*pieces: tuple[BlockKind, str], pages: list[int] | None = None) -> ParsedDocument:
    blocks, start = [], 0
    path: tuple[str, ...] = ()
    for number, (kind, text) in enumerate(pieces):
        path = (text,) if kind is H else path
        page = pages[number] if pages else None
        blocks.append(Block(kind, start, start + len(text), page, path))
        start += len(text) + 2
    return ParsedDocument("\n\n".join(text for _, text in pieces), tuple(blocks))


def sentence(number: int, words: int = 8) -> str:
    return f"Sentence {number} " + "word " * (words - 3) + "ends."


def prose(count: int, first: int = 0) -> str:
    return " ".join(sentence(first + number) for number in range(count))


def texts(chunks: list[Chunk]) -> list[str]:
    return [chunk.text for chunk in chunks]


class TestPacking:
    def test_a_short_document_is_one_chunk(self) -> None:
        chunks = SentenceChunker().chunk(document((P, "One. Two."), (P, "Three.")))
        assert texts(chunks) == ["One. Two.\n\nThree."]

    def test_chunks_end_with_sentences(self) -> None:
        chunks = SentenceChunker(max_tokens=40, overlap=0).chunk(document((P, prose(30))))
        assert len(chunks) > 5
        assert all(re.fullmatch(r"Sentence .*ends\.", chunk.text) for chunk in chunks)

    def test_chunks_are_filled(self) -> None:
        chunks = SentenceChunker(max_tokens=66, overlap=0).chunk(document((P, prose(70))))
        assert all(chunk.token_count > 50 for chunk in chunks[:-1])

    def test_block_boundaries_are_preferred(self) -> None:
        paragraphs = [prose(4, 10 * number) for number in range(6)]
        chunks = SentenceChunker(max_tokens=60, overlap=0).chunk(
            document(*((P, text) for text in paragraphs))
        )
        assert texts(chunks) == paragraphs

    def test_a_heading_is_a_better_boundary(self) -> None:
        pieces = [(P, prose(4)), (H, "Next part"), (P, prose(1, 5)), (P, prose(3, 9))]
        chunks = SentenceChunker(max_tokens=60, overlap=0).chunk(document(*pieces))
        assert chunks[1].text.startswith("Next part")

    def test_a_heading_stays_with_what_follows(self) -> None:
        pieces = [(P, prose(5)), (H, "Chapter"), (H, "Section"), (P, prose(5, 5))]
        for most in range(40, 80):
            chunks = SentenceChunker(max_tokens=most, overlap=0).chunk(document(*pieces))
            assert not any(chunk.text.endswith(("Chapter", "Section")) for chunk in chunks)

    def test_rows_lines_and_items_are_whole(self) -> None:
        table = "| a | b |\n| --- | --- |\n" + "\n".join(f"| row {n} | value. Of {n} |" for n in range(40))
        chunks = SentenceChunker(max_tokens=50, overlap=25).chunk(document((T, table)))
        assert [line for chunk in chunks for line in chunk.text.split("\n")] == table.split("\n")

    def test_a_sentence_that_is_too_long_is_cut_between_words(self) -> None:
        text = " ".join(f"word{number}" for number in range(300))
        chunks = SentenceChunker(max_tokens=32, overlap=0).chunk(document((P, text)))
        assert " ".join(texts(chunks)) == text
        assert all(chunk.token_count <= 30 for chunk in chunks)

    def test_an_endless_word_is_cut(self) -> None:
        chunks = SentenceChunker(max_tokens=32, overlap=0).chunk(document((P, "x" * 10_000)))
        assert "".join(texts(chunks)) == "x" * 10_000
        assert all(chunk.token_count <= 32 for chunk in chunks)

    def test_a_model_with_that_window_reads_the_whole_chunk(self) -> None:
        chunks = SentenceChunker(max_tokens=64).chunk(document((P, prose(100))))
        assert all(chunk.token_count + 2 <= 64 for chunk in chunks)

    def test_nothing_gives_no_chunks(self) -> None:
        assert (
            SentenceChunker().chunk(ParsedDocument(""))
            == SentenceChunker().chunk(ParsedDocument(" \n\n "))
            == []
        )


class TestOverlap:
    def test_whole_sentences_are_repeated(self) -> None:
        chunks = SentenceChunker(max_tokens=60, overlap=20).chunk(document((P, prose(20))))
        for before, after in pairwise(chunks):
            repeated = before.text[after.start - before.start :]
            assert repeated.startswith("Sentence")
            assert after.text.startswith(repeated)
            assert default_tokens().count(repeated) <= 20

    def test_nothing_is_repeated_without_it(self) -> None:
        chunks = SentenceChunker(max_tokens=60, overlap=0).chunk(document((P, prose(20))))
        assert all(before.end < after.start for before, after in pairwise(chunks))

    def test_nothing_is_repeated_across_a_heading(self) -> None:
        pieces = [(P, prose(4)), (H, "Next"), (P, prose(4, 4))]
        chunks = SentenceChunker(max_tokens=60, overlap=20).chunk(document(*pieces))
        assert [chunk.text.split(" ")[0] for chunk in chunks] == ["Sentence", "Next\n\nSentence"]


class TestPlaces:
    def test_page_and_headings_are_those_of_the_start(self) -> None:
        pieces = [(H, "One"), (P, prose(4)), (H, "Two"), (P, prose(4, 4))]
        chunks = SentenceChunker(max_tokens=60, overlap=0).chunk(document(*pieces, pages=[1, 1, 2, 3]))
        assert [(chunk.page, chunk.heading_path) for chunk in chunks] == [(1, ("One",)), (2, ("Two",))]

    def test_text_outside_of_blocks_is_not_lost(self) -> None:
        text = "before\n\ninside\n\nafter the block.\n\nlast"
        parsed = ParsedDocument(text, (Block(P, 8, 14),))
        assert texts(SentenceChunker().chunk(parsed)) == [text]


KINDS = st.sampled_from([P, P, H, L, T, C])
WORDS = st.sampled_from(
    [
        "word",
        "Word",
        "e.g.",
        "1.5",
        "end.",
        "Why?",
        "größer",
        "日本語。",
        "| cell |",
        "- item",
        "x" * 150,
        "...",
        "!!!",
    ]
)
TEXTS = st.one_of(
    st.lists(st.tuples(WORDS, st.sampled_from([" ", " ", " ", "\n", "  "])), min_size=1, max_size=60).map(
        lambda pairs: "".join(word + gap for word, gap in pairs).strip()
    ),
    st.text(max_size=80).map(str.strip),
).filter(bool)


class TestProperties:
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.tuples(KINDS, TEXTS), max_size=8), st.integers(16, 80), st.integers(0, 8), st.booleans()
    )
    @example([(P, "a" * 5000)], 16, 8, True)
    @example([(H, "Head")] * 9, 16, 0, True)
    def test_any_document(
        self, pieces: list[tuple[BlockKind, str]], most: int, overlap: int, with_blocks: bool
    ) -> None:
        parsed = document(*pieces) if with_blocks else ParsedDocument(document(*pieces).text)
        chunker = SentenceChunker(max_tokens=most, overlap=overlap)
        chunks = chunker.chunk(parsed)

        assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
        assert all(chunk.text == parsed.text[chunk.start : chunk.end] for chunk in chunks)
        covered = {at for chunk in chunks for at in range(chunk.start, chunk.end)}
        assert all(char.isspace() for at, char in enumerate(parsed.text) if at not in covered)
        assert all(chunk.token_count <= most or len(chunk.text) == 1 for chunk in chunks)
        assert all(chunk.text == chunk.text.strip() != "" for chunk in chunks)
        assert all(a.start < b.start and a.end < b.end for a, b in pairwise(chunks))
        assert chunker.chunk(parsed) == chunks


class TestSettings:
    @pytest.mark.parametrize(("most", "overlap"), [(15, 0), (9000, 0), (64, 65), (64, -1)])
    def test_a_senseless_number_is_named(self, most: int, overlap: int) -> None:
        with pytest.raises(ValueError, match=repr(overlap if 16 <= most <= 8192 else most)):
            SentenceChunker(max_tokens=most, overlap=overlap)
