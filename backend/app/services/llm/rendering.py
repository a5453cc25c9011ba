"""Passages → sentences that can stand in an answer: cut out exactly, cleaned, tables made readable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.agent.core.interfaces import Passage
from app.rag.sentences import Span, is_page_mark, is_table_row, sentences
from app.rag.sparse import tokenize

_MAX_LENGTH = 500
"""Characters; a longer run without sentence ends is cut at commas or spaces."""
_MAX_LIST = 700
"""Characters of a list or code block that is quoted together with the line that leads to it."""
_MAX_HEADING = 200
_MAX_TITLE_LINE = 60
_MIN_WORDS = 3

_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪–·]|\(?(?:\d{1,3}|[A-Za-z])[.)])\s+")
_RIGHTS = re.compile(r"(©|copyright\b|\(c\)\s)|.*all rights reserved\W*$", re.IGNORECASE | re.DOTALL)
_NUMBERED = re.compile(r"\d{1,2}(?:\.\d{1,2})*\s+(?=[^\W\d_])")
_SERIAL = re.compile(  # "Acme, handbook part 4.", as title pages and running headers say
    r"(?:[^.,:;!?\n]{1,60}[,:–—·|]\s*)?(?:\w+\s+)?(?:part|volume|vol\.|chapter|section|edition)\s+(?:\d+|[ivxlc]+)\W*",
    re.IGNORECASE,
)
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

    title: str
    heading: str
    columns: list[str]
    code: bool = False


def candidates(context: Sequence[Passage]) -> list[Candidate]:
    """The sentences of all passages, in order, without headings, page furniture and repetitions."""
    found = [candidate for place, passage in enumerate(context) for candidate in _of_passage(place, passage)]
    seen = _running_lines(context, found)
    distinct = []
    for candidate in found:
        key = _key(candidate.text)
        if key not in seen:
            seen.add(key)
            distinct.append(candidate)
    return distinct


def _key(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def _running_lines(context: Sequence[Passage], found: Sequence[Candidate]) -> set[str]:
    """Keys of lines without sentence end that stand at several places of one document, like the headers
    and footers of its pages. (Overlapping passages show one place twice.)"""
    first: dict[tuple[UUID, str], int] = {}
    running = set()
    for candidate in found:
        passage, (start, end) = context[candidate.passage], candidate.span
        raw = passage.text[start:end]
        if candidate.row or _LAST.search(raw) or _FIELD.match(raw):
            continue
        key = _key(candidate.text)
        if first.setdefault((passage.document_id, key), passage.start + start) != passage.start + start:
            running.add(key)
    return running


def _of_passage(place: int, passage: Passage) -> Iterator[Candidate]:
    text = passage.text
    spans = sentences(text)
    title = _FILE_NAME.sub("", passage.title).replace("_", " ").strip()
    reader = _Reader(title, title, [])
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
    alone = (not start or text.endswith("\n\n", 0, start)) and text[end : end + 2] in ("", "\n", "\n\n")
    if (_title_like(raw, alone=alone) or _names(reader.title, raw)) and not _furniture(raw):
        reader.heading = _heading(raw)
        return True
    return False


def _heading(raw: str) -> str:
    return clean(_NUMBERED.sub("", raw[:_MAX_HEADING], count=1)).rstrip(".")


def _separator(raw: str) -> bool:
    """The line between the head and the body of a Markdown table."""
    return "-" in raw and not raw.strip("|:- \t")


def _title_like(raw: str, *, alone: bool) -> bool:
    """`alone`: between blank lines, which tells "3 Returns", a heading, from the third item of a list."""
    if raw.endswith(("?", "？", "؟")):
        return True  # a question is no answer; in lists of questions and answers it is the heading
    if len(raw) > _MAX_TITLE_LINE or "\n" in raw or _LAST.search(raw):
        return False
    if _in_capitals(raw) and not (_FIELD.match(raw) and any(map(str.isdigit, raw))):
        return True
    bare = _NUMBERED.sub("", raw, count=1) if alone else raw
    return bare[:1].isupper() and not (_ITEM.match(raw) or _FIELD.match(raw) or _breaks_off(raw))


def _in_capitals(raw: str) -> bool:
    """Every letter, in a script that has them; not a marked item, as "- USB, HDMI" is."""
    return raw[:1].isalnum() and all(letter.isupper() for letter in raw if letter.isalpha())


def _breaks_off(raw: str) -> bool:
    """Whether a line ends in a word that leads on: "… take place in"."""
    last = raw.rsplit(maxsplit=1)[-1]
    return last.islower() and len(last) > 1 and not tokenize(last, "en")


def _names(title: str, raw: str) -> bool:
    """Whether `raw`, not a whole sentence, is the title or holds it like the header of a page."""
    if _LAST.search(raw) or _ITEM.match(raw):
        return False
    name, line = _key(title), _key(raw)
    return bool(name) and (line == name or (name.count(" ") > 1 and name in line))


def _furniture(raw: str) -> bool:
    words = re.findall(r"\w+", raw)
    if not any(map(str.isalpha, raw)) or _RIGHTS.match(raw) or is_page_mark(raw) or _SERIAL.fullmatch(raw):
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
