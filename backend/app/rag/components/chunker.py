"""Chunks of whole sentences, rows and lines, packed up to a number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from app.rag.components.tokens import default_tokens
from app.rag.components.units import Unit, blocks_of, units_of
from app.rag.pipeline.component import component
from app.rag.types import BlockKind, Chunk, ParsedDocument

_MARKS: Final = 2  # the model adds a token at the start and one at the end
_LEAST_TOKENS: Final = 16
_MOST_TOKENS: Final = 8192


@component("chunker.sentence")
@dataclass(frozen=True, slots=True)
class SentenceChunker:
    """Packs sentences into chunks that a model with a window of `max_tokens` reads to the end.

    A chunk ends between blocks rather than inside one, and before a heading rather than between blocks,
    if that leaves it at least half full; a heading stays with what follows it. `overlap`: up to so many
    tokens of whole sentences, at most half a chunk, are repeated at the start of the next chunk, though
    not across a heading and not within a table. Tokens are those of the default embedding model.
    """

    max_tokens: int = 256
    overlap: int = 32

    def __post_init__(self) -> None:
        if not _LEAST_TOKENS <= self.max_tokens <= _MOST_TOKENS:
            raise ValueError(
                f"max_tokens {self.max_tokens!r} must be between {_LEAST_TOKENS} and {_MOST_TOKENS}"
            )
        if not 0 <= self.overlap <= self.max_tokens:
            raise ValueError(f"overlap {self.overlap!r} must be between 0 and max_tokens {self.max_tokens!r}")

    def chunk(self, document: ParsedDocument) -> list[Chunk]:
        """The chunks in order. Pure and deterministic, but busy: run it off the event loop."""
        blocks = blocks_of(document)
        most = self.max_tokens - _MARKS
        units = list(units_of(document.text, blocks, most=most, tokens=default_tokens()))
        chunks = []
        for ordinal, (first, stop) in enumerate(_Packing(units, most, min(self.overlap, most // 2)).ranges()):
            start, end = units[first].start, units[stop - 1].end
            block = blocks[units[first].block]
            chunks.append(
                Chunk(
                    ordinal=ordinal,
                    text=document.text[start:end],
                    start=start,
                    end=end,
                    token_count=sum(unit.tokens for unit in units[first:stop]),
                    page=block.page,
                    heading_path=block.heading_path,
                )
            )
        return chunks


class _Packing:
    """Which units go together."""

    def __init__(self, units: Sequence[Unit], most: int, overlap: int) -> None:
        self._units = units
        self._most = most
        self._overlap = overlap
        self._sums = [0, *accumulate(unit.tokens for unit in units)]

    def ranges(self) -> list[tuple[int, int]]:
        """(first, stop) indices of units; every unit is in at least one range."""
        ranges = []
        first = stop = 0
        while stop < len(self._units):
            stop = self._stop(first, stop)
            ranges.append((first, stop))
            first = self._next_first(first, stop)
        return ranges

    def _tokens(self, first: int, stop: int) -> int:
        return self._sums[stop] - self._sums[first]

    def _stop(self, first: int, done: int) -> int:
        """Where the chunk that begins at `first` ends; it takes at least one unit after `done`."""
        full = done + 1
        while full < len(self._units) and self._tokens(first, full + 1) <= self._most:
            full += 1
        if full == len(self._units):
            return full
        return self._best_end(first, done, full)

    def _best_end(self, first: int, done: int, full: int) -> int:
        """The last end up to `full` before a heading, else between blocks, else `full` itself."""
        between = None
        for stop in range(full, done, -1):
            if self._tokens(first, stop) * 2 < self._most:
                break
            if self._units[stop - 1].block == self._units[stop].block or self._is_heading(stop - 1):
                continue
            if self._is_heading(stop):
                return stop
            between = between or stop
        return between or self._before_headings(done, full)

    def _before_headings(self, done: int, full: int) -> int:
        stop = full
        while stop > done + 1 and self._is_heading(stop - 1):
            stop -= 1
        return full if self._is_heading(stop - 1) else stop

    def _next_first(self, first: int, stop: int) -> int:
        """Where the next chunk begins: before `stop` by the overlap, if nothing speaks against it."""
        units = self._units
        if stop == len(units) or self._is_heading(stop):
            return stop
        if units[stop].kind is BlockKind.TABLE and units[stop].block == units[stop - 1].block:
            return stop
        begin = stop
        while (
            begin - 1 > first
            and not self._is_heading(begin - 1)
            and self._tokens(begin - 1, stop) <= self._overlap
            and self._tokens(begin - 1, stop + 1) <= self._most
        ):
            begin -= 1
        return begin

    def _is_heading(self, index: int) -> bool:
        return self._units[index].kind is BlockKind.HEADING
