"""Text → document → graph. JSON, or YAML 1.2's core: only `true`/`false` are booleans."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable
from typing import Any

import yaml

from app.agent.core.base import NODE_TYPES
from app.agent.graph.checks.shape import check_shape
from app.agent.graph.issues import Findings, InvalidGraph, IssueCode
from app.agent.graph.limits import MAX_TEXT, check_size
from app.agent.graph.schema import AgentGraph

_MAX_CHARACTERS = 2 * MAX_TEXT


def load_graph(text: str) -> AgentGraph:
    """The graph in `text`. Raises `InvalidGraph` with every error of syntax and shape; see
    `AgentCompiler.check` for the rest."""
    document = load_document(text)
    findings = Findings()
    if check_size(document, findings):
        check_shape(document, findings, types=NODE_TYPES)
    report = findings.report(document)
    if report.errors:
        raise InvalidGraph(report)
    return AgentGraph.model_validate(document)


def load_document(text: str) -> Any:
    """The JSON value in `text`, unchecked. Raises `InvalidGraph` (`invalid_syntax`, `too_large`)."""
    if len(text) > _MAX_CHARACTERS:
        raise _refused(IssueCode.TOO_LARGE, f"the text is longer than {_MAX_CHARACTERS} characters")
    try:
        if text.lstrip().startswith("{"):
            return json.loads(text, object_pairs_hook=_object)
        return yaml.load(text, Loader=Notation)  # noqa: S506  (a SafeLoader, with fewer types still)
    except RecursionError:
        raise _refused(IssueCode.TOO_DEEP, "values are nested too deeply") from None
    except (ValueError, yaml.YAMLError) as error:
        raise _refused(IssueCode.INVALID_SYNTAX, _said(error)) from error


def _said(error: Exception) -> str:
    """The parser's words in one line, with line and column."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    words = ": ".join(filter(None, (error.context, error.problem)))
    return f"{words} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"


def _refused(code: IssueCode, message: str) -> InvalidGraph:
    findings = Findings()
    findings.add(code, (), message, fix="send one JSON or YAML object")
    return InvalidGraph(findings.report(None))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} is there twice in one object")
    return made


class Notation(yaml.SafeLoader):
    """YAML as a notation for JSON."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own form)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"-?(0|[1-9]\d*)", "-0123456789"),
    ("float", r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", "-0123456789"),
):
    Notation.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
