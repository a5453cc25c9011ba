"""Where in a text the parts of its document stand: RFC 6901 pointer → line."""

from __future__ import annotations

from json import JSONDecodeError

import yaml

from app.agent.graph.loading import Notation


class Places:
    """Lines count from 1. Nothing is known of a text that does not parse; see `line_of_mistake`."""

    def __init__(self, text: str) -> None:
        self._root: yaml.Node | None = None
        try:
            # Tabs are white space in JSON only; a string of JSON cannot hold one.
            notation = text.replace("\t", " ") if text.lstrip().startswith("{") else text
            self._root = yaml.compose(notation, Loader=Notation)
        except (yaml.YAMLError, RecursionError, ValueError):
            pass

    def line(self, pointer: str) -> int | None:
        """Where the part that `pointer` names begins, or the nearest part around it that is there."""
        if self._root is None:
            return None
        node, line = self._root, self._root.start_mark.line
        for token in pointer.split("/")[1:]:
            found = _child(node, token.replace("~1", "/").replace("~0", "~"))
            if found is None:
                break
            name, node = found
            line = name.start_mark.line
        return line + 1


def line_of_mistake(error: BaseException | None) -> int | None:
    """Where a parser of JSON or YAML gave up, if it says."""
    if isinstance(error, JSONDecodeError):
        return error.lineno
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return mark.line + 1 if mark else None


def _child(node: yaml.Node, token: str) -> tuple[yaml.Node, yaml.Node] | None:
    """The node that shows where the child begins, and the child."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == token), None)
    if isinstance(node, yaml.SequenceNode) and token.isdecimal() and int(token) < len(node.value):
        child = node.value[int(token)]
        return child, child
    return None
