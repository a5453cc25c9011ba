"""The straight lines drawn on a PDF page, and the edges of its rectangles: what tables are ruled with."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pypdfium2_raw as pdfium  # type: ignore[import-untyped]

from app.rag.components.parsers.pdf_frame import Frame

# Beyond these a page is a drawing, and looking for tables in it would only cost time.
_MAX_OBJECTS: Final = 20_000
_MAX_POINTS: Final = 8_000
_MAX_PATH_POINTS: Final = 400
_STRAIGHT: Final = 0.5  # points off the axis
_SAME: Final = 2.5  # rules as near as this are one: the two edges of a thin box, a double rule
_APART: Final = 3.0  # a longer break divides rules; a corner is shorter
_SHORTEST: Final = 8.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rule:
    """A line along an axis of the page as shown, in points: `at` on the other axis, from `start` to `end`."""

    at: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules from the lower left of the page on; those that touch in a row are one."""

    horizontal: tuple[Rule, ...] = ()
    vertical: tuple[Rule, ...] = ()


def page_rules(page: Any, frame: Frame) -> Rules:
    """The rules of a page; none for a page that is mostly a drawing."""
    horizontal: list[Rule] = []
    vertical: list[Rule] = []
    points = 0
    for path in _paths(page):
        strokes = list(_strokes(path))
        points += len(strokes)
        if points > _MAX_POINTS:
            return Rules()
        for (x0, y0), (x1, y1) in strokes:
            left, bottom, right, top = frame.shown(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            if top - bottom < _STRAIGHT:
                horizontal.append(Rule((top + bottom) / 2, left, right))
            elif right - left < _STRAIGHT:
                vertical.append(Rule((left + right) / 2, bottom, top))
    return Rules(tuple(_merged(horizontal)), tuple(_merged(vertical)))


def _paths(page: Any) -> Iterator[Any]:
    count = pdfium.FPDFPage_CountObjects(page)
    for index in range(count if count <= _MAX_OBJECTS else 0):
        shape = pdfium.FPDFPage_GetObject(page, index)
        if pdfium.FPDFPageObj_GetType(shape) == pdfium.FPDF_PAGEOBJ_PATH:
            yield shape


def _strokes(path: Any) -> Iterator[tuple[Point, Point]]:
    """The sides of a path on the unrotated page; none for one with curves."""
    count = pdfium.FPDFPath_CountSegments(path)
    matrix = pdfium.FS_MATRIX()
    if not 2 <= count <= _MAX_PATH_POINTS or not pdfium.FPDFPageObj_GetMatrix(path, matrix):
        return
    segments = [pdfium.FPDFPath_GetPathSegment(path, index) for index in range(count)]
    kinds = [pdfium.FPDFPathSegment_GetType(segment) for segment in segments]
    if pdfium.FPDF_SEGMENT_BEZIERTO in kinds:
        return
    first = last = (0.0, 0.0)
    x, y = ctypes.c_float(), ctypes.c_float()
    for segment, kind in zip(segments, kinds, strict=True):
        pdfium.FPDFPathSegment_GetPoint(segment, x, y)
        point = (
            matrix.a * x.value + matrix.c * y.value + matrix.e,
            matrix.b * x.value + matrix.d * y.value + matrix.f,
        )
        if kind == pdfium.FPDF_SEGMENT_MOVETO:
            first = point
        else:
            yield last, point
        if pdfium.FPDFPathSegment_GetClose(segment):
            yield point, first
        last = point


def _merged(rules: Iterable[Rule]) -> Iterator[Rule]:
    level: list[Rule] = []
    for rule in sorted(rules, key=lambda each: each.at):
        if level and rule.at - level[0].at > _SAME:
            yield from _joined(level)
            level = []
        level.append(rule)
    yield from _joined(level)


def _joined(level: Iterable[Rule]) -> Iterator[Rule]:
    """Rules at one height (or breadth) without their overlaps and corners."""
    spans: list[Rule] = []
    for rule in sorted(level, key=lambda each: each.start):
        if spans and rule.start - spans[-1].end <= _APART:
            spans[-1] = Rule(spans[-1].at, spans[-1].start, max(spans[-1].end, rule.end))
        else:
            spans.append(rule)
    return (span for span in spans if span.end - span.start >= _SHORTEST)
