"""Text → sentences with exact offsets: prose, lists, tables, code and headings, in many scripts.

Rules, not a model: every character that is not white space lies in exactly one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

Span = tuple[int, int]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_LONG_ITEM = 300
"""A list item up to this many characters stays whole; a longer one is split like prose."""
_SHORT_ITEM = 40
"""Up to this many characters, an item does not go on in a line that starts with a capital."""

_FENCE = re.compile(r"\s*(```|~~~)")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_RULE = re.compile(r"\s*([-=_*~]\s*){3,}$")
_LONGEST_PAGE_MARK = 200
_PAGE_MARK = re.compile(
    r"\s*(?:(?:page|seite|p\.)\s*)?\d+(?:\s*(?:of|/|von|sur|de)\s*\d+)?\s*$|.*\.{4,}\s*\d+\s*$", re.I
)
_ITEM = re.compile(r"\s*(?:[-*+•‣◦▪–·]|\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5})[.)])\s+\S")
_FIELD = re.compile(r"\s*[^\W\d_][\w /().-]{0,40}[:：]\s+\S")

_CLOSERS = "\"'»”’›)\\]}」』）】》〉*_`"
# Ends a sentence: where ideographs are written also without a space behind it.
_TAIL = f"[{_CLOSERS}]*(?:\\[\\d{{1,3}}\\])*"  # closing quotes, and reference marks as in [3]
_IDEOGRAPHIC_MARKS, _MARKS = "。！？｡．", ".!?…؟۔।॥։።។"
# (the look-behind and ++ keep a long run of marks linear)
_END = re.compile(
    f"(?<![{_IDEOGRAPHIC_MARKS}{_MARKS}])"
    f"(?:[{_IDEOGRAPHIC_MARKS}]++{_TAIL}|[{_MARKS}]++(?:{_TAIL}(?=\\s|$)|[{_IDEOGRAPHIC_MARKS}]++{_TAIL}))"
)
_WORD_BEFORE = re.compile(r"[^\s(\[{\"'“‘«]*$")
_NEXT = re.compile(r"\s+[\"'“‘«„(\[*_`¿¡]*(\w*)")

_NEVER_LAST = _set(
    """adj adm approx art bzgl bzw ca cap capt cf ch cmdr co col corp cpt dept dr ed eds e.g eg engr eq eqs
    esp est evtl fam ff fig figs gen ggf gov hon hr hrsg i.e ie incl inkl jr lt ltd m.e maj max mgr min mlle
    mme mr mrs ms mt mx nr op p pp p.ex par ph.d pres prof pt ref refs rep resp rev sec sen sgt sog sr sra
    srta st str u.a u.u usw v v.a vgl viz vol vols vs z.b z.t zzgl d.h o.ä s.a s.o s.u d.c"""
)
# Abbreviations only in front of a number: "No. 5", but "He said no. Then he left."
_BEFORE_NUMBER = _set("abb abs bd fn jan feb mar apr jun jul aug sep sept oct nov dec kap nos no tab")
_DAY_OR_LABEL = re.compile(r"\d{1,3}$")
_MONTH = re.compile(
    "(jan|feb|mär|mar|apr|mai|may|jun|jul|aug|sep|okt|oct|nov|dez|dec|janv|fév|avr|juin|juil|août|déc)",
    re.IGNORECASE,
)
_ORDINAL_NOUN = re.compile("(jahrhundert|klasse|auflage|kapitel|platz|stock|tag|weltkrieg)", re.IGNORECASE)
_LONGEST_ABBREVIATION = 24
_INITIAL = re.compile(r"(?:[A-Z]|[A-Z][a-z]?(?:\.-?[A-Z][a-z]?)+)$")
_STARTERS = _set(
    """a after all although an and as at because before but by each every finally first for from he her his
    how however i if in it its many more most no not now on once one only or our she since so some such that
    the their then there therefore these they this those to today under until we what when where which while
    who why with you your"""
)


def sentences(text: str) -> list[Span]:
    """(start, end) of each sentence, in order, in Unicode code points, without surrounding white space.

    A heading, a table row, a rule, a line of code and a list item (up to 300 characters) each count
    as one. Abbreviations, initials, decimals and ordinals do not end a sentence; a line break does
    only where the layout says so (blank line, short line before a capital, `Field: value`).
    """
    spans: list[Span] = []
    for start, end, prose in _blocks(text):
        spans.extend(_prose(text, start, end) if prose else _trimmed(text, start, end))
    return spans


def _blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is prose) of runs of lines that belong together."""
    open_start: int | None = None  # start of the run being gathered
    code = False
    position = 0
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        start, position = position, position + len(line)
        fence = bool(_FENCE.match(line))
        alone = code or fence or _stands_alone(line)
        code = code != fence
        if alone or _begins(lines, number):
            if open_start is not None:
                yield open_start, start, True
            open_start = None if alone else start
        if alone:
            yield start, position, False
    if open_start is not None:
        yield open_start, position, True


