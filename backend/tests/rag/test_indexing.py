"""What of a chunk goes into the index."""

from app.rag.indexing import average_length, indexed, page_starts
from app.rag.types import Block, BlockKind, Chunk, ParsedDocument


def _document() -> ParsedDocument:
    blocks = tuple(
        Block(BlockKind.PARAGRAPH, start, start + 8, page)
        for start, page in ((0, 1), (10, 1), (20, 2), (30, 3))
    )
    return ParsedDocument(text="x" * 38, blocks=blocks, page_count=3)


class TestPageStarts:
    def test_are_the_pages_that_begin_inside(self) -> None:
        chunk = Chunk(0, "x" * 38, 0, 38, 5, page=1)
        assert page_starts(_document(), chunk) == [[20, 2], [30, 3]]

    def test_leave_out_the_page_of_the_start(self) -> None:
        chunk = Chunk(1, "x" * 10, 20, 30, 5, page=2)
        assert page_starts(_document(), chunk) == []


class TestIndexed:
    def test_is_found_by_its_title(self) -> None:
        assert "warranti" in indexed("Warranty", "Five years.", "en").tokens

    def test_has_the_same_digest_for_the_same_text_only(self) -> None:
        one, same, other = (indexed(t, "Text.", None).digest for t in ("A", "A", "B"))
        assert one == same != other

    def test_an_average_is_never_zero(self) -> None:
        assert average_length([]) == 1.0
