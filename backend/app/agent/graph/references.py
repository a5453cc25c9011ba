"""The one reference form of agent documents: `{{ source.path ?? other.path ?? "literal" }}`.

Grammar (whitespace is free inside the braces):

    template  := ( text | "{{{{" | "{{" chain "}}" )*
    chain     := reference ( "??" reference )* ( "??" literal )?
    reference := source ( "." name | "." index )*
    literal   := any JSON value

`{{{{` stands for a literal `{{`. A template that is exactly one chain keeps the value's type; inside
text a value is rendered as a string (objects and arrays as JSON, null as nothing).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import GetCoreSchemaHandler, JsonValue
from pydantic_core import (
    CoreSchema,
    PydanticCustomError,
    PydanticSerializationUnexpectedValue,
    core_schema,
)

from app.core.errors import TooLarge

MAX_RENDERED = 4 * 2**20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|\d{1,9}")
_SPACE = re.compile(r"\s*")
_KEYWORDS = frozenset({"true", "false", "null"})


class RenderedTooLarge(TooLarge):
    """Text, or an output, beyond what a run may make."""

    code = "too_large"


class TemplateError(ValueError):
    """A reference that does not parse. `position` counts characters from 0 in the template's text."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


@dataclass(frozen=True, slots=True)
class Reference:
    """`source.path`; `position` is where it stands in its template."""

    source: str
    path: tuple[str, ...]
    position: int

    def __str__(self) -> str:
        return ".".join((self.source, *self.path))


@dataclass(frozen=True, slots=True)
class Literal:
    """The constant that may end a chain."""

    value: JsonValue


@dataclass(frozen=True, slots=True)
class Chain:
    """`a ?? b ?? literal`: the first alternative that is set and not null."""

    references: tuple[Reference, ...]
    literal: Literal | None = None

    def __str__(self) -> str:
        ending = [json.dumps(self.literal.value)] if self.literal else []
        return " ?? ".join([*map(str, self.references), *ending])


class Lookup(Protocol):
    """Gives the value of a chain; raises where nothing in it is set."""

    def value(self, chain: Chain) -> Any: ...


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed string. Compares, dumps and prints as its `source`."""

    source: str
    parts: tuple[str | Chain, ...]

    @property
    def chain(self) -> Chain | None:
        """The chain, if the template is exactly one."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Chain):
            return self.parts[0]
        return None

    @property
    def chains(self) -> Iterator[Chain]:
        return (part for part in self.parts if isinstance(part, Chain))

    def value(self, lookup: Lookup) -> Any:
        """The chain's value with its type; text where the template is more than one chain."""
        chain = self.chain
        return lookup.value(chain) if chain else self.text(lookup)

    def text(self, lookup: Lookup) -> str:
        """Raises `RenderedTooLarge`: templates that double each other's text would fill the memory."""
        rendered: list[str] = []
        size = 0
        for part in self.parts:
            rendered.append(part if isinstance(part, str) else as_text(lookup.value(part)))
            size += len(rendered[-1])
            if size > MAX_RENDERED:
                raise RenderedTooLarge(f"the text comes to more than {MAX_RENDERED} characters")
        return "".join(rendered)

    def __str__(self) -> str:
        return self.source

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            _validated,
            core_schema.str_schema(strict=True),
            serialization=core_schema.plain_serializer_function_ser_schema(_source),
            metadata={"pydantic_js_updates": {"format": "template"}},
        )


def _source(template: Template) -> str:
    if not isinstance(template, Template):  # another member of a union, which Pydantic tries next
        raise PydanticSerializationUnexpectedValue
    return str(template)


def parse(text: str) -> Template:
    """Raises `TemplateError` with the position of the first mistake."""
    parts: list[str | Chain] = []
    plain: list[str] = []
    for _, piece in pieces(text):
        if isinstance(piece, str):
            plain.append(piece)
            continue
        if literal := "".join(plain):
            parts.append(literal)
        plain.clear()
        parts.append(piece)
    if literal := "".join(plain):
        parts.append(literal)
    return Template(text, tuple(parts))


def pieces(text: str) -> Iterator[tuple[int, str | Chain]]:
    """Text (`{{{{` read as `{{`) and chains in turn, each with the place where it begins."""
    at = 0
    while (opening := text.find("{{", at)) >= 0:
        yield at, text[at:opening]
        if text.startswith("{{{{", opening):
            yield opening, "{{"
            at = opening + 4
        else:
            chain, at = _chain(text, opening)
            yield opening, chain
    yield at, text[at:]


def as_text(value: object) -> str:
    """How a value reads inside text: strings as they are, null as nothing, the rest as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def _validated(text: str) -> Template:
    try:
        return parse(text)
    except TemplateError as error:
        raise PydanticCustomError(
            "invalid_reference",
            "{problem} at character {position}",
            {"problem": error.message, "position": error.position},
        ) from error


def _chain(text: str, opening: int) -> tuple[Chain, int]:
    references: list[Reference] = []
    at = _skip(text, opening + 2)
    while True:
        reference, at = _reference(text, at)
        if reference is None:
            return _ended_by_literal(text, at, opening=opening, references=references)
        references.append(reference)
        at = _skip(text, at)
        if text.startswith("}}", at):
            return Chain(tuple(references)), at + 2
        if not text.startswith("??", at):
            raise _unexpected(text, at, opening=opening, expected="'.', '??' or '}}'")
        at = _skip(text, at + 2)


def _reference(text: str, at: int) -> tuple[Reference | None, int]:
    """A reference at `at`; None where something else (perhaps a literal) begins."""
    match = _NAME.match(text, at)
    if match is None or match[0][0].isdigit() or match[0] in _KEYWORDS:
        return None, at
    path: list[str] = []
    end = match.end()
    while text.startswith(".", end):
        step = _NAME.match(text, end + 1)
        if step is None:
            raise TemplateError("expected a name or an index after '.'", end + 1)
        path.append(step[0])
        end = step.end()
    return Reference(match[0], tuple(path), at), end


def _ended_by_literal(text: str, at: int, *, opening: int, references: list[Reference]) -> tuple[Chain, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        expected = "a reference or a JSON value" if references else "a reference such as 'inputs.question'"
        raise _unexpected(text, at, opening=opening, expected=expected) from None
    if not references:
        raise TemplateError(
            "a constant needs no braces: write it as plain text, or put a reference first", at
        )
    end = _skip(text, end)
    if not text.startswith("}}", end):
        raise _unexpected(text, end, opening=opening, expected="'}}' after the constant that ends a chain")
    return Chain(tuple(references), Literal(value)), end + 2


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _unexpected(text: str, at: int, *, opening: int, expected: str) -> TemplateError:
    if "}}" not in text[at:]:
        return TemplateError("'{{' is never closed by '}}' (write '{{{{' for a literal '{{')", opening)
    return TemplateError(f"expected {expected}, found {text[at : at + 12]!r}", at)
