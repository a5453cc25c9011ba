"""What the styles and numberings of a DOCX say about a paragraph: heading rank, list marker, code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

_HEADING = re.compile(r"heading (\d)")
_CODE = re.compile(r"\b(code|preformatted|macro|listing)\b")
_CONTENTS = re.compile(r"toc( \d|\s*heading)|table of (contents|figures)")
_MAX_INHERITANCE: Final = 20
_BULLETS: Final = frozenset({"bullet", "none"})


def local(element: Element) -> str:
    """The tag without its namespace; transitional and strict OOXML differ only there."""
    return element.tag.rpartition("}")[2]


def value(element: Element | None, name: str = "val") -> str | None:
    """The attribute `name` in whatever namespace."""
    if element is None:
        return None
    for key, text in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return text
    return None


def child(element: Element | None, *path: str) -> Element | None:
    """The first descendant along `path` of local tags."""
    for name in path:
        if element is not None:
            element = next((each for each in element if local(each) == name), None)
    return element


@dataclass(frozen=True, slots=True)
class Numbering:
    """Where a paragraph stands in a list: which one, and how deep from 0."""

    number_id: str
    depth: int


@dataclass(frozen=True, slots=True)
class Style:
    """A paragraph style with what it inherits. `rank`: 0 title, 1 chapter, …; None is no heading."""

    rank: int | None = None
    numbering: Numbering | None = None
    is_code: bool = False
    is_contents: bool = False


class Styles:
    """The styles of one document by id, resolved when first asked for."""

    def __init__(self, root: Element) -> None:
        self._elements = {value(each, "styleId"): each for each in root if local(each) == "style"}
        self._resolved: dict[str | None, Style] = {}

    def of(self, style_id: str | None) -> Style:
        if style_id not in self._resolved:
            self._resolved[style_id] = self._resolve(style_id)
        return self._resolved[style_id]

    def _resolve(self, style_id: str | None) -> Style:
        rank: int | None = None
        numbering: Numbering | None = None
        names = []
        for _ in range(_MAX_INHERITANCE):
            element = self._elements.get(style_id)
            if element is None:
                break
            name = (value(child(element, "name")) or "").lower()
            names.append(name)
            properties = child(element, "pPr")
            rank = _rank(name, properties) if rank is None else rank
            numbering = numbering or numbering_of(properties)
            style_id = value(child(element, "basedOn"))
        return Style(
            rank,
            numbering,
            is_code=any(_CODE.search(name) for name in names),
            is_contents=any(_CONTENTS.match(name) for name in names),
        )


def outline_rank(properties: Element | None) -> int | None:
    """The heading rank that paragraph properties set themselves; level 9 is body text."""
    level = value(child(properties, "outlineLvl"))
    return int(level) + 1 if level and level in "012345678" else None


def numbering_of(properties: Element | None) -> Numbering | None:
    """The list that paragraph properties name; id 0 takes the paragraph out of its style's list."""
    numbers = child(properties, "numPr")
    number_id = value(child(numbers, "numId"))
    depth = value(child(numbers, "ilvl")) or "0"
    return Numbering(number_id, int(depth) if depth in "012345678" else 0) if number_id else None


def _rank(name: str, properties: Element | None) -> int | None:
    if found := _HEADING.match(name):
        return int(found[1])
    return 0 if name == "title" else outline_rank(properties)


class Numberings:
    """The list definitions of one document, and how far each list has counted."""

    def __init__(self, root: Element) -> None:
        self._lists = {value(each, "abstractNumId"): each for each in root if local(each) == "abstractNum"}
        self._numbers = {value(each, "numId"): each for each in root if local(each) == "num"}
        self._counts: dict[tuple[str | None, int], int] = {}
        self._restarted: set[tuple[str, int]] = set()

    def marker(self, at: Numbering) -> str:
        """The marker of the next item at this place: `- ` or `3. `."""
        number = self._numbers.get(at.number_id)
        list_id = value(child(number, "abstractNumId"))
        level = self._level(list_id, at.depth)
        if level is None or (value(child(level, "numFmt")) or "bullet") in _BULLETS:
            return "- "
        for key in [key for key in self._counts if key[0] == list_id and key[1] > at.depth]:
            del self._counts[key]
        restart = self._restart(number, at)
        start = restart or value(child(level, "start")) or "1"
        first = int(start) if start.isdecimal() and len(start) < 9 else 1
        count = first if restart else self._counts.get((list_id, at.depth), first - 1) + 1
        self._counts[list_id, at.depth] = count
        return f"{count}. "

    def _level(self, list_id: str | None, depth: int) -> Element | None:
        levels = self._lists.get(list_id)
        return next((each for each in levels if value(each, "ilvl") == str(depth)), None) if levels else None

    def _restart(self, number: Element | None, at: Numbering) -> str | None:
        """The number to start over with, the first time a restarting list is met."""
        if number is None or (at.number_id, at.depth) in self._restarted:
            return None
        self._restarted.add((at.number_id, at.depth))
        for override in number:
            if local(override) == "lvlOverride" and value(override, "ilvl") == str(at.depth):
                return value(child(override, "startOverride"))
        return None
