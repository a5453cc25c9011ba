"""JSON Schemas in words, for messages: what a place takes, and what it was given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from app.agent.graph.issues import quoted

Schema = Mapping[str, Any]
_MOST_SHOWN = 80


def in_words(forms: Iterable[Schema]) -> str:
    """What a value of one of `forms`, schemas without alternatives, is: `'a' or 'b'`, `an integer from 1`."""
    return alternatives(list(dict.fromkeys(words for form in forms for words in _words(form))))


def alternatives(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def constants(forms: Iterable[Schema]) -> list[str] | None:
    """The strings there are to choose from; None where something else would do, too."""
    found: list[str] = []
    for form in forms:
        values = [form["const"]] if "const" in form else form.get("enum")
        if values is None or not all(isinstance(value, str) for value in values):
            return None
        found.extend(values)
    return found


def given(value: Any) -> str:
    """A value for a message: as it is, or what it is and how large."""
    whole = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    match value:
        case str() if len(whole) > _MOST_SHOWN:
            return f"a string of {len(value)} characters"
        case list() if len(whole) > _MOST_SHOWN:
            return f"a list of {_counted(len(value), 'item')}"
        case dict() if len(whole) > _MOST_SHOWN:
            return f"an object of {_counted(len(value), 'key')}"
    return quoted(value)


def key_form(form: Schema) -> Schema:
    """What the keys of an object of this form are."""
    pattern = next(iter(form.get("patternProperties", ())), None)
    return {"type": "string", **({"pattern": pattern} if pattern else {}), **form.get("propertyNames", {})}


def _words(form: Schema) -> Iterator[str]:
    if "const" in form or "enum" in form:
        yield from map(quoted, [form["const"]] if "const" in form else form["enum"])
        return
    match form.get("type"):
        case "string":
            yield "a string" + _size(form, "Length", "character") + _pattern(form)
        case "integer" | "number" as kind:
            yield ("an integer" if kind == "integer" else "a number") + _range(form)
        case "boolean":
            yield "true or false"
        case "array":
            yield "a list" + _size(form, "Items", "item") + _each(form)
        case "object":
            yield "an object" + _keys(form)
        case _:
            yield "any value"


def _size(form: Schema, what: str, unit: str) -> str:
    least, most = form.get(f"min{what}"), form.get(f"max{what}")
    if least is not None and most is not None:
        return f" of {least} to {_counted(most, unit)}"
    if most is not None:
        return f" of at most {_counted(most, unit)}"
    return f" of at least {_counted(least, unit)}" if least is not None else ""


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _pattern(form: Schema) -> str:
    return f" that matches {form['pattern']}" if "pattern" in form else ""


def _range(form: Schema) -> str:
    least, most = form.get("minimum"), form.get("maximum")
    if least is not None and most is not None:
        return f" from {least} to {most}"
    limits = (
        ("above", form.get("exclusiveMinimum")), ("from", least),
        ("below", form.get("exclusiveMaximum")), ("at most", most),
    )  # fmt: skip
    said = [f"{word} {limit}" for word, limit in limits if limit is not None]
    return " " + " and ".join(said) if said else ""


def _each(form: Schema) -> str:
    items = constants([form.get("items", {})])
    return f", each {alternatives([repr(item) for item in items])}" if items else ""


def _keys(form: Schema) -> str:
    if names := constants([form.get("propertyNames", {})]):
        most = form.get("maxProperties", len(names))
        return f" with at most {'one' if most == 1 else most} of the keys {', '.join(map(repr, names))}"
    if required := form.get("required"):
        return " {" + ", ".join(f'"{name}": …' for name in required) + "}"
    return _size(form, "Properties", "key")