def _stands_alone(line: str) -> bool:
    if not line.strip() or is_table_row(line) or is_page_mark(line):
        return True
    return bool(_HEADING.match(line) or _RULE.match(line))


def is_page_mark(line: str) -> bool:
    """A page number (`7`, `Page 7 of 9`) or a line of a table of contents (`Refunds ..... 7`)."""
    return len(line) <= _LONGEST_PAGE_MARK and bool(_PAGE_MARK.match(line))


def is_table_row(line: str) -> bool:
    """A row of a Markdown table, or of cells between tabs."""
    line = line.strip()
    return (len(line) > 1 and line[0] == line[-1] == "|") or line.count(" | ") > 1 or line.count("\t") > 1


def _begins(lines: list[str], number: int) -> bool:
    """Whether a line of text starts something new rather than going on with the line before."""
    line = lines[number]
    if number == 0 or _ITEM.match(line):
        return True
    before = lines[number - 1]
    if _stands_alone(before) or _FENCE.match(before) or before.endswith("\f"):
        return True
    if _FIELD.match(line) and _FIELD.match(before):
        return True
    if _ITEM.match(before) and len(before.strip()) <= _SHORT_ITEM and line[:1].isupper():
        return True
    return _looks_like_title(before.strip(), line.strip())


def _looks_like_title(line: str, following: str) -> bool:
    """A line far shorter than the next one that a wrapped sentence would not have ended so early."""
    first = following[:1]
    return (
        len(line) < 0.6 * len(following)
        and len(line) <= 60
        and line[-1:] not in ",;-–—/&("
        and (first.isupper() or first.isdigit() or not first.isalnum())
        and (line[:1].isupper() or line[:1].isdigit())
    )


def _prose(text: str, start: int, end: int) -> Iterator[Span]:
    if _ITEM.match(text, start, end) and len(text[start:end].strip()) <= _LONG_ITEM:
        yield from _trimmed(text, start, end)
        return
    cuts = [start]
    for match in _END.finditer(text, start, end):
        if _ends_sentence(text, cuts[-1], match):
            cuts.append(match.end())
    for first, last in pairwise([*cuts, end]):
        yield from _trimmed(text, first, last)


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    mark = match.group()[0]
    if mark in _IDEOGRAPHIC_MARKS:
        # 「本当？」と聞いた: the quotation is a part of the sentence
        return not (
            match.group()[-1] in "」』" and "\u3041" <= text[match.end() : match.end() + 1] <= "\u3096"
        )
    following = _NEXT.match(text, match.end())
    word = following.group(1) if following else ""
    if word[:1].islower():
        return False
    return mark != "." or match.group().startswith("..") or not _abbreviated(text, start, match.start(), word)


def _abbreviated(text: str, start: int, stop: int, following: str) -> bool:
    """Whether the full stop at `stop` belongs to the word before it; `following` is the next word."""
    found = _WORD_BEFORE.search(text[max(start, stop - _LONGEST_ABBREVIATION) : stop])
    word = found.group() if found else ""
    lowered = word.casefold()
    if lowered in _NEVER_LAST or (lowered in _BEFORE_NUMBER and following[:1].isdigit()):
        return True
    if _DAY_OR_LABEL.match(word):
        label = stop - start < 8 and text[start:stop].strip() == word  # "1. Introduction"
        return label or bool(_MONTH.match(following) or _ORDINAL_NOUN.match(following))
    if len(word) == 1 and word.islower() and (len(following) == 1 or following[:1].isdigit()):
        return True  # "z. B.", "c. 1455"
    return bool(_INITIAL.match(word)) and following.casefold() not in _STARTERS


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    piece = text[start:end]
    body = piece.strip()
    if body:
        first = start + len(piece) - len(piece.lstrip())
        yield first, first + len(body)
