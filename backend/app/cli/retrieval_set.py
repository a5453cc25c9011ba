"""Retrieval sets on disk, in the layout of BEIR (Thakur et al., 2021): texts, questions, judgements.

    corpus.jsonl   {"_id": "d1", "title": "…", "text": "…"}    `title` may be empty or missing
    queries.jsonl  {"_id": "q1", "text": "…"}
    qrels.tsv      query-id, corpus-id, score; tab-separated, under a line with these names

Other fields and blank lines are passed over. Whatever is wrong is reported with its file and line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from app.core.errors import Invalid

MAX_ID_CHARACTERS = 500
MAX_QUERY_CHARACTERS = 10_000
_COLUMNS = ("query-id", "corpus-id", "score")


@dataclass(frozen=True, slots=True)
class Text:
    """One document; `title` may be empty, `text` is not."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """`judgements` are grades by query id and document id, of the queries with a relevant document."""

    name: str
    texts: list[Text]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class _Line:
    path: Path
    number: int
    text: str

    def refuse(self, message: str) -> NoReturn:
        raise Invalid(f"{self.path}, line {self.number}: {message}.")


def read_retrieval_set(folder: Path) -> RetrievalSet:
    """Reads and checks the whole set; `Invalid` says which line is wrong."""
    if not folder.is_dir():
        raise Invalid(f"There is no folder {str(folder)!r}.")
    texts = _texts(folder / "corpus.jsonl")
    queries = _queries(folder / "queries.jsonl")
    judgements = _judgements(folder / "qrels.tsv", queries, {text.id for text in texts})
    return RetrievalSet(folder.resolve().name, texts, queries, judgements)


def _texts(path: Path) -> list[Text]:
    found: dict[str, Text] = {}
    for line in _lines(path):
        row = _row(line)
        id_ = _id(line, row, taken=found)
        title = _string(line, row, "title") if row.get("title") is not None else ""
        text = _string(line, row, "text")
        if not (text.strip() or title.strip()):
            line.refuse("'text' and 'title' are both empty")
        found[id_] = Text(id_, title.strip(), text if text.strip() else title)
    return list(found.values())


def _queries(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in _lines(path):
        row = _row(line)
        id_ = _id(line, row, taken=found)
        text = _string(line, row, "text")
        if not 0 < len(text.strip()) <= len(text) <= MAX_QUERY_CHARACTERS:
            line.refuse(f"'text' has {len(text)} characters; it takes 1 to {MAX_QUERY_CHARACTERS}")
        found[id_] = text
    return found


def _judgements(path: Path, queries: Mapping[str, str], texts: set[str]) -> dict[str, dict[str, int]]:
    lines = _lines(path)
    header = next(lines)
    if tuple(header.text.split("\t")) != _COLUMNS:
        header.refuse(f"it must name the columns: {'<tab>'.join(_COLUMNS)}, not {header.text!r}")
    found: dict[str, dict[str, int]] = {}
    for line in lines:
        cells = line.text.split("\t")
        if len(cells) != len(_COLUMNS):
            line.refuse(f"it has {len(cells)} tab-separated columns; there are {len(_COLUMNS)}")
        query, text, score = cells
        if query not in queries:
            line.refuse(f"the query {query!r} is not in queries.jsonl")
        if text not in texts:
            line.refuse(f"the document {text!r} is not in corpus.jsonl")
        try:
            found.setdefault(query, {})[text] = int(score)
        except ValueError:
            line.refuse(f"the score {score!r} is not a whole number")
    judged = {query: grades for query, grades in found.items() if max(grades.values()) > 0}
    if not judged:
        raise Invalid(f"{path}: no query has a relevant document (a score above 0).")
    return judged


def _lines(path: Path) -> Iterator[_Line]:
    """Lines that are not blank, numbered from 1; at least one."""
    empty = True
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                line = _Line(path, number, _decoded(path, number, raw))
                if line.text.strip():
                    empty = False
                    yield line
    except FileNotFoundError:
        raise Invalid(f"There is no file {str(path)!r}.") from None
    except OSError as error:
        raise Invalid(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    if empty:
        raise Invalid(f"{path}: the file is empty.")


def _decoded(path: Path, number: int, raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        _Line(path, number, "").refuse(f"not UTF-8 at byte {error.start + 1}")
    return text.rstrip("\r\n")


def _row(line: _Line) -> dict[str, Any]:
    try:
        row = json.loads(line.text)
    except ValueError as error:
        line.refuse(f"not JSON ({error})")
    if not isinstance(row, dict):
        line.refuse(f"a JSON object is expected, not {type(row).__name__}")
    return row


def _id(line: _Line, row: Mapping[str, Any], *, taken: Mapping[str, object]) -> str:
    id_ = _string(line, row, "_id")
    if not 0 < len(id_) <= MAX_ID_CHARACTERS:
        line.refuse(f"'_id' has {len(id_)} characters; it takes 1 to {MAX_ID_CHARACTERS}")
    if id_ in taken:
        line.refuse(f"the '_id' {id_!r} occurs twice")
    return id_


def _string(line: _Line, row: Mapping[str, Any], field: str) -> str:
    if field not in row:
        line.refuse(f"the field {field!r} is missing; there are {sorted(row)}")
    value = row[field]
    if not isinstance(value, str):
        line.refuse(f"{field!r} must be a string, not {type(value).__name__}")
    return value
