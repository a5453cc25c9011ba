"""A document as units that chunks are packed from: sentences, rows, items, lines, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.rag.components.tokens import WordPiece
from app.rag.sentences import sentences
from app.rag.types import Block, BlockKind, ParsedDocument

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_LINE = re.compile(r"\S.*")
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Unit:
    """Text that stays whole. `block` is the index of its block; `tokens` does not count marks."""

    start: int
    end: int
    tokens: int
    block: int
    kind: BlockKind


def blocks_of(document: ParsedDocument) -> list[Block]:
    """The document's blocks, with paragraphs for what lies in none of them (perhaps only white space)."""
    blocks: list[Block] = []
    reached = 0
    for block in document.blocks:
        blocks += _paragraphs(document.text, reached, block.start)
        blocks.append(block)
        reached = block.end
    return [*blocks, *_paragraphs(document.text, reached, len(document.text))]


def units_of(text: str, blocks: list[Block], *, most: int, tokens: WordPiece) -> Iterator[Unit]:
    """Units in order, without surrounding white space; one with more than `most` tokens is cut."""
    for index, block in enumerate(blocks):
        for start, end in _spans(text, block):
            count = tokens.count(text[start:end])
            if count <= most:
                yield Unit(start, end, count, index, block.kind)
                continue
            for first, last, part in _pieces(text, start, end, most=most, tokens=tokens):
                yield Unit(first, last, part, index, block.kind)


def _paragraphs(text: str, start: int, end: int) -> Iterator[Block]:
    for gap in _BLANK_LINES.finditer(text, start, end):
        yield Block(BlockKind.PARAGRAPH, start, gap.start())
        start = gap.end()
    yield Block(BlockKind.PARAGRAPH, start, end)


def _spans(text: str, block: Block) -> Iterator[tuple[int, int]]:
    """The units of a block before any is cut; together they hold all its visible text."""
    if block.kind is BlockKind.PARAGRAPH:
        for start, end in sentences(text[block.start : block.end]):
            yield block.start + start, block.start + end
    elif block.kind is BlockKind.HEADING:
        yield from _stripped(text, block.start, block.end)
    else:
        for found in _LINE.finditer(text, block.start, block.end):
            yield from _stripped(text, found.start(), found.end())


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    if body := piece.strip():
        first = start + len(piece) - len(piece.lstrip())
        yield first, first + len(body)


def _pieces(
    text: str, start: int, end: int, *, most: int, tokens: WordPiece
) -> Iterator[tuple[int, int, int]]:
    """Cuts a unit that is too long between words, and a word that is too long between characters."""
    first, last, total = start, start, 0
    for word in _WORD.finditer(text, start, end):
        count = tokens.count(word[0])
        if total and total + count > most:
            yield first, last, total
            first, total = word.start(), 0
        if count > most:
            yield from _fragments(text, word.start(), word.end(), most=most, tokens=tokens)
            first, total = word.end(), 0
        else:
            first = first if total else word.start()
            total += count
        last = word.end()
    if total:
        yield first, last, total


def _fragments(
    text: str, start: int, end: int, *, most: int, tokens: WordPiece
) -> Iterator[tuple[int, int, int]]:
    size = max(1, (end - start) * most // tokens.count(text[start:end]))
    while start < end:
        stop = min(start + size, end)
        while (count := tokens.count(text[start:stop])) > most and stop - start > 1:
            stop = start + (stop - start) // 2
        yield start, stop, count
        start = stop
