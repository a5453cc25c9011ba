"""Passages → sentences that can stand in an answer: cut out exactly, cleaned, tables made readable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.agent.core.interfaces import Passage
from app.rag.sentences import Span, is_page_mark, is_table_row, sentences

_MAX_LENGTH = 500
"""Characters; a longer run without sentence ends is cut at commas or spaces."""
_MAX_LIST = 700
"""Characters of a list or code block that is quoted together with the line that leads to it."""
_MAX_HEADING = 200
_MIN_WORDS = 3

_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪–·]|\(?(?:\d{1,3}|[A-Za-z])[.)])\s+")
_RIGHTS = re.compile(r"(©|copyright\b|\(c\)\s)|.*all rights reserved\W*$", re.IGNORECASE | re.DOTALL)
_FIELD = re.compile(r"[^\W\d_][\w /().-]{0,40}[:：]\s+\S")
_FILE_NAME = re.compile(r"(?<=\w)\.\w{2,5}$")
_LAST = re.compile(r"[.!?…:;。！？؟۔।]['\"”’»)\]」』*_`]*(\[\d{1,3}\])*$")
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]+)\]\([^)\s]*\)")
_EMPHASIS = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_ITALIC = re.compile(r"(?<!\w)\*(?=\S)([^*\n]+)(?<=\S)\*(?!\w)")
_REFERENCE = re.compile(r"\s?\[\d{1,3}\]")
_HYPHENATED = re.compile(r"(?<=[a-zäöüß])-\n\s*(?=[a-zäöüß])")


@dataclass(frozen=True, slots=True)
class Candidate:
    """`passage` is the place in the context, from 0; `span` points into that passage's text; `text` is
    what the answer shows; `heading` is the nearest heading above, else the title; `row`: of a table."""

    passage: int
    span: Span
    text: str
    heading: str
    row: bool = False

    @property
    def in_context(self) -> str:
        """What is embedded: a sentence often says what it is about in its heading only."""
        return f"{self.heading}: {self.text}" if self.heading else self.text


@dataclass(slots=True)
class _Reader:
    """What is known at one place of a passage."""

    heading: str
    columns: list[str]
    code: bool = False


def candidates(context: Sequence[Passage]) -> list[Candidate]:
    """The sentences of all passages, in order, without headings, page furniture and repetitions."""
    seen: set[str] = set()
    found = []
    for place, passage in enumerate(context):
        for candidate in _of_passage(place, passage):
            key = " ".join(re.findall(r"\w+", candidate.text.casefold()))
            if key not in seen:
                seen.add(key)
                found.append(candidate)
    return found


def _of_passage(place: int, passage: Passage) -> Iterator[Candidate]:
    text = passage.text
    spans = sentences(text)
    reader = _Reader(_FILE_NAME.sub("", passage.title).replace("_", " ").strip(), [])
    for number, (start, end) in enumerate(spans):
        raw = text[start:end]
        heading = reader.heading
        if _read_structure(reader, text, spans, number):
            continue
        if is_table_row(raw) and len(raw) <= _MAX_LIST:
            if row := _row(raw, reader.columns):
                yield Candidate(place, (start, end), row, heading, row=True)
            continue
        reader.columns = []
        if raw.endswith((":", "：")):
            end = _with_list(text, spans, number)
        if end - start > _MAX_LIST:
            pieces = _pieces(text, start, end)
            yield from (Candidate(place, span, clean(text[slice(*span)]), heading) for span in pieces)
        elif not _furniture(text[start:end]):
            yield Candidate(place, (start, end), clean(text[start:end]), heading)


def _read_structure(reader: _Reader, text: str, spans: list[Span], number: int) -> bool:
    """Whether the sentence is structure (heading, code, table head); notes what it says."""
    start, end = spans[number]
    raw = text[start:end]
    if _FENCE.match(raw):
        reader.code = not reader.code
        return True
    if reader.code or _separator(raw):
        return True
    if _HEADING.match(raw):
        reader.heading = _heading(raw.strip("# \t"))
        return True
    if is_table_row(raw):
        following = text[slice(*spans[number + 1])] if number + 1 < len(spans) else ""
        if _separator(following) and is_table_row(following):
            reader.columns = _cells(raw)
            return True
        return False
    if _title_like(raw) and not _furniture(raw):
        reader.heading = _heading(raw)
        return True
    return False


def _heading(raw: str) -> str:
    return clean(raw[:_MAX_HEADING]).rstrip(".")


def _separator(raw: str) -> bool:
    """The line between the head and the body of a Markdown table."""
    return "-" in raw and not raw.strip("|:- \t")


def _title_like(raw: str) -> bool:
    if raw.endswith(("?", "？", "؟")):
        return True  # a question is no answer; in lists of questions and answers it is the heading
    return (
        len(raw) <= 60
        and "\n" not in raw
        and not _LAST.search(raw)
        and not _ITEM.match(raw)
        and not _FIELD.match(raw)
        and raw[:1].isupper()
    )


def _furniture(raw: str) -> bool:
    words = re.findall(r"\w+", raw)
    if not any(map(str.isalpha, raw)) or _RIGHTS.match(raw) or is_page_mark(raw):
        return True
    # ideographs are not written as words
    return len(words) < _MIN_WORDS and len("".join(words)) < 12 and not _FIELD.match(raw) and raw.isascii()


def _with_list(text: str, spans: list[Span], number: int) -> int:
    """End of the list or code block that the line at `number`, ending in a colon, leads to."""
    start, end = spans[number]
    fenced = False
    for place in range(number + 1, len(spans)):
        first, stop = spans[place]
        raw = text[first:stop]
        fence = bool(_FENCE.match(raw))
        if stop - start > _MAX_LIST or not (fenced or fence or _ITEM.match(raw)):
            break
        fenced = fenced != fence
        if not fenced:
            end = stop
    return end


def _pieces(text: str, start: int, end: int) -> Iterator[Span]:
    while end - start > _MAX_LENGTH:
        window = text[start : start + _MAX_LENGTH]
        cut = max(window.rfind(mark) for mark in ("; ", ", ", ". ", "\n")) + 1
        cut = cut if cut > _MAX_LENGTH // 3 else window.rfind(" ") + 1 or _MAX_LENGTH
        yield start, start + len(text[start : start + cut].rstrip())
        start += cut
        while start < end and text[start].isspace():
            start += 1
    yield start, end


def clean(raw: str) -> str:
    """`raw` on one line (a list or code: its lines), without markup, ending in a punctuation mark."""
    raw = _REFERENCE.sub("", _LINK.sub(r"\1", _IMAGE.sub("", raw)))
    raw = _ITALIC.sub(r"\1", _EMPHASIS.sub(r"\2", _HYPHENATED.sub("", raw)))
    lines = raw.splitlines()
    if len(lines) > 1 and _LAST.search(lines[0]) and lines[0].rstrip().endswith((":", "：")):
        return "\n".join(line.rstrip() for line in lines if line.strip())
    item = _ITEM.match(raw)
    flat = " ".join(raw[item.end() if item else 0 :].split())
    return flat if _LAST.search(flat) else flat + "."


def _cells(row: str) -> list[str]:
    row = row.strip()
    parts = (
        row.split("\t") if "\t" in row else re.split(r"(?<!\\)\|", row.removeprefix("|").removesuffix("|"))
    )
    return [" ".join(part.replace("\\|", "|").split()) for part in parts]


def _row(raw: str, columns: list[str]) -> str:
    """`Plan: Pro; Price: $20.`, or the cells alone where the head of the table is not in sight."""
    cells = _cells(raw)
    names = columns if len(columns) == len(cells) else [""] * len(cells)
    parts = [f"{name}: {cell}" if name else cell for name, cell in zip(names, cells, strict=True) if cell]
    return clean("; ".join(parts)) if parts else ""
